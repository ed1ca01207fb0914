//! What the kernel says about its programs, maps, links and BTF.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use crate::errno::Errno;

use super::{Attr, NAME_LEN, address_mut, bpf, bpf_fd, consts, field_text, length};
use crate::insn::Insn;

/// `struct { .. } info` of `BPF_OBJ_GET_INFO_BY_FD`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct InfoAttr {
    pub(super) bpf_fd: u32,
    pub(super) info_len: u32,
    pub(super) info: u64,
}

// SAFETY: integers in an order that leaves no padding (16 bytes, checked by a test).
unsafe impl Attr for InfoAttr {}

/// `struct { .. }` of `BPF_*_GET_FD_BY_ID` and `BPF_*_GET_NEXT_ID`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct IdAttr {
    pub(super) id: u32,
    pub(super) next_id: u32,
    pub(super) open_flags: u32,
}

// SAFETY: integers in an order that leaves no padding (12 bytes, checked by a test).
unsafe impl Attr for IdAttr {}

/// `struct bpf_prog_info`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawProgInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    pub(super) xlated: u64,
    load_time: u64,
    created_by_uid: u32,
    nr_map_ids: u32,
    pub(super) map_ids: u64,
    pub(super) name: [u8; NAME_LEN],
    ifindex: u32,
    flags: u32,
    pub(super) netns: [u64; 2],
    nr_jited_ksyms: u32,
    nr_jited_func_lens: u32,
    jited_ksyms: u64,
    jited_func_lens: u64,
    pub(super) btf_id: u32,
    func_info_rec_size: u32,
    func_info: u64,
    nr_func_info: u32,
    nr_line_info: u32,
    line_info: u64,
    jited_line_info: u64,
    nr_jited_line_info: u32,
    line_info_rec_size: u32,
    jited_line_info_rec_size: u32,
    nr_prog_tags: u32,
    prog_tags: u64,
    pub(super) run_time_ns: u64,
    run_cnt: u64,
    recursion_misses: u64,
    verified_insns: u32,
    attach_btf_obj_id: u32,
    pub(super) attach_btf_id: u32,
    pad: u32,
}

/// `struct bpf_map_info`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawMapInfo {
    kind: u32,
    id: u32,
    key_size: u32,
    value_size: u32,
    max_entries: u32,
    map_flags: u32,
    name: [u8; NAME_LEN],
    ifindex: u32,
    btf_vmlinux_value_type_id: u32,
    netns: [u64; 2],
    btf_id: u32,
    btf_key_type_id: u32,
    pub(super) btf_value_type_id: u32,
    btf_vmlinux_id: u32,
    map_extra: u64,
}

/// `struct bpf_link_info`, the union as far as tracing programs and cgroups use it.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawLinkInfo {
    kind: u32,
    id: u32,
    prog_id: u32,
    pad: u32,
    pub(super) words: [u32; 4],
    pub(super) cookie: u64,
}

/// `struct bpf_btf_info`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct RawBtfInfo {
    pub(super) btf: u64,
    btf_size: u32,
    id: u32,
    name: u64,
    name_len: u32,
    kernel_btf: u32,
}

/// What the kernel says about a program. Fields that a kernel does not know are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgInfo {
    /// `BPF_PROG_TYPE_*`.
    pub prog_type: u32,
    /// The program's id.
    pub id: u32,
    /// A hash of the instructions.
    pub tag: [u8; 8],
    /// The name as the kernel keeps it.
    pub name: String,
    /// The instructions after the verifier's rewriting; empty where the kernel does not show them.
    pub xlated: Vec<Insn>,
    /// Bytes of machine code; 0 for an interpreted program.
    pub jited_len: u32,
    /// The ids of its maps.
    pub map_ids: Vec<u32>,
    /// Whether the licence is compatible with the GPL.
    pub gpl_compatible: bool,
    /// The id of the program's own BTF.
    pub btf_id: u32,
    /// How many instructions the verifier walked through (5.16).
    pub verified_insns: u32,
    /// The BTF object of `attach_btf_id` (6.0).
    pub attach_btf_obj_id: u32,
    /// The hook or function that the program is for (6.0).
    pub attach_btf_id: u32,
    /// How often the program ran, where the statistics are switched on.
    pub run_cnt: u64,
    /// How long it ran in all, where the statistics are switched on, in nanoseconds.
    pub run_time_ns: u64,
    /// How often it did not run because it was already running (5.12).
    pub recursion_misses: u64,
}

/// What the kernel says about a map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MapInfo {
    /// `BPF_MAP_TYPE_*`.
    pub map_type: u32,
    /// The map's id.
    pub id: u32,
    /// Size of a key in bytes.
    pub key_size: u32,
    /// Size of a value in bytes, of one CPU's for per-CPU maps.
    pub value_size: u32,
    /// Number of elements.
    pub max_entries: u32,
    /// `BPF_F_*` of `BPF_MAP_CREATE`.
    pub flags: u32,
    /// The name as the kernel keeps it.
    pub name: String,
    /// The id of the BTF of key and value.
    pub btf_id: u32,
    /// The field whose meaning depends on the type (5.16).
    pub map_extra: u64,
}

impl MapInfo {
    /// The bytes that a look-up writes: the value size, or for per-CPU maps that rounded up to 8 times the number of
    /// possible CPUs (`bpf_map_value_size`, 6.12 kernel/bpf/syscall.c).
    ///
    /// # Errors
    /// `ENOENT` when the number of CPUs is needed and cannot be read from sysfs, `EOVERFLOW` when it is absurd.
    pub fn value_bytes(&self) -> Result<u32, Errno> {
        let per_cpu = [
            consts::BPF_MAP_TYPE_PERCPU_HASH,
            consts::BPF_MAP_TYPE_LRU_PERCPU_HASH,
            consts::BPF_MAP_TYPE_PERCPU_ARRAY,
            consts::BPF_MAP_TYPE_PERCPU_CGROUP_STORAGE,
        ];
        // A map of descriptors or ids gives 4 bytes, which is also what its value size has to be.
        if !per_cpu.contains(&self.map_type) {
            return Ok(self.value_size);
        }
        let each = self.value_size.checked_next_multiple_of(8);
        each.and_then(|each| each.checked_mul(possible_cpus().ok()?)).ok_or(Errno::EOVERFLOW)
    }
}

/// The number of possible CPUs, from the last number in a list like `0-3`.
fn possible_cpus() -> Result<u32, Errno> {
    let list = std::fs::read_to_string("/sys/devices/system/cpu/possible").map_err(|_| Errno::ENOENT)?;
    let last = list.trim().rsplit(['-', ',']).next().and_then(|last| last.parse::<u32>().ok());
    last.and_then(|last| last.checked_add(1)).ok_or(Errno::ENOENT)
}

/// What a link is attached to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LinkTarget {
    /// A function or hook, for links of type tracing.
    Tracing {
        /// `BPF_LSM_MAC`, ..
        attach_type: u32,
        /// The id of the BTF object, or of the program extended; 0 on 5.10, which does not say.
        target_obj_id: u32,
        /// The type in that object; 0 on 5.10, which does not say.
        target_btf_id: u32,
        /// The cookie; shown by 7.3, 0 on 6.1, which does not say.
        cookie: u64,
    },
    /// A cgroup.
    Cgroup {
        /// The cgroup's id.
        cgroup_id: u64,
        /// `BPF_LSM_CGROUP`, ..
        attach_type: u32,
    },
    /// Something else.
    Other,
}

/// What the kernel says about a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkInfo {
    /// `BPF_LINK_TYPE_*`.
    pub link_type: u32,
    /// The link's id.
    pub id: u32,
    /// The program's id; 0 once the link is detached in some types.
    pub prog_id: u32,
    /// What it is attached to.
    pub target: LinkTarget,
}

/// What the kernel says about BTF.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BtfInfo {
    /// The object's id.
    pub id: u32,
    /// Its length in bytes.
    pub size: u32,
    /// `vmlinux`, a module's name, or nothing for a program's (5.11).
    pub name: String,
    /// Whether it is the kernel's or a module's (5.11).
    pub kernel: bool,
}

/// The information on a program, with its translated instructions and the ids of its maps.
///
/// # Errors
/// What the kernel answers.
pub fn prog_info(prog: impl AsFd) -> Result<ProgInfo, Errno> {
    let mut raw = RawProgInfo::default();
    // SAFETY: no addresses are in the structure yet, so the kernel writes only to it.
    unsafe { info(&prog, &mut raw) }?;
    let mut xlated = vec![Insn::default(); raw.xlated_len as usize / size_of::<Insn>()];
    let mut map_ids = vec![0u32; raw.nr_map_ids as usize];
    let mut full = RawProgInfo {
        xlated_len: raw.xlated_len,
        xlated: address_mut(&mut xlated),
        nr_map_ids: length(&map_ids)?,
        map_ids: address_mut(&mut map_ids),
        ..RawProgInfo::default()
    };
    // SAFETY: both buffers are as long as the structure says and outlive the call.
    unsafe { info(&prog, &mut full) }?;
    if full.xlated == 0 {
        xlated.clear(); // blinded, and the reader may not see addresses
    }
    Ok(ProgInfo {
        prog_type: full.kind,
        id: full.id,
        tag: full.tag,
        name: field_text(&full.name),
        xlated,
        jited_len: raw.jited_len,
        map_ids,
        gpl_compatible: full.flags & 1 != 0,
        btf_id: full.btf_id,
        verified_insns: full.verified_insns,
        attach_btf_obj_id: full.attach_btf_obj_id,
        attach_btf_id: full.attach_btf_id,
        run_cnt: full.run_cnt,
        run_time_ns: full.run_time_ns,
        recursion_misses: full.recursion_misses,
    })
}

/// The information on a map.
///
/// # Errors
/// What the kernel answers.
pub fn map_info(map: impl AsFd) -> Result<MapInfo, Errno> {
    let mut raw = RawMapInfo::default();
    // SAFETY: the structure has no addresses.
    unsafe { info(&map, &mut raw) }?;
    Ok(MapInfo {
        map_type: raw.kind,
        id: raw.id,
        key_size: raw.key_size,
        value_size: raw.value_size,
        max_entries: raw.max_entries,
        flags: raw.map_flags,
        name: field_text(&raw.name),
        btf_id: raw.btf_id,
        map_extra: raw.map_extra,
    })
}

/// The information on a link (5.8).
///
/// # Errors
/// What the kernel answers; `EINVAL` before 5.8.
pub fn link_info(link: impl AsFd) -> Result<LinkInfo, Errno> {
    let mut raw = RawLinkInfo::default();
    // SAFETY: the union has no address set: a kernel writes names only to a buffer of a length other than 0.
    unsafe { info(&link, &mut raw) }?;
    let [first, second, third, _] = raw.words;
    let target = match raw.kind {
        consts::BPF_LINK_TYPE_TRACING => LinkTarget::Tracing {
            attach_type: first,
            target_obj_id: second,
            target_btf_id: third,
            cookie: raw.cookie,
        },
        consts::BPF_LINK_TYPE_CGROUP => {
            LinkTarget::Cgroup { cgroup_id: (u64::from(second) << 32) | u64::from(first), attach_type: third }
        }
        _ => LinkTarget::Other,
    };
    Ok(LinkInfo { link_type: raw.kind, id: raw.id, prog_id: raw.prog_id, target })
}

/// The information on BTF.
///
/// # Errors
/// What the kernel answers.
pub fn btf_info(btf: impl AsFd) -> Result<BtfInfo, Errno> {
    let mut name = [0u8; 64];
    let mut raw = RawBtfInfo { name: address_mut(&mut name), name_len: length(&name)?, ..Default::default() };
    let answer = {
        // SAFETY: the name's buffer is as long as the structure says and outlives the call.
        unsafe { info(&btf, &mut raw) }
    };
    if answer == Err(Errno::E2BIG) {
        // Before 5.11 the structure ended with the id.
        raw = RawBtfInfo::default();
        // SAFETY: no addresses are in the structure.
        unsafe { info(&btf, &mut raw) }?;
    } else {
        answer?;
    }
    Ok(BtfInfo { id: raw.id, size: raw.btf_size, name: field_text(&name), kernel: raw.kernel_btf != 0 })
}

/// `BPF_OBJ_GET_INFO_BY_FD`. What the kernel does not know of the structure must be zero, and stays so.
///
/// # Safety
/// `T` is `repr(C)` of integers, and every address in it is valid for writes of the length it comes with.
unsafe fn info<T>(fd: &impl AsFd, raw: &mut T) -> Result<(), Errno> {
    let mut attr = InfoAttr {
        bpf_fd: fd.as_fd().as_raw_fd().cast_unsigned(),
        info_len: u32::try_from(size_of::<T>()).map_err(|_| Errno::E2BIG)?,
        info: std::ptr::from_mut(raw).expose_provenance() as u64,
    };
    // SAFETY: the structure is valid for writes of its length; the caller vouches for what it points to.
    unsafe { bpf(consts::BPF_OBJ_GET_INFO_BY_FD, &mut attr) }.map(drop)
}

/// Opens the map with this id with `BPF_F_RDONLY`, `BPF_F_WRONLY` or 0.
///
/// # Errors
/// What the kernel answers.
pub fn map_get_fd_by_id_with(id: u32, open_flags: u32) -> Result<OwnedFd, Errno> {
    // SAFETY: the attribute holds no addresses, and the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_MAP_GET_FD_BY_ID, &mut IdAttr { id, open_flags, ..IdAttr::default() }) }
}

/// Makes the two ways to reach objects by id.
macro_rules! by_id {
    ($($what:literal: $open:ident $open_command:ident, $next:ident $next_command:ident;)*) => {$(
        #[doc = concat!("Opens the ", $what, " with this id.\n\n# Errors\nWhat the kernel answers; `ENOENT` for none.")]
        pub fn $open(id: u32) -> Result<OwnedFd, Errno> {
            // SAFETY: the attribute holds no addresses, and the command gives a new descriptor.
            unsafe { bpf_fd(consts::$open_command, &mut IdAttr { id, ..IdAttr::default() }) }
        }

        #[doc = concat!("The id of the ", $what, " after `id`, `None` after the last; begin with 0.\n\n\
                         # Errors\nWhat the kernel answers.")]
        pub fn $next(id: u32) -> Result<Option<u32>, Errno> {
            let mut attr = IdAttr { id, ..IdAttr::default() };
            // SAFETY: the attribute holds no addresses.
            match unsafe { bpf(consts::$next_command, &mut attr) } {
                Ok(_) => Ok(Some(attr.next_id)),
                Err(Errno::ENOENT) => Ok(None),
                Err(errno) => Err(errno),
            }
        }
    )*};
}

by_id! {
    "program": prog_get_fd_by_id BPF_PROG_GET_FD_BY_ID, prog_next_id BPF_PROG_GET_NEXT_ID;
    "map": map_get_fd_by_id BPF_MAP_GET_FD_BY_ID, map_next_id BPF_MAP_GET_NEXT_ID;
    "BTF": btf_get_fd_by_id BPF_BTF_GET_FD_BY_ID, btf_next_id BPF_BTF_GET_NEXT_ID;
    "link": link_get_fd_by_id BPF_LINK_GET_FD_BY_ID, link_next_id BPF_LINK_GET_NEXT_ID;
}
