//! Making objects of BPF, and reaching those of others: by bpf(2), by a program that calls it, and without it.

use super::Subject;
use super::way::{Doing, Step as _, Way, plain};
use crate::asm::Asm;
use crate::bpf::{
    self, BPF_F_MMAPABLE, BPF_F_SLEEPABLE, BPF_MAP_CREATE, BPF_MAP_LOOKUP_ELEM, BPF_MAP_UPDATE_ELEM,
    BPF_PROG_LOAD, BPF_PROG_TYPE_SOCKET_FILTER, BPF_PROG_TYPE_SYSCALL, MapSpec, ProgSpec, TestRun,
};
use crate::errno::Errno;
use crate::helper;
use crate::insn::{Insn, Reg, Size, to_bytes};
use crate::spec::source;
use crate::triggers::files::{index, owned};
use crate::triggers::{Arm, syscall};
use memmap2::MmapOptions;
use std::ffi::CString;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

pub(super) const SUBJECT: Subject = Subject {
    name: "bpf",
    what: "make or reach an object of BPF",
    hooks: &[
        "bpf",
        "bpf_map_create",
        "bpf_map_alloc_security",
        "bpf_map",
        "bpf_prog_load",
        "bpf_prog_alloc_security",
        "bpf_prog",
        "mmap_file",
    ],
    ways: &[
        Way::new("map-create", || plain(|arm| Ok(arm.during(|| bpf::map_create(&map()))?))),
        Way::new("map-create-by-a-program", || by_program(&MAP_CREATE))
            .lacking(LACKS)
            .in_step(ITS_LOAD)
            .call_by_call(),
        Way::new("program-load", || plain(|arm| Ok(arm.during(load)?))),
        Way::new("program-load-by-a-program", || by_program(&PROGRAM_LOAD))
            .lacking(LACKS)
            .in_step(ITS_LOAD)
            .call_by_call(),
        Way::new("map-by-id", map_by_id),
        Way::new("map-from-a-pin", map_from_pin),
        Way::new("map-lookup", || on_a_map(|map| element(map, BPF_MAP_LOOKUP_ELEM))),
        Way::new("map-update", || on_a_map(|map| element(map, BPF_MAP_UPDATE_ELEM))),
        Way::new("map-mmap", || on_a_map(mapped)),
        Way::new("program-by-id", program_by_id),
    ],
    sources: &[
        source("7.3", "kernel/bpf/syscall.c", "__sys_bpf"),
        source("7.3", "kernel/bpf/syscall.c", "bpf_map_new_fd"),
        source("7.3", "kernel/bpf/syscall.c", "bpf_prog_new_fd"),
        source("7.3", "kernel/bpf/syscall.c", "bpf_sys_bpf"),
        source("6.8", "kernel/bpf/syscall.c", "map_create"),
    ],
};

/// What a kernel without programs that call bpf(2) says of one.
const LACKS: &[i32] = &[libc::EINVAL];
/// Which of the calls is the first that such a kernel refuses.
const ITS_LOAD: &str = "the load of that program";

fn map() -> MapSpec {
    MapSpec { flags: BPF_F_MMAPABLE, ..MapSpec::array(8, 1) }
}

/// A program that returns 0.
fn nothing() -> Result<Vec<Insn>, Errno> {
    Asm::new().mov_imm(Reg::R0, 0).exit().finish().map_err(|_| Errno::EINVAL)
}

fn load() -> Result<OwnedFd, Errno> {
    let spec = ProgSpec::new(BPF_PROG_TYPE_SOCKET_FILTER, "loaded", nothing()?);
    bpf::prog_load(&spec, 0).map_err(|refused| refused.errno)
}

/// What a program asks bpf(2) for.
struct Asked {
    command: i32,
    /// Makes the attribute, with what it points to behind it.
    attribute: fn() -> Result<Vec<u8>, Errno>,
    /// The attribute's size.
    size: i32,
    /// Where addresses stand in it, and of what behind it: the program knows them.
    addresses: &'static [(i32, i32)],
}

/// `struct { .. }` of `BPF_MAP_CREATE` up to `max_entries`: an array of one value of 8 bytes.
const MAP_CREATE: Asked = Asked {
    command: BPF_MAP_CREATE.cast_signed(),
    attribute: || Ok([2_u32, 4, 8, 1].map(u32::to_ne_bytes).concat()),
    size: 16,
    addresses: &[],
};

/// `struct { .. }` of `BPF_PROG_LOAD` up to `license`, then two instructions, then the licence.
const PROGRAM_LOAD: Asked = Asked {
    command: BPF_PROG_LOAD.cast_signed(),
    attribute: || {
        let mut bytes = [BPF_PROG_TYPE_SOCKET_FILTER, 2, 0, 0, 0, 0].map(u32::to_ne_bytes).concat();
        bytes.extend(to_bytes(&nothing()?));
        bytes.extend(b"GPL\0\0\0\0\0");
        Ok(bytes)
    },
    size: 24,
    addresses: &[(8, 24), (16, 40)],
};

/// A program of the type for system calls, which asks with the attribute that it has in a map; a test run of it is a bpf(2)
/// of its own.
fn by_program(asked: &Asked) -> Result<Doing, Errno> {
    let attribute = (asked.attribute)()?;
    let size = u32::try_from(attribute.len()).map_err(|_| Errno::EOVERFLOW)?;
    let memory = bpf::map_create(&MapSpec::array(size, 1))?;
    bpf::map_update(&memory, &[0; 4], &attribute, 0)?;
    let mut asm = Asm::new();
    asm.ld_map_value(Reg::R6, &memory, 0);
    for &(place, of) in asked.addresses {
        asm.mov_reg(Reg::R1, Reg::R6).add_imm(Reg::R1, of).stx(Size::DW, Reg::R6, place, Reg::R1);
    }
    asm.mov_imm(Reg::R1, asked.command).mov_reg(Reg::R2, Reg::R6).mov_imm(Reg::R3, asked.size);
    asm.call(helper::SYS_BPF).exit();
    let insns = asm.finish().map_err(|_| Errno::EINVAL)?;
    let spec = ProgSpec { flags: BPF_F_SLEEPABLE, ..ProgSpec::new(BPF_PROG_TYPE_SYSCALL, "asks", insns) };
    let program = bpf::prog_load(&spec, 0).map_err(|refused| refused.errno);
    plain(move |arm: Arm| {
        let program = program.as_ref().map_err(|errno| *errno).step(ITS_LOAD)?;
        let run = arm.during(|| bpf::prog_test_run(program, TestRun::default()))?;
        match run.retval.cast_signed() {
            // bpf(2) itself has succeeded.
            errno @ ..0 => Err(Errno::from_raw(errno)).step("bpf_sys_bpf, to the program"),
            fd => Ok(owned(fd.into())),
        }
    })
}

/// Something done to a map that this process has.
fn on_a_map(act: fn(&OwnedFd) -> Result<(), Errno>) -> Result<Doing, Errno> {
    let map = bpf::map_create(&map())?;
    plain(move |arm: Arm| Ok(arm.during(|| act(&map))?))
}

/// One command for the one element and nothing besides: [`bpf::map_lookup`] asks for the sizes first.
fn element(map: &OwnedFd, command: u32) -> Result<(), Errno> {
    let (key, mut value) = ([0_u8; 4], [1_u8; 8]);
    // struct { .. } of BPF_MAP_*_ELEM: the descriptor, addresses of key and value, flags.
    let attribute = [index(map), key.as_ptr().addr(), value.as_mut_ptr().addr(), 0];
    let args =
        [usize::try_from(command).unwrap_or(0), attribute.as_ptr().addr(), size_of_val(&attribute), 0, 0, 0];
    // SAFETY: a command with its attribute, whose addresses are of arrays of the sizes that [`map`] has.
    unsafe { syscall(libc::SYS_bpf, args) }.map(drop)
}

/// The map's value in memory, as a program's results are read.
fn mapped(map: &OwnedFd) -> Result<(), Errno> {
    // SAFETY: the mapping is of a BPF map, which nobody truncates, and nobody looks into it.
    let page = unsafe { MmapOptions::new().len(4096).map_mut(map.as_raw_fd()) };
    page.map(drop).map_err(Errno::from)
}

fn map_by_id() -> Result<Doing, Errno> {
    let map = bpf::map_create(&map())?;
    let id = bpf::map_info(&map)?.id;
    plain(move |arm: Arm| {
        let _held = &map;
        Ok(arm.during(|| bpf::map_get_fd_by_id(id))?)
    })
}

fn program_by_id() -> Result<Doing, Errno> {
    let program = load()?;
    let id = bpf::prog_info(&program)?.id;
    plain(move |arm: Arm| {
        let _held = &program;
        Ok(arm.during(|| bpf::prog_get_fd_by_id(id))?)
    })
}

fn map_from_pin() -> Result<Doing, Errno> {
    let pin =
        Pin(CString::new(format!("/sys/fs/bpf/reached-{}", std::process::id())).map_err(|_| Errno::EINVAL)?);
    bpf::obj_pin(bpf::map_create(&map())?, &pin.0)?;
    plain(move |arm: Arm| Ok(arm.during(|| bpf::obj_get(&pin.0, 0))?))
}

/// A pin, removed when this is dropped.
struct Pin(CString);

impl Drop for Pin {
    fn drop(&mut self) {
        let _removed = fs::remove_file(&*self.0.to_string_lossy());
    }
}
