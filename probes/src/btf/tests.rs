//! The reader against blobs made by [`crate::btf_build`], damaged blobs, and the machine's own kernel.

use super::*;
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};

/// Ids of the sample's types that tests refer to.
struct Sample {
    btf: Btf,
    int: u32,
    file: u32,
    alias: u32,
    func: u32,
    proto: u32,
}

fn sample() -> Sample {
    let mut b = BtfBuilder::new();
    let int = b.int("int", 4, SIGNED);
    let ulong = b.int("unsigned long", 8, UNSIGNED);
    let inner = b.structure("", 8, &[("start_brk", int, 0), ("brk", int, 4)]);
    let anonymous = b.union("", 8, &[("whole", ulong, 0), ("", inner, 0)]);
    let path = b.structure("path", 16, &[("mnt", ulong, 0), ("dentry", ulong, 8)]);
    let path_t = b.typedef("path_t", path);
    let const_path = b.constant(path_t);
    let ptr = b.ptr(path);
    let file = b.structure(
        "file",
        40,
        &[("f_mode", int, 0), ("", anonymous, 8), ("f_path", const_path, 16), ("p", ptr, 32)],
    );
    let flags = b.bitfields("flags", 4, &[("low", int, 0, 3), ("high", int, 3, 5), ("rest", int, 8, 0)]);
    let file_ptr = b.ptr(file);
    let proto = b.func_proto(int, &[("file", file_ptr), ("mask", int)]);
    let func = b.func("bpf_lsm_file_open", proto, Linkage::Static);
    b.decl_tag("bpf_kfunc", func, -1);
    b.decl_tag("arg", func, 0);
    b.enumeration("colour", &[("RED", -1), ("BLUE", 7)]);
    b.enumeration64("wide", &[("HUGE", 1 << 40)]);
    let var = b.var("v", flags, Linkage::Global);
    b.datasec(".data", 4, &[(var, 0, 4)]);
    b.float("double", 8);
    b.fwd_struct("far");
    Sample { btf: Btf::parse(b.finish()).unwrap(), int, file, alias: path_t, func, proto }
}

#[test]
fn look_ups_by_name_and_kind() {
    let s = sample();
    assert_eq!(s.btf.function("bpf_lsm_file_open"), Some(s.func));
    assert_eq!(s.btf.function("file"), None);
    assert_eq!(s.btf.record("file"), Some(s.file));
    assert_eq!(s.btf.find(Kind::Typedef, "path_t"), Some(s.alias));
    assert_eq!(s.btf.find(Kind::Fwd, "far").map(|id| s.btf.kind(id)), Some(Some(Kind::Fwd)));
    assert_eq!(s.btf.functions().collect::<Vec<_>>(), [(s.func, "bpf_lsm_file_open")]);
    assert_eq!((s.btf.kind(0), s.btf.name(0), s.btf.kind(9999)), (None, None, None));
}

#[test]
fn members_through_embedded_and_anonymous_records() {
    let btf = sample().btf;
    let at = |path: &str| btf.member("file", path).map(|m| (m.byte_offset, m.size));
    assert_eq!(at("f_mode"), Ok((0, 4)));
    assert_eq!(at("brk"), Ok((12, 4)));
    assert_eq!(at("whole"), Ok((8, 8)));
    assert_eq!(at("f_path"), Ok((16, 16)));
    assert_eq!(at("f_path.dentry"), Ok((24, 8)));
    assert_eq!(at("p.dentry"), Err(BtfError::NotEmbedded("p".into())));
    let missing = BtfError::NoMember { record: "path".into(), member: "nope".into() };
    assert_eq!(at("f_path.nope"), Err(missing));
    assert!(matches!(at(""), Err(BtfError::NoMember { .. })));
    assert_eq!(btf.member("path_t", "dentry").map(|m| m.byte_offset), Ok(8));
    assert_eq!(btf.member("int", "x"), Err(BtfError::NoRecord("int".into())));
    let high = btf.member("flags", "high").unwrap();
    assert_eq!((high.byte_offset, high.bit_offset, high.bitfield_size), (0, 3, 5));
    assert_eq!(btf.member("flags", "rest").map(|m| (m.byte_offset, m.bitfield_size)), Ok((1, 0)));
}

#[test]
fn sizes_prototypes_tags_and_values() {
    let s = sample();
    assert_eq!(s.btf.size_of(s.file), Some(40));
    assert_eq!((s.btf.size_of(0), s.btf.size_of(s.func)), (None, None));
    let proto = s.btf.prototype(s.func).unwrap();
    assert_eq!(Some(&proto), s.btf.prototype(s.proto).as_ref());
    assert_eq!(proto.ret, s.int);
    let types: Vec<_> = proto.params.iter().map(|(n, t)| (n.as_str(), s.btf.type_name(*t))).collect();
    assert_eq!(types, [("file", "struct file *".to_owned()), ("mask", "int".to_owned())]);
    assert_eq!(s.btf.prototype(s.file), None);
    assert_eq!(s.btf.decl_tags(s.func), ["bpf_kfunc"]);
    assert_eq!(s.btf.component_tags(s.func, 0), ["arg"]);
    assert_eq!(s.btf.enum_value(None, "RED"), Some(-1));
    assert_eq!(s.btf.enum_value(None, "HUGE"), Some(1 << 40));
    assert_eq!(s.btf.enum_value(s.btf.find(Kind::Enum, "colour"), "BLUE"), Some(7));
    assert_eq!(s.btf.enum_value(s.btf.find(Kind::Enum, "colour"), "HUGE"), None);
    assert_eq!(s.btf.enum_value(Some(s.int), "RED"), None);
}

#[test]
fn names_read_as_c() {
    let mut b = BtfBuilder::new();
    let char = b.int("char", 1, SIGNED);
    let cred = b.structure("cred", 4, &[]);
    let tagged = b.type_tag("rcu", cred);
    let const_cred = b.constant(tagged);
    let const_ptr = b.ptr(const_cred);
    let ptr_const = b.constant(const_ptr);
    let array = b.array(char, char, 16);
    let array_ptr = b.ptr(array);
    let ptr = b.ptr(char);
    let ptr_array = b.array(ptr, char, 2);
    let proto = b.func_proto(ptr, &[]);
    let callback = b.ptr(proto);
    let void = b.ptr(0);
    let void2 = b.ptr(void);
    let lost = b.ptr(4000);
    let btf = Btf::parse(b.finish()).unwrap();
    for (id, text) in [
        (0, "void"),
        (const_ptr, "const struct cred *"),
        (ptr_const, "const struct cred * const"),
        (array, "char[16]"),
        (array_ptr, "char (*)[16]"),
        (ptr_array, "char *[2]"),
        (callback, "char *(*)(void)"),
        (void2, "void **"),
        (lost, "? *"),
    ] {
        assert_eq!(btf.type_name(id), text);
    }
    assert_eq!(btf.type_tags(const_ptr), ["rcu"]);
    assert_eq!(btf.size_of(ptr_array), Some(16));
}

#[test]
fn declarations_read_as_c() {
    let mut b = BtfBuilder::new();
    let int = b.int("int", 4, SIGNED);
    let flag = b.int("bool", 1, 0);
    let node = b.structure("node", 8, &[("n", int, 0)]);
    let pointer = b.ptr(node);
    let constant = b.constant(node);
    let to_constant = b.ptr(constant);
    let fixed = b.constant(pointer);
    let array = b.array(int, int, 16);
    let less = b.func_proto(flag, &[("a", pointer), ("", to_constant)]);
    let less = b.ptr(less);
    let inner = b.func_proto(0, &[("less", less), ("", 0)]);
    let inner = b.ptr(inner);
    let table = b.array(less, int, 2);
    let many: Vec<(&str, u32)> = (0..14).map(|_| ("", int)).collect();
    let many = b.func_proto(0, &many);
    let many = b.ptr(many);
    let btf = Btf::parse(b.finish()).unwrap();
    for (id, name, text) in [
        (int, "cmd", "int cmd"),
        (int, "", "int"),
        (pointer, "node", "struct node *node"),
        (pointer, "first(int a)", "struct node *first(int a)"),
        (0, "f(void)", "void f(void)"),
        (fixed, "node", "struct node * const node"),
        (array, "comm", "int comm[16]"),
        (less, "less", "bool (*less)(struct node *a, const struct node *)"),
        (table, "all", "bool (*all[2])(struct node *a, const struct node *)"),
        (inner, "f", "void (*f)(bool (*less)(), ...)"),
        (many, "f", "void (*f)(int, int, int, int, int, int, int, int, int, int, int, int, ?)"),
    ] {
        assert_eq!(btf.declaration(id, name), text);
    }
}

#[test]
fn a_module_continues_its_base() {
    let s = sample();
    let mut b = BtfBuilder::split(&s.btf);
    let ptr = b.ptr(s.file);
    let own = b.structure("module_thing", 8, &[("file", ptr, 0)]);
    // A name that stands in the base's strings, as pahole shares them.
    let shared = b.raw("", 12 << 24, s.proto, &[]);
    let mut blob = b.finish();
    let name = s.btf.own.entry(s.func).unwrap().name_off;
    let at = 24 + 12 + 12 + 12;
    blob[at..at + 4].copy_from_slice(&name.to_le_bytes());
    let module = Btf::parse_split(&s.btf, blob).unwrap();
    assert_eq!(module.record("module_thing"), Some(own));
    assert_eq!(module.record("file"), Some(s.file));
    assert_eq!(module.function("bpf_lsm_file_open"), Some(shared), "the module's own comes first");
    assert_eq!(module.functions().collect::<Vec<_>>(), [(shared, "bpf_lsm_file_open")]);
    assert_eq!(module.type_name(ptr), "struct file *");
    assert_eq!(module.member("module_thing", "file").map(|m| m.size), Ok(8));
}

#[test]
fn cycles_end() {
    let mut b = BtfBuilder::new();
    let one = b.typedef("one", 2);
    let two = b.typedef("two", one);
    let array = b.array(4, 4, 1);
    b.array(array, array, 1);
    let record = b.structure("self", 8, &[("", 5, 0), ("", 5, 0), ("a", two, 0)]);
    let ptr = b.ptr(7);
    b.constant(ptr);
    let btf = Btf::parse(b.finish()).unwrap();
    assert_eq!(btf.skip_modifiers(one), None);
    assert_eq!(btf.size_of(one), None);
    assert_eq!(btf.size_of(array), None);
    assert_eq!(btf.member_of(record, "nope"), Err(BtfError::Broken(record)));
    assert_eq!(btf.member_of(record, "a.b"), Err(BtfError::NotEmbedded("a".into())));
    assert!(btf.type_name(ptr).starts_with('?'));
    assert!(btf.type_name(array).starts_with('?'));
    assert_eq!(btf.type_tags(ptr), Vec::<String>::new());
}

#[test]
fn unknown_kinds_are_named_or_stepped_over() {
    let mut b = BtfBuilder::new();
    b.int("int", 4, SIGNED);
    b.raw("new", 20 << 24 | 2, 0, &[0, 0, 0]);
    let after = b.int("after", 4, SIGNED);
    let blob = b.finish();
    assert_eq!(Btf::parse(&blob[..]).err(), Some(BtfError::UnknownKind { kind: 20, id: 2, offset: 16 }));

    // The same with a layout section that says: kind 20 has 4 bytes, and 4 more per element.
    let mut layout = vec![0u8; 21 * 4];
    layout[20 * 4] = 4;
    layout[20 * 4 + 1] = 4;
    let mut long = blob[..24].to_vec();
    long[4] = 32;
    let sections = u32::try_from(blob.len() - 24).unwrap();
    long.extend_from_slice(&sections.to_le_bytes());
    long.extend_from_slice(&u32::try_from(layout.len()).unwrap().to_le_bytes());
    long.extend_from_slice(&blob[24..]);
    long.extend_from_slice(&layout);
    let btf = Btf::parse(long).unwrap();
    assert_eq!(btf.kind(2), Some(Kind::Other));
    assert_eq!(btf.find(Kind::Int, "after"), Some(after));
}

#[test]
fn damage_is_reported_and_never_panics() {
    let mut b = BtfBuilder::new();
    let int = b.int("int", 4, SIGNED);
    let s = b.structure("s", 8, &[("a", int, 0), ("b", int, 4)]);
    let proto = b.func_proto(s, &[("x", int)]);
    b.func("f", proto, Linkage::Global);
    let blob = b.finish();
    for length in 0..blob.len() {
        assert!(Btf::parse(&blob[..length]).is_err(), "cut to {length}");
    }
    for at in 0..blob.len() {
        for value in [0, 1, 0x7f, 0xff] {
            let mut damaged = blob.clone();
            damaged[at] = value;
            let Ok(btf) = Btf::parse(damaged) else { continue };
            for id in 0..=btf.next_id() {
                let _seen = (btf.type_name(id), btf.size_of(id), btf.prototype(id), btf.decl_tags(id));
            }
            let _seen = (btf.member("s", "b"), btf.function("f"), btf.enum_value(None, "x"));
        }
    }
}

#[test]
fn this_machines_kernel_if_it_shows_its_types() {
    let Ok(bytes) = std::fs::read("/sys/kernel/btf/vmlinux") else { return };
    let btf = Btf::parse(bytes).unwrap();
    let task = btf.record("task_struct").unwrap();
    assert_eq!(btf.type_name(task), "struct task_struct");
    let comm = btf.member("task_struct", "comm").unwrap();
    assert_eq!((comm.size, btf.type_name(comm.type_id).as_str()), (16, "char[16]"));
    assert!(btf.member("file", "f_path.dentry").is_ok());
    assert_eq!(btf.enum_value(None, "BPF_PROG_TYPE_LSM"), Some(29));
    let by_scan = btf.functions().find(|&(_, name)| name == "vfs_read").map(|(id, _)| id);
    assert_eq!(btf.function("vfs_read"), by_scan);
}

/// Half of the bytes are types, half one endless string that is the name of each: work that is their product is none that
/// ends. The numbers are small enough for the right way and a thousand times too large for the other.
#[test]
fn types_that_share_an_endless_name_take_no_endless_time() {
    const TYPES: usize = 100_000;
    const NAME: usize = 4 << 20;
    let word = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let mut bytes = vec![0x9f, 0xeb, 1, 0];
    for number in [24, 0, TYPES * 12, TYPES * 12, NAME + 2] {
        bytes.extend(word(number));
    }
    for _ in 0..TYPES {
        bytes.extend([word(1), word(7 << 24), word(0)].concat()); // a forward declaration
    }
    bytes.push(0);
    bytes.extend(std::iter::repeat_n(b'n', NAME));
    bytes.push(0);
    let btf = Btf::parse(bytes).unwrap();
    btf.warm();
    assert_eq!(btf.name(1), None);
    let name = "n".repeat(NAME - 1);
    assert_eq!(btf.find(Kind::Fwd, &name), None);
}
