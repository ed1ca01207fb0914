//! Types as text, in the manner of C.

use super::{Btf, Kind, MAX_CHAIN};

/// What stands for a part of a type that cannot be followed.
const BROKEN: &str = "?";

impl Btf {
    /// A type as C would name it: `struct file *`, `const struct cred *`, `unsigned long`, `char[16]`.
    ///
    /// Prototypes are shown without their parameters, type tags not at all ([`Btf::type_tags`] has them), and what
    /// leads nowhere as `?`.
    #[must_use]
    pub fn type_name(&self, id: u32) -> String {
        // What binds to the right of the base type is gathered in front of `right` on the way down.
        let (mut id, mut left, mut right) = (id, String::new(), String::new());
        for _ in 0..MAX_CHAIN {
            let Some(entry) = self.own.entry(id) else {
                return finish(&left, if id == 0 { "void" } else { BROKEN }, &right);
            };
            let name = self.string(entry.name_off).filter(|name| !name.is_empty());
            let named = |word: &str| format!("{word}{}", name.unwrap_or("(anonymous)"));
            let base = match entry.kind {
                Kind::Ptr => {
                    right = format!("*{right}");
                    id = entry.size_or_type;
                    continue;
                }
                Kind::Const | Kind::Volatile | Kind::Restrict => {
                    qualify(&entry.kind, self.is_pointer(entry.size_or_type), &mut left, &mut right);
                    id = entry.size_or_type;
                    continue;
                }
                Kind::Array => {
                    let (element, _, length) = entry.array().unwrap_or_default();
                    right = if right.starts_with('*') {
                        format!("({right})[{length}]")
                    } else {
                        format!("{right}[{length}]")
                    };
                    id = element;
                    continue;
                }
                Kind::FuncProto => {
                    right = if right.is_empty() { "()".to_owned() } else { format!("({right})()") };
                    id = entry.size_or_type;
                    continue;
                }
                Kind::TypeTag => {
                    id = entry.size_or_type;
                    continue;
                }
                Kind::Struct => named("struct "),
                Kind::Union => named("union "),
                Kind::Fwd => named(if entry.kind_flag { "union " } else { "struct " }),
                Kind::Enum | Kind::Enum64 => named("enum "),
                Kind::Int | Kind::Float | Kind::Typedef => named(""),
                Kind::Func | Kind::Var | Kind::DataSec | Kind::DeclTag | Kind::Other => named(""),
            };
            return finish(&left, &base, &right);
        }
        finish(&left, BROKEN, &right)
    }

    /// The type tags (`rcu`, `user`, `percpu`, ..) between a pointer and what it points to, outermost first.
    #[must_use]
    pub fn type_tags(&self, pointer: u32) -> Vec<String> {
        let mut tags = Vec::new();
        let Some(mut id) = self.pointee(pointer) else { return tags };
        for _ in 0..MAX_CHAIN {
            let Some(entry) = self.own.entry(id) else { break };
            if !entry.kind.is_qualifier() {
                break;
            }
            if entry.kind == Kind::TypeTag {
                tags.extend(self.string(entry.name_off).map(str::to_owned));
            }
            id = entry.size_or_type;
        }
        tags
    }

    /// Whether a type is a pointer below qualifiers and tags, but not below a typedef, which C names as a whole.
    fn is_pointer(&self, id: u32) -> bool {
        let mut id = id;
        for _ in 0..MAX_CHAIN {
            let Some(entry) = self.own.entry(id) else { return false };
            if !entry.kind.is_qualifier() {
                return entry.kind == Kind::Ptr;
            }
            id = entry.size_or_type;
        }
        false
    }
}

/// Puts a qualifier before the base type, or behind the star that it qualifies.
fn qualify(kind: &Kind, pointer: bool, left: &mut String, right: &mut String) {
    let words = [(Kind::Const, "const"), (Kind::Volatile, "volatile"), (Kind::Restrict, "restrict")];
    let word = words.iter().find(|(known, _)| known == kind).map_or(BROKEN, |&(_, word)| word);
    if pointer {
        *right = format!(" {word}{right}");
    } else {
        left.push_str(word);
        left.push(' ');
    }
}

/// Joins the parts, with a blank before stars and none before brackets.
fn finish(left: &str, base: &str, right: &str) -> String {
    let gap = if right.is_empty() || right.starts_with(['[', ' ']) { "" } else { " " };
    format!("{left}{base}{gap}{right}")
}
