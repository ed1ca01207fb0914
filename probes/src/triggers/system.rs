//! The kernel itself: bpf(2), performance events, io_uring, the clock, the log, modules.

use super::files::{index, owned};
use super::{Act, Arm, OK, Seen, act, act_seen, syscall};
use crate::asm::Asm;
use crate::bpf::{self, MapSpec, ProgSpec};
use crate::errno::Errno;
use crate::insn::Reg;
use std::fs::File;
use std::os::fd::OwnedFd;

/// include/uapi/linux/bpf.h: BPF_PROG_TYPE_SOCKET_FILTER.
const SOCKET_FILTER: u32 = 1;
/// include/uapi/linux/syslog terms: SYSLOG_ACTION_SIZE_BUFFER.
const LOG_SIZE: i32 = 10;
/// include/uapi/linux/io_uring.h: IORING_SETUP_SQPOLL.
const SQPOLL: u32 = 2;

/// `bpf(2)` with a command that changes nothing.
///
/// # Errors
/// None.
pub fn next_map() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| bpf::map_next_id(0)))
}

/// `bpf(2)`, making a map.
///
/// # Errors
/// None.
pub fn new_map() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let spec = MapSpec::array(8, 1);
        arm.during(|| bpf::map_create(&spec))
    })
}

/// `bpf(2)`, loading a program of another type.
///
/// # Errors
/// None.
pub fn new_program() -> Result<Act, Errno> {
    let mut asm = Asm::new();
    asm.mov_imm(Reg::R0, 0).exit();
    let insns = asm.finish().map_err(|_| Errno::EINVAL)?;
    let spec = ProgSpec::new(SOCKET_FILTER, "filter", insns);
    act(move |arm: Arm| arm.during(|| bpf::prog_load(&spec, 0).map_err(|error| error.errno)))
}

/// `perf_event_open(2)` of the software event that counts nothing.
fn dummy_event() -> Result<OwnedFd, Errno> {
    let mut attr = [0_u64; 8];
    attr[0] = 1 | (64 << 32); // PERF_TYPE_SOFTWARE, PERF_ATTR_SIZE_VER0
    attr[1] = 9; // PERF_COUNT_SW_DUMMY
    let (this, any, none) = (0, usize::MAX, usize::MAX);
    // SAFETY: an attribute of the size that it names, and numbers.
    unsafe { syscall(libc::SYS_perf_event_open, [attr.as_ptr().addr(), this, any, none, 0, 0]) }.map(owned)
}

/// `perf_event_open(2)`.
///
/// # Errors
/// None.
pub fn new_event() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(dummy_event))
}

/// `read(2)` of a performance event.
///
/// # Errors
/// The errno of making the event.
pub fn read_event() -> Result<Act, Errno> {
    let event = dummy_event()?;
    act(move |arm: Arm| arm.during(|| nix::unistd::read(&event, &mut [0; 8]).map_err(Errno::from)))
}

/// `ioctl(2)` that switches a performance event off.
///
/// # Errors
/// The errno of making the event.
pub fn disable_event() -> Result<Act, Errno> {
    let event = dummy_event()?;
    act(move |arm: Arm| {
        let args = [index(&event), 0x2401, 0, 0, 0, 0]; // PERF_EVENT_IOC_DISABLE
        // SAFETY: the request takes a number.
        arm.during(|| unsafe { syscall(libc::SYS_ioctl, args) })
    })
}

/// `io_uring_setup(2)`.
fn ring(flags: u32) -> Result<OwnedFd, Errno> {
    let mut params = [0_u32; 30];
    params[2] = flags;
    params[4] = 1; // a polling thread is to be idle after a millisecond, not a second
    // SAFETY: a structure of 120 bytes, which the kernel fills in.
    unsafe { syscall(libc::SYS_io_uring_setup, [1, params.as_mut_ptr().addr(), 0, 0, 0, 0]) }.map(owned)
}

/// `io_uring_setup(2)`.
///
/// # Errors
/// None.
pub fn new_ring() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| ring(0)))
}

/// `io_uring_setup(2)` with a kernel thread that polls.
///
/// # Errors
/// None.
pub fn polling_ring() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(|| ring(SQPOLL)))
}

/// `settimeofday(2)` of the time zone alone, to what it is.
///
/// # Errors
/// None.
pub fn set_time() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let zone = [0_i32; 2];
        // SAFETY: no time, and a zone of two numbers.
        arm.during(|| unsafe { syscall(libc::SYS_settimeofday, [0, zone.as_ptr().addr(), 0, 0, 0, 0]) })
    })
}

/// `syslog(2)`, asking for the size of the log.
///
/// # Errors
/// None.
pub fn log_size() -> Result<Act, Errno> {
    act(|arm: Arm| {
        // SAFETY: the action takes no buffer.
        arm.during(|| Errno::result(unsafe { libc::klogctl(LOG_SIZE, std::ptr::null_mut(), 0) }))
    })
}

/// `finit_module(2)` of a file that is no module: the kernel asks the hook, reads it, and then refuses.
///
/// # Errors
/// The errno of making the file.
pub fn load_module() -> Result<Act, Errno> {
    std::fs::write("/tmp/no-module", [0; 4096])?;
    let file = File::open("/tmp/no-module")?;
    act_seen(move |arm: Arm| {
        let args = [index(&file), c"".as_ptr().addr(), 0, 0, 0, 0];
        // SAFETY: a descriptor, a terminated string, a number.
        match arm.during(|| unsafe { syscall(libc::SYS_finit_module, args) }) {
            Ok(_) => Ok(Seen("ok, which cannot be")),
            Err(errno) if errno.raw() == libc::ENOEXEC => Ok(Seen("ENOEXEC: it is no module")),
            Err(errno) => Err(errno),
        }
    })
}

/// `init_module(2)` of memory that holds no module: the kernel asks the hooks, reads it, and then refuses.
///
/// # Errors
/// None.
pub fn load_module_from_memory() -> Result<Act, Errno> {
    let image = [0_u8; 4096];
    act_seen(move |arm: Arm| {
        let args = [image.as_ptr().addr(), image.len(), c"".as_ptr().addr(), 0, 0, 0];
        // SAFETY: a slice with its length, a terminated string.
        match arm.during(|| unsafe { syscall(libc::SYS_init_module, args) }) {
            Ok(_) => Ok(Seen("ok, which cannot be")),
            Err(errno) if errno.raw() == libc::ENOEXEC => Ok(Seen("ENOEXEC: it is no module")),
            Err(errno) => Err(errno),
        }
    })
}

/// The end of a map, some time after its last descriptor. Names how many elements it has, each time another number.
///
/// # Errors
/// None.
pub fn free_map() -> Result<Act, Errno> {
    let mut elements = 7000;
    act(move |arm: Arm| {
        elements += 1;
        let map = bpf::map_create(&MapSpec::array(8, elements))?;
        arm.freeing(u64::from(elements), || drop(map));
        Ok(())
    })
}

/// The end of a program, as [`free_map`]; its length is named.
///
/// # Errors
/// None.
pub fn free_program() -> Result<Act, Errno> {
    let mut length = 700;
    act(move |arm: Arm| {
        length += 1;
        let mut asm = Asm::new();
        for _ in 1..length {
            asm.mov_imm(Reg::R0, 0);
        }
        let insns = asm.exit().finish().map_err(|_| Errno::EINVAL)?;
        let spec = ProgSpec::new(SOCKET_FILTER, "filter", insns);
        let program = bpf::prog_load(&spec, 0).map_err(|error| error.errno)?;
        arm.freeing(length, || drop(program));
        Ok(())
    })
}

/// `lsm_set_self_attr(2)` addressed to the BPF module, which has no attributes of its own.
///
/// # Errors
/// None.
pub fn set_own_attribute() -> Result<Act, Errno> {
    // include/uapi/linux/lsm.h: LSM_ID_BPF, LSM_ATTR_CURRENT; struct lsm_ctx: id, flags, len, ctx_len, ctx.
    let context = [LSM_ID_BPF, 0, 40, 8, 0];
    act_seen(move |arm: Arm| {
        let args = [100, context.as_ptr().addr(), 40, 0, 0, 0];
        // SAFETY: a structure with its length, and numbers.
        match arm.during(|| unsafe { syscall(SYS_LSM_SET_SELF_ATTR, args) }) {
            Err(errno) if errno.raw() == libc::EOPNOTSUPP => Ok(Seen("EOPNOTSUPP: nobody sets it")),
            other => other.map(|_| OK),
        }
    })
}

/// `lsm_get_self_attr(2)`, asking the BPF module alone.
///
/// # Errors
/// None.
pub fn own_attribute() -> Result<Act, Errno> {
    act_seen(|arm: Arm| {
        let mut context = [LSM_ID_BPF, 0, 0, 0, 0];
        let mut size = size_of_val(&context) as u64; // 32 bits from 6.9 on, which are the lower ones
        let args = [100, context.as_mut_ptr().addr(), (&raw mut size).addr(), FLAG_SINGLE, 0, 0];
        // SAFETY: a structure with its length, which lives across the call, and numbers.
        match arm.during(|| unsafe { syscall(SYS_LSM_GET_SELF_ATTR, args) }) {
            Err(errno) if errno.raw() == libc::EOPNOTSUPP => Ok(Seen("EOPNOTSUPP: nobody has it")),
            other => other.map(|_| OK),
        }
    })
}

/// include/uapi/linux/lsm.h: LSM_FLAG_SINGLE.
const FLAG_SINGLE: usize = 1;
const LSM_ID_BPF: u64 = 109;
/// include/uapi/asm-generic/unistd.h: lsm_get_self_attr, lsm_set_self_attr.
const SYS_LSM_GET_SELF_ATTR: libc::c_long = 459;
const SYS_LSM_SET_SELF_ATTR: libc::c_long = 460;

/// `close(2)` of a performance event.
///
/// # Errors
/// None.
pub fn close_event() -> Result<Act, Errno> {
    act(|arm: Arm| {
        let event = dummy_event()?;
        arm.during(|| drop(event));
        Ok(())
    })
}
