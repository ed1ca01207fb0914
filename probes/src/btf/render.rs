//! Types as text, in the manner of C.

use super::layer::Entry;
use super::{Btf, Kind, MAX_CHAIN};

/// What stands for a part of a type that cannot be followed.
const BROKEN: &str = "?";
/// As many parameters of a callback are shown, which is as many as the kernel takes of any function (7.3
/// include/linux/bpf.h, `MAX_BPF_FUNC_ARGS`), so that damaged BTF makes no endless text.
const MAX_PARAMETERS: usize = 12;

impl Btf {
    /// A type as C would name it: `struct file *`, `const struct cred *`, `unsigned long`, `char[16]`.
    ///
    /// Type tags are not shown ([`Btf::type_tags`] has them), what leads nowhere is `?`, and a prototype that is a
    /// parameter of another one has no parameters.
    #[must_use]
    pub fn type_name(&self, id: u32) -> String {
        self.declaration(id, "")
    }

    /// A type and a name as C declares them: `struct file *file`, `char comm[16]`, `bool (*less)(int, int)`.
    ///
    /// The name may be that of a function with its parameters, the type what it returns.
    #[must_use]
    pub fn declaration(&self, id: u32, name: &str) -> String {
        self.declared(id, name, Self::parameters)
    }

    /// The parameters of a prototype, with their names where it has them, which BTF made of DWARF has not for a
    /// pointer to a function.
    fn parameters(&self, proto: &Entry<'_>) -> String {
        let parameter = |(name, id): (u32, u32)| match (self.string(name).unwrap_or_default(), id) {
            ("", 0) => "...".to_owned(),
            (name, id) => self.declared(id, name, |_, _| String::new()),
        };
        let mut parameters: Vec<String> = proto.params().take(MAX_PARAMETERS).map(parameter).collect();
        if proto.params().nth(MAX_PARAMETERS).is_some() {
            parameters.push(BROKEN.to_owned());
        }
        if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") }
    }

    /// As [`Btf::declaration`]; what a prototype takes is left to `parameters`, so that nothing recurses.
    fn declared(&self, id: u32, name: &str, parameters: fn(&Self, &Entry<'_>) -> String) -> String {
        // What binds to the right of the base type is gathered in front of `right` on the way down.
        let (mut id, mut left, mut right) = (id, String::new(), name.to_owned());
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
                    let parameters = parameters(self, &entry);
                    right = if right.starts_with('*') {
                        format!("({right})({parameters})")
                    } else {
                        format!("{right}({parameters})")
                    };
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
        let gap = if right.is_empty() || right.starts_with(' ') { "" } else { " " };
        *right = format!(" {word}{gap}{right}");
    } else {
        left.push_str(word);
        left.push(' ');
    }
}

/// Joins the parts, with a blank before stars and names and none before brackets that have neither.
fn finish(left: &str, base: &str, right: &str) -> String {
    let gap = if right.is_empty() || right.starts_with(['[', ' ']) { "" } else { " " };
    format!("{left}{base}{gap}{right}")
}
