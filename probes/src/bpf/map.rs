//! Maps: creating them and reaching their elements.

use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::errno::Errno;

use super::info::map_info;
use super::{Attr, NAME_LEN, address, address_mut, bpf, bpf_fd, consts, fd_field, object_name};

/// What a map is to be. Fields that are left out are zero.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MapSpec {
    /// `BPF_MAP_TYPE_*`.
    pub map_type: u32,
    /// Size of a key in bytes.
    pub key_size: u32,
    /// Size of a value in bytes.
    pub value_size: u32,
    /// Number of elements, or bytes of a ring buffer.
    pub max_entries: u32,
    /// `BPF_F_*` of `BPF_MAP_CREATE`.
    pub flags: u32,
    /// The name, cut and cleaned to what the kernel takes.
    pub name: String,
    /// BTF of key and value.
    pub btf_fd: Option<RawFd>,
    /// The key's type in that BTF.
    pub btf_key_type_id: u32,
    /// The value's type in that BTF.
    pub btf_value_type_id: u32,
    /// The kernel's type that the value is, for struct_ops.
    pub btf_vmlinux_value_type_id: u32,
    /// A field whose meaning depends on the type (5.16).
    pub map_extra: u64,
    /// The map whose likes this map holds.
    pub inner_map_fd: Option<RawFd>,
}

impl MapSpec {
    /// A map of a type with the sizes that every type has.
    #[must_use]
    pub fn new(map_type: u32, key_size: u32, value_size: u32, max_entries: u32) -> Self {
        Self { map_type, key_size, value_size, max_entries, ..Self::default() }
    }

    /// An array of `max_entries` values.
    #[must_use]
    pub fn array(value_size: u32, max_entries: u32) -> Self {
        Self::new(consts::BPF_MAP_TYPE_ARRAY, 4, value_size, max_entries)
    }

    /// The same map with a name.
    #[must_use]
    pub fn named(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }
}

/// `struct { .. }` of `BPF_MAP_CREATE`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct CreateAttr {
    pub(super) map_type: u32,
    pub(super) key_size: u32,
    pub(super) value_size: u32,
    pub(super) max_entries: u32,
    pub(super) map_flags: u32,
    pub(super) inner_map_fd: u32,
    pub(super) numa_node: u32,
    pub(super) map_name: [u8; NAME_LEN],
    pub(super) map_ifindex: u32,
    pub(super) btf_fd: u32,
    pub(super) btf_key_type_id: u32,
    pub(super) btf_value_type_id: u32,
    pub(super) btf_vmlinux_value_type_id: u32,
    pub(super) map_extra: u64,
}

// SAFETY: integers in an order that leaves no padding (72 bytes, checked by a test).
unsafe impl Attr for CreateAttr {}

/// `struct { .. }` of `BPF_MAP_*_ELEM` and `BPF_MAP_FREEZE`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct ElementAttr {
    pub(super) map_fd: u32,
    pub(super) pad: u32,
    pub(super) key: u64,
    pub(super) value: u64,
    pub(super) flags: u64,
}

// SAFETY: integers in an order that leaves no padding (32 bytes, checked by a test).
unsafe impl Attr for ElementAttr {}

/// `BPF_MAP_CREATE`.
///
/// # Errors
/// What the kernel answers. Before 5.11 `EPERM` may mean that `RLIMIT_MEMLOCK` is used up.
pub fn map_create(spec: &MapSpec) -> Result<OwnedFd, Errno> {
    let mut attr = create_attr(spec);
    // SAFETY: the attribute holds no addresses, and the command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_MAP_CREATE, &mut attr) }
}

/// The attribute.
pub(super) fn create_attr(spec: &MapSpec) -> CreateAttr {
    CreateAttr {
        map_type: spec.map_type,
        key_size: spec.key_size,
        value_size: spec.value_size,
        max_entries: spec.max_entries,
        map_flags: spec.flags,
        inner_map_fd: fd_field(spec.inner_map_fd),
        map_name: object_name(&spec.name),
        btf_fd: fd_field(spec.btf_fd),
        btf_key_type_id: spec.btf_key_type_id,
        btf_value_type_id: spec.btf_value_type_id,
        btf_vmlinux_value_type_id: spec.btf_vmlinux_value_type_id,
        map_extra: spec.map_extra,
        ..CreateAttr::default()
    }
}

/// `BPF_MAP_LOOKUP_ELEM` into `value`. For per-CPU maps that is [`MapInfo::value_bytes`](super::MapInfo::value_bytes)
/// long; every other map takes its value size.
///
/// # Errors
/// What the kernel answers (`ENOENT` when there is no such element), and `EINVAL` without asking it when a buffer is
/// shorter than the map's, which the kernel cannot know and would overrun.
pub fn map_lookup(map: impl AsFd, key: &[u8], value: &mut [u8]) -> Result<(), Errno> {
    fits(&map, key.len(), Some(value.len()))?;
    let mut attr = element(&map, address(key), address_mut(value), 0);
    // SAFETY: `fits` has compared both buffers with the sizes that the kernel uses.
    unsafe { bpf(consts::BPF_MAP_LOOKUP_ELEM, &mut attr) }.map(drop)
}

/// `BPF_MAP_LOOKUP_AND_DELETE_ELEM`, which pops from queues and stacks; their key is empty.
///
/// # Errors
/// As [`map_lookup`].
pub fn map_lookup_and_delete(map: impl AsFd, key: &[u8], value: &mut [u8]) -> Result<(), Errno> {
    fits(&map, key.len(), Some(value.len()))?;
    let mut attr = element(&map, address(key), address_mut(value), 0);
    // SAFETY: as in `map_lookup`.
    unsafe { bpf(consts::BPF_MAP_LOOKUP_AND_DELETE_ELEM, &mut attr) }.map(drop)
}

/// `BPF_MAP_UPDATE_ELEM` with `BPF_ANY`, `BPF_NOEXIST`, ..
///
/// # Errors
/// As [`map_lookup`].
pub fn map_update(map: impl AsFd, key: &[u8], value: &[u8], flags: u64) -> Result<(), Errno> {
    fits(&map, key.len(), Some(value.len()))?;
    let mut attr = element(&map, address(key), address(value), flags);
    // SAFETY: as in `map_lookup`; the kernel only reads.
    unsafe { bpf(consts::BPF_MAP_UPDATE_ELEM, &mut attr) }.map(drop)
}

/// `BPF_MAP_DELETE_ELEM`.
///
/// # Errors
/// As [`map_lookup`].
pub fn map_delete(map: impl AsFd, key: &[u8]) -> Result<(), Errno> {
    fits(&map, key.len(), None)?;
    let mut attr = element(&map, address(key), 0, 0);
    // SAFETY: `fits` has compared the key with the size that the kernel reads.
    unsafe { bpf(consts::BPF_MAP_DELETE_ELEM, &mut attr) }.map(drop)
}

/// `BPF_MAP_GET_NEXT_KEY`: writes the key after `key`, or the first one, and says whether there is one.
///
/// # Errors
/// As [`map_lookup`], except that `ENOENT` is `Ok(false)`.
pub fn map_next_key(map: impl AsFd, key: Option<&[u8]>, next: &mut [u8]) -> Result<bool, Errno> {
    fits(&map, key.map_or(next.len(), <[u8]>::len).min(next.len()), None)?;
    let mut attr = element(&map, key.map_or(0, address), address_mut(next), 0);
    // SAFETY: `fits` has compared both keys with the size that the kernel uses.
    match unsafe { bpf(consts::BPF_MAP_GET_NEXT_KEY, &mut attr) } {
        Ok(_) => Ok(true),
        Err(Errno::ENOENT) => Ok(false),
        Err(errno) => Err(errno),
    }
}

/// `BPF_MAP_FREEZE`: no more writing from user space.
///
/// # Errors
/// What the kernel answers.
pub fn map_freeze(map: impl AsFd) -> Result<(), Errno> {
    let mut attr = element(&map, 0, 0, 0);
    // SAFETY: the attribute holds no addresses.
    unsafe { bpf(consts::BPF_MAP_FREEZE, &mut attr) }.map(drop)
}

fn element(map: &impl AsFd, key: u64, value: u64, flags: u64) -> ElementAttr {
    ElementAttr { map_fd: map.as_fd().as_raw_fd().cast_unsigned(), pad: 0, key, value, flags }
}

/// Whether buffers are as long as the map's keys and values, by the map's own word.
fn fits(map: &impl AsFd, key: usize, value: Option<usize>) -> Result<(), Errno> {
    let info = map_info(map)?;
    let long_enough = |have: usize, need: u32| u32::try_from(have).is_ok_and(|have| have >= need);
    if !long_enough(key, info.key_size) {
        return Err(Errno::EINVAL);
    }
    match value {
        Some(have) if !long_enough(have, info.value_bytes()?) => Err(Errno::EINVAL),
        Some(_) | None => Ok(()),
    }
}
