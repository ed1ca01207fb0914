//! A hook function's prototype as BTF has it: as text, and as slots of the context that its programs are given.

use crate::btf::{Btf, Kind};

/// The prefix of every function that a program of this type can be for.
pub(super) const PREFIX: &str = "bpf_lsm_";
/// Bytes of a slot.
const SLOT_BYTES: u32 = 8;

/// What a hook function takes and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Prototype {
    /// As C would declare it.
    pub(super) text: String,
    /// What each slot of the context is, in order; for a function that returns something `ret` is the last.
    pub(super) slots: Vec<String>,
    /// What it gives.
    pub(super) returns: Returns,
}

/// What a hook function gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Returns {
    /// Nothing.
    Nothing,
    /// `bool`.
    Bool,
    /// A number of another type, `int` as a rule.
    Number,
}

/// The names of all functions that a program might be for, without the prefix, in order; also of those that the
/// kernel will say are no hooks. Names that are no C identifiers (copies that a compiler made) are no functions of
/// the source.
#[must_use]
pub fn names(btf: &Btf) -> Vec<String> {
    let plain = |name: &&str| is_name(name);
    let found = btf.functions().filter_map(|(_, name)| name.strip_prefix(PREFIX)).filter(plain);
    let mut names: Vec<String> = found.map(str::to_owned).collect();
    names.sort_unstable();
    names.dedup();
    names
}

/// Whether a hook can have this name.
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// The prototype of the function of this name with this id. `None` where BTF leads nowhere.
///
/// A slot has 8 bytes, and an argument has as many slots as it fills (`get_ctx_arg_idx`, 6.1 and 6.12
/// kernel/bpf/btf.c). Whether the verifier agrees is what the case `context` asks.
pub(super) fn of(btf: &Btf, name: &str, id: u32) -> Option<Prototype> {
    let proto = btf.prototype(id)?;
    let mut parameters = Vec::new();
    let mut slots = Vec::new();
    for (argument, kind) in &proto.params {
        let declared = btf.declaration(*kind, argument);
        for part in 0..btf.size_of(*kind).unwrap_or(SLOT_BYTES).div_ceil(SLOT_BYTES).max(1) {
            slots.push(if part == 0 { declared.clone() } else { format!("{declared}, further") });
        }
        parameters.push(declared);
    }
    let below = btf.skip_modifiers(proto.ret)?;
    let returns = match (below, btf.name(below)) {
        (0, _) => Returns::Nothing,
        (_, Some("_Bool" | "bool")) if btf.kind(below) == Some(Kind::Int) => Returns::Bool,
        _ => Returns::Number,
    };
    if returns != Returns::Nothing {
        slots.push("ret".to_owned());
    }
    let parameters = if parameters.is_empty() { "void".to_owned() } else { parameters.join(", ") };
    let text = btf.declaration(proto.ret, &format!("{PREFIX}{name}({parameters})"));
    Some(Prototype { text, slots, returns })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::btf_build::{BtfBuilder, Linkage, SIGNED};
    use rstest::rstest;

    fn sample() -> Btf {
        let mut b = BtfBuilder::new();
        let int = b.int("int", 4, SIGNED);
        let flag = b.int("_Bool", 1, 0);
        let flag = b.typedef("bool", flag);
        let file = b.structure("file", 8, &[("f", int, 0)]);
        let file = b.constant(file);
        let file = b.ptr(file);
        let wide = b.structure("wide", 16, &[("f", int, 0)]);
        let open = b.func_proto(int, &[("file", file), ("mask", int)]);
        let told = b.func_proto(0, &[("wide", wide), ("", int)]);
        let asked = b.func_proto(flag, &[]);
        for (name, proto) in [
            ("bpf_lsm_open", open),
            ("bpf_lsm_told", told),
            ("bpf_lsm_asked", asked),
            ("bpf_lsm_a.isra.0", open),
        ] {
            b.func(name, proto, Linkage::Static);
        }
        b.func("security_open", open, Linkage::Static);
        Btf::parse(b.finish()).unwrap()
    }

    #[test]
    fn functions_are_found_by_their_prefix() {
        assert_eq!(names(&sample()), ["asked", "open", "told"]);
    }

    #[rstest]
    #[case("open", "int bpf_lsm_open(const struct file *file, int mask)", &["const struct file *file", "int mask", "ret"], Returns::Number)]
    #[case("told", "void bpf_lsm_told(struct wide wide, int)", &["struct wide wide", "struct wide wide, further", "int"], Returns::Nothing)]
    #[case("asked", "bool bpf_lsm_asked(void)", &["ret"], Returns::Bool)]
    fn prototypes(#[case] name: &str, #[case] text: &str, #[case] slots: &[&str], #[case] returns: Returns) {
        let btf = sample();
        let id = btf.function(&format!("{PREFIX}{name}")).unwrap();
        let found = of(&btf, name, id).unwrap();
        assert_eq!((found.text.as_str(), found.returns), (text, returns));
        assert_eq!(found.slots, slots);
    }

    #[rstest]
    #[case("file_open", true)]
    #[case("", false)]
    #[case("file_open.isra.0", false)]
    #[case("a/b", false)]
    fn identifiers(#[case] name: &str, #[case] good: bool) {
        assert_eq!(is_name(name), good);
    }
}
