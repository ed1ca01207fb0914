//! Maps of storage that are not made as such maps have to be.

use super::kinds::{Kind, map};
use crate::bpf::{self, BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_F_RDONLY_PROG, MapSpec, btf_load};
use crate::btf_build::{BtfBuilder, SIGNED, UNSIGNED};
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::AsRawFd;

/// More than 16 bits count, as no value of storage may be (5.7 net/core/bpf_sk_storage.c, `MAX_VALUE_SIZE`; 7.3
/// include/linux/bpf_local_storage.h, `BPF_LOCAL_STORAGE_MAX_VALUE_SIZE`), and a size that is taken.
const TOO_LARGE: u32 = 65_536;
const LARGE: u32 = 32_768;

/// The types that maps are described by: BTF says of each map what its key and its value are, and their sizes are right.
struct Types {
    int: u32,
    long: u32,
    number: u32,
    nothing: u32,
    large: u32,
    too_large: u32,
}

/// Whether the kernel has the kind is what the usual map is told; without it nothing else is to be asked.
pub(super) fn maps(session: &mut Session<'_>, kind: &'static Kind) -> Result<(), Stop> {
    session.case("one-mistake-each", |attempt| {
        drop(map(attempt, kind)?);
        one_mistake_each(attempt, kind)
    })
}

fn one_mistake_each(attempt: &mut Attempt<'_>, kind: &Kind) -> Result<(), Ended> {
    let (types, blob) = types();
    let btf = btf_load(&blob).map_err(|error| Ended::could_not("load the map's BTF", error))?;
    let right = MapSpec {
        flags: BPF_F_NO_PREALLOC,
        btf_fd: Some(btf.as_raw_fd()),
        btf_key_type_id: types.int,
        btf_value_type_id: types.number,
        ..MapSpec::new(kind.map_type, 4, 8, 0)
    };
    let none = MapSpec { btf_fd: None, btf_key_type_id: 0, btf_value_type_id: 0, ..right.clone() };
    let valued = |size, id| MapSpec { value_size: size, btf_value_type_id: id, ..right.clone() };
    for (key, spec) in [
        ("as it is to be", right.clone()),
        ("without BTF", none),
        ("with BTF of the value alone", MapSpec { btf_key_type_id: 0, ..right.clone() }),
        ("without BPF_F_NO_PREALLOC", MapSpec { flags: 0, ..right.clone() }),
        ("with BPF_F_CLONE besides", MapSpec { flags: right.flags | BPF_F_CLONE, ..right.clone() }),
        (
            "with BPF_F_RDONLY_PROG besides",
            MapSpec { flags: right.flags | BPF_F_RDONLY_PROG, ..right.clone() },
        ),
        ("with room for 1 element", MapSpec { max_entries: 1, ..right.clone() }),
        ("with a key of 8 bytes", MapSpec { key_size: 8, btf_key_type_id: types.long, ..right.clone() }),
        ("with a value of 0 bytes", valued(0, types.nothing)),
        ("with a value of 32768 bytes", valued(LARGE, types.large)),
        ("with a value of 65536 bytes", valued(TOO_LARGE, types.too_large)),
    ] {
        attempt.outcome(key, &bpf::map_create(&spec));
    }
    Ok(())
}

fn types() -> (Types, Vec<u8>) {
    let mut types = BtfBuilder::new();
    let int = types.int("int", 4, SIGNED);
    let long = types.int("long long", 8, SIGNED);
    let number = types.int("unsigned long long", 8, UNSIGNED);
    let byte = types.int("char", 1, SIGNED);
    let nothing = types.structure("nothing", 0, &[]);
    let large = types.array(byte, int, LARGE);
    let too_large = types.array(byte, int, TOO_LARGE);
    (Types { int, long, number, nothing, large, too_large }, types.finish())
}
