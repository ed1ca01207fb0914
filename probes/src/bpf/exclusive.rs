//! Maps that only one program may use, known by the hash of its instructions (6.18).

use super::map::{CreateAttr, create_attr};
use super::{Attr, MapSpec, address, bpf_fd, consts};
use crate::errno::Errno;
use crate::insn::{Insn, to_bytes};
use sha2::{Digest, Sha256};
use std::os::fd::OwnedFd;

/// The attribute of `BPF_MAP_CREATE`, of which a kernel that does not know the last two takes only zeros.
#[derive(Clone, Copy, Default)]
#[repr(C)]
struct ExclusiveAttr {
    create: CreateAttr,
    value_type_btf_obj_fd: u32,
    map_token_fd: i32,
    excl_prog_hash: u64,
    excl_prog_hash_size: u32,
    /// Behind the last field, to the union's next 8 bytes: zero for every kernel.
    rest: u32,
}

// SAFETY: integers in an order that leaves no padding: 72 bytes, then 24.
unsafe impl Attr for ExclusiveAttr {}

/// Creates a map for the program with this hash.
///
/// # Errors
/// What the kernel answers: `EINVAL` where there are no such maps (6.17 kernel/bpf/syscall.c, `map_create`: `CHECK_ATTR`).
pub fn map_create_exclusive(spec: &MapSpec, hash: &[u8]) -> Result<OwnedFd, Errno> {
    let mut attr = ExclusiveAttr {
        create: create_attr(spec),
        excl_prog_hash: address(hash),
        excl_prog_hash_size: u32::try_from(hash.len()).map_err(|_| Errno::EINVAL)?,
        ..ExclusiveAttr::default()
    };
    // SAFETY: the one address is that of a slice that outlives the call, with its length; the kernel reads what it is told or
    // fails. The command gives a new descriptor.
    unsafe { bpf_fd(consts::BPF_MAP_CREATE, &mut attr) }
}

/// The hash of a program: SHA-256 of its instructions, without the descriptors of maps (7.3 kernel/bpf/core.c,
/// `bpf_prog_calc_tag`).
#[must_use]
pub fn program_hash(insns: &[Insn]) -> [u8; 32] {
    let mut insns = insns.to_vec();
    let mut at = 0;
    while let Some(insn) = insns.get_mut(at) {
        let wide = insn.is_wide();
        if wide && PSEUDO_MAPS.contains(&insn.src()) {
            insns.iter_mut().skip(at).take(2).for_each(|half| half.imm = 0);
        }
        at += if wide { 2 } else { 1 };
    }
    Sha256::digest(to_bytes(&insns)).into()
}

/// include/uapi/linux/bpf.h: `BPF_PSEUDO_MAP_FD`, `BPF_PSEUDO_MAP_VALUE`.
const PSEUDO_MAPS: [u8; 2] = [1, 2];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_is_as_long_as_the_kernels() {
        assert_eq!(size_of::<ExclusiveAttr>(), 96);
    }

    #[test]
    fn descriptors_of_maps_are_no_part_of_the_hash() {
        let program = |fd, value| {
            let wide = |src, imm| [Insn::new(Insn::WIDE, 1, src, 0, imm), Insn::new(0, 0, 0, 0, value)];
            [wide(1, fd), wide(2, fd), wide(0, 5)].concat()
        };
        let hash = program_hash(&program(3, 0));
        assert_eq!(hash, program_hash(&program(4, 0)));
        assert_ne!(hash, program_hash(&program(3, 1)), "the upper half of the number");
    }
}
