//! What a program has beside the results page: types of its own, and a map with fields that the kernel knows or an
//! arena.
//!
//! A program's lists and trees are told apart by BTF, so that map and program share one (7.3 kernel/bpf/verifier.c,
//! `__process_kf_arg_ptr_to_graph_node`, which compares the two).

use crate::asm::Asm;
use crate::bpf::{
    self, BPF_F_MMAPABLE, BPF_MAP_TYPE_HASH, BPF_MAP_TYPE_RINGBUF, FuncInfo, MapSpec, ProgSpec,
};
use crate::btf::Btf;
use crate::btf_build::{BtfBuilder, Linkage, SIGNED, UNSIGNED};
use crate::session::{Attempt, Ended};
use memmap2::{MmapMut, MmapOptions};
use std::collections::BTreeMap;
use std::os::fd::{AsRawFd, OwnedFd};

/// What a row's programs have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Holds {
    /// Nothing more.
    Nothing,
    /// A map of one such value.
    Value(Value),
    /// An arena of [`ARENA_PAGES`], mapped, with [`WRITTEN`] in the page [`TOUCHED`].
    Arena,
    /// A hash map with [`ELEMENTS`] elements.
    Table,
    /// A ring buffer.
    Ring,
}

/// The value of a map: a field that the kernel knows, and a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Value {
    /// A spin lock, a list of `node` and a number at [`NUMBER`].
    List,
    /// A spin lock, a tree of `knot` and a number at [`NUMBER`].
    Tree,
    /// A resilient spin lock (6.15), and a number at [`NUMBER`].
    Lock,
    /// A work queue (6.10), and a number at [`NUMBER`].
    Work,
    /// A task's work (6.18), and a number at [`NUMBER`].
    TaskWork,
    /// A timer (5.15), and a number at [`NUMBER`].
    Timer,
    /// A pointer to an `item` for each CPU (6.7).
    PerCpu,
    /// A pointer to a kernel socket (7.3).
    Socket,
    /// The same, and a work queue at [`LATER`].
    SocketAndWork,
    /// The same, and a task's work at [`LATER`].
    SocketAndTaskWork,
    /// A pointer to a task, as it was written up to 6.3.
    Task,
}

/// Where the list or the tree is in its value; the lock is at 0.
pub(super) const ROOT: u32 = 8;
/// Where what is done later is in a value that has a pointer before it.
pub(super) const LATER: u32 = 8;
/// Where the number is in a value.
pub(super) const NUMBER: u32 = 24;
/// Where `node` and `knot` have the field that links them, after a number.
pub(super) const LINK: i32 = 8;
/// Words of a node that the kernel does not know; what they are then does not matter.
const NODE_WORDS: u32 = 3;
/// Pages of an arena.
pub(super) const ARENA_PAGES: u32 = 4;

/// The page of an arena that user space has written to before the program runs, which other rows leave alone.
pub(super) const TOUCHED: usize = 3;
/// What stands there, and what programs write to a page.
pub(super) const WRITTEN: u64 = 4711;
/// Bytes of the ring buffer: a page.
const RING_BYTES: u32 = 4096;
/// Elements of the hash map.
pub(super) const ELEMENTS: u32 = 2;

/// `BPF_MAP_TYPE_ARENA` of include/uapi/linux/bpf.h.
const ARENA: u32 = 33;
/// Bytes of a page.
const PAGE_BYTES: usize = 4096;
/// Bytes of every value.
const VALUE_BYTES: u32 = 32;

/// Types, map and mapping.
pub(super) struct Own {
    types: BTreeMap<&'static str, u32>,
    btf: OwnedFd,
    pub(super) map: Option<OwnedFd>,
    /// Lets the kernel know the arena's address, which programs need (7.1 kernel/bpf/verifier.c,
    /// `check_map_prog_compatibility`).
    mapping: Option<MmapMut>,
}

impl Own {
    /// Makes what `holds` asks for.
    ///
    /// # Errors
    /// [`Ended::CouldNotTell`] when the kernel does not take it: whether it does is no row's question.
    pub(super) fn make(attempt: &mut Attempt<'_>, holds: Holds) -> Result<Option<Self>, Ended> {
        let value = match holds {
            Holds::Nothing => return Ok(None),
            Holds::Arena | Holds::Table | Holds::Ring => None,
            Holds::Value(value) => Some(value),
        };
        let btf = attempt.btf()?;
        let nodes = ["bpf_list_node", "bpf_rb_node"].map(|record| node_words(btf, record));
        let (blob, types) = types(value, nodes);
        let btf = bpf::btf_load(&blob)
            .map_err(|error| Ended::could_not("load the program's BTF", format!("{error}: {}", error.log)))?;
        let spec = match holds {
            Holds::Table => MapSpec::new(BPF_MAP_TYPE_HASH, 4, 8, 2 * ELEMENTS),
            Holds::Ring => MapSpec::new(BPF_MAP_TYPE_RINGBUF, 0, 0, RING_BYTES),
            Holds::Arena => MapSpec { flags: BPF_F_MMAPABLE, ..MapSpec::new(ARENA, 0, 0, ARENA_PAGES) },
            Holds::Value(_) | Holds::Nothing => MapSpec {
                btf_fd: Some(btf.as_raw_fd()),
                btf_key_type_id: types["int"],
                btf_value_type_id: types["value"],
                ..MapSpec::array(VALUE_BYTES, 1)
            },
        };
        let map = attempt.map(&spec).map_err(|ended| match ended {
            Ended::Refused(errno) => Ended::could_not("make the map that the row holds", errno),
            ended @ (Ended::Absent(_) | Ended::CouldNotTell(_)) => ended,
        })?;
        if holds == Holds::Table {
            for key in 0..ELEMENTS {
                bpf::map_update(&map, &key.to_le_bytes(), &[0; 8], 0)
                    .map_err(|errno| Ended::could_not("fill the hash map", errno))?;
            }
        }
        let mapping = if holds == Holds::Arena { Some(mapped(&map)?) } else { None };
        Ok(Some(Self { types, btf, map: Some(map), mapping }))
    }

    /// The id of a type.
    pub(super) fn type_id(&self, name: &str) -> Option<u32> {
        self.types.get(name).copied()
    }

    /// The address of page `index` of the arena, as programs and user space have it.
    pub(super) fn page(&self, index: usize) -> Option<u64> {
        let mapping = self.mapping.as_ref()?;
        u64::try_from(mapping.as_ptr().expose_provenance() + index * PAGE_BYTES).ok()
    }

    /// What a program of these types has besides its code: itself, and the functions that follow it.
    ///
    /// # Errors
    /// [`Ended::CouldNotTell`] for a function that the code does not have.
    pub(super) fn of_program(&self, asm: &Asm, functions: &[&str]) -> Result<Option<ProgSpec>, Ended> {
        let mut func_info = vec![FuncInfo { insn_off: 0, type_id: self.types["program"] }];
        for name in functions {
            let place = asm.position(name);
            let insn_off = place.ok_or_else(|| Ended::CouldNotTell(format!("no function {name}")))?;
            func_info.push(FuncInfo { insn_off, type_id: self.types["callback"] });
        }
        Ok(Some(ProgSpec { prog_btf_fd: Some(self.btf.as_raw_fd()), func_info, ..ProgSpec::default() }))
    }
}

/// The size of a node of a list or tree in this kernel, in words of 64 bits.
pub(super) fn node_words(btf: &Btf, record: &str) -> u32 {
    let size = btf.record(record).and_then(|id| btf.size_of(id));
    size.map_or(NODE_WORDS, |size| size / 8)
}

/// A type of the kernel's of which programs know the name and the size alone, in words of 64 bits; with the types of a word
/// and of half a word.
pub(super) fn opaque(b: &mut BtfBuilder, (word, half): (u32, u32), name: &str, words: u32) -> u32 {
    let array = b.array(word, half, words);
    b.structure(name, words * 8, &[("__opaque", array, 0)])
}

/// Maps an arena.
fn mapped(arena: &OwnedFd) -> Result<MmapMut, Ended> {
    let length = ARENA_PAGES as usize * PAGE_BYTES;
    // SAFETY: the mapping is of a BPF map, which nobody truncates; it is only read through raw, volatile reads.
    let mut mapping = unsafe { MmapOptions::new().len(length).map_mut(arena.as_raw_fd()) }
        .map_err(|error| Ended::could_not("map the arena", error))?;
    mapping[TOUCHED * PAGE_BYTES..][..size_of::<u64>()].copy_from_slice(&WRITTEN.to_le_bytes());
    Ok(mapping)
}

/// The types, of which that of the map's value is only what is asked for: kernels differ in what they know.
///
/// `words` are the sizes of `bpf_list_node` and `bpf_rb_node` here: both have one more since 6.6, and a kernel knows them
/// by name and size (6.3 kernel/bpf/btf.c, `btf_find_struct`).
fn types(value: Option<Value>, words: [u32; 2]) -> (Vec<u8>, BTreeMap<&'static str, u32>) {
    let mut b = BtfBuilder::new();
    let int = b.int("int", 4, SIGNED);
    let (word, half) = (b.int("word", 8, UNSIGNED), b.int("half", 4, UNSIGNED));
    let [list_words, rb_words] = words;
    let list_node = opaque(&mut b, (word, half), "bpf_list_node", list_words);
    let rb_node = opaque(&mut b, (word, half), "bpf_rb_node", rb_words);
    let item = b.structure("item", 16, &[("value", word, 0), ("more", word, 8)]);
    let node = b.structure("node", 8 + 8 * list_words, &[("value", word, 0), ("link", list_node, 8)]);
    let knot = b.structure("knot", 8 + 8 * rb_words, &[("value", word, 0), ("link", rb_node, 8)]);
    let mut types = BTreeMap::from([("int", int), ("item", item), ("node", node), ("knot", knot)]);
    if let Some(value) = value {
        types.insert("value", value_type(&mut b, value, &types));
    }
    let context = b.ptr(word);
    let proto = b.func_proto(int, &[("ctx", context)]);
    types.insert("program", b.func("program", proto, Linkage::Global));
    types.insert("callback", b.func("callback", proto, Linkage::Static));
    (b.finish(), types)
}

/// A pointer that is kept in a map to a struct of the kernel's, of which the name is enough.
fn kptr(b: &mut BtfBuilder, tag: &str, record: &str) -> u32 {
    let record = b.structure(record, 0, &[]);
    let tagged = b.type_tag(tag, record);
    b.ptr(tagged)
}

/// The type of the map's value.
fn value_type(b: &mut BtfBuilder, value: Value, types: &BTreeMap<&'static str, u32>) -> u32 {
    let (word, half) = (b.int("word", 8, UNSIGNED), b.int("half", 4, UNSIGNED));
    let opaque = |b: &mut BtfBuilder, name: &str, words: u32| opaque(b, (word, half), name, words);
    let small = |b: &mut BtfBuilder, name: &str| b.structure(name, 4, &[("val", half, 0)]);
    let first = match value {
        Value::List | Value::Tree => small(b, "bpf_spin_lock"),
        Value::Lock => small(b, "bpf_res_spin_lock"),
        Value::Work => opaque(b, "bpf_wq", 2),
        Value::TaskWork => opaque(b, "bpf_task_work", 1),
        Value::Timer => opaque(b, "bpf_timer", 2),
        Value::Socket | Value::SocketAndWork | Value::SocketAndTaskWork => kptr(b, "kptr", "bpf_ksock"),
        // The tag for a pointer that is owned was another one up to 6.3 (6.3 kernel/bpf/btf.c, btf_find_kptr).
        Value::Task => kptr(b, "kptr_ref", "task_struct"),
        Value::PerCpu => {
            let tagged = b.type_tag("percpu_kptr", types["item"]);
            b.ptr(tagged)
        }
    };
    let root = match value {
        Value::List => Some((opaque(b, "bpf_list_head", 2), "contains:node:link")),
        Value::Tree => Some((opaque(b, "bpf_rb_root", 2), "contains:knot:link")),
        Value::SocketAndWork | Value::SocketAndTaskWork => {
            let work = if value == Value::SocketAndWork {
                opaque(b, "bpf_wq", 2)
            } else {
                opaque(b, "bpf_task_work", 1)
            };
            let members = [("field", first, 0), ("later", work, LATER), ("number", word, NUMBER)];
            return b.structure("value", VALUE_BYTES, &members);
        }
        Value::Lock
        | Value::Work
        | Value::TaskWork
        | Value::Timer
        | Value::PerCpu
        | Value::Socket
        | Value::Task => None,
    };
    let Some((root, tag)) = root else {
        return b.structure("value", VALUE_BYTES, &[("field", first, 0), ("number", word, NUMBER)]);
    };
    let members = [("lock", first, 0), ("root", root, ROOT), ("number", word, NUMBER)];
    let id = b.structure("value", VALUE_BYTES, &members);
    b.decl_tag(tag, id, 1);
    id
}
