//! Programs and BTF: loading them with the verifier's log, running and attaching them without a link.

use std::cell::RefCell;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

use crate::errno::Errno;
use thiserror::Error;

use super::{
    Attr, NAME_LEN, address, address_mut, bpf, bpf_fd, consts, fd_field, field_text, length, object_name,
};
use crate::insn::Insn;
use memmap2::MmapMut;

/// The log buffer: one byte less than 16 MiB, because BTF logs were limited to `UINT_MAX >> 8` bytes
/// (5.10 kernel/bpf/btf.c `btf_parse`), as those of programs were before 5.2.
const LOG_BYTES: usize = (1 << 24) - 1;
/// How often `EAGAIN`, which a pending signal causes (`do_check`, 6.14 kernel/bpf/verifier.c), is tried again.
const AGAIN: usize = 5;

/// Which function begins where: `struct bpf_func_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct FuncInfo {
    /// Index of the function's first instruction; the first entry's is 0.
    pub insn_off: u32,
    /// The function's type in the program's BTF.
    pub type_id: u32,
}

/// Which source line an instruction comes from: `struct bpf_line_info`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct LineInfo {
    /// Index of the line's first instruction.
    pub insn_off: u32,
    /// The file's name in the strings of the program's BTF.
    pub file_name_off: u32,
    /// The line's text in the strings of the program's BTF.
    pub line_off: u32,
    /// Line number times 1024, plus the column.
    pub line_col: u32,
}

/// What a program is to be. Raw descriptors are as in [`crate::asm`]: the caller keeps them open until the load.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProgSpec {
    /// `BPF_PROG_TYPE_*`.
    pub prog_type: u32,
    /// `BPF_LSM_MAC`, `BPF_LSM_CGROUP`, ..
    pub expected_attach_type: u32,
    /// The name, cut and cleaned to what the kernel takes.
    pub name: String,
    /// The instructions.
    pub insns: Vec<Insn>,
    /// The license; `GPL` unless said otherwise.
    pub license: License,
    /// `BPF_F_*` of `BPF_PROG_LOAD`.
    pub flags: u32,
    /// The hook, function or type that the program attaches to.
    pub attach_btf_id: u32,
    /// The program (`attach_prog_fd`) or the BTF of a module (`attach_btf_obj_fd`) that holds `attach_btf_id`: one
    /// field for both, since 5.11; none for vmlinux.
    pub attach_fd: Option<RawFd>,
    /// BTF of the program's functions and types.
    pub prog_btf_fd: Option<RawFd>,
    /// Which function begins where.
    pub func_info: Vec<FuncInfo>,
    /// Which source line an instruction comes from.
    pub line_info: Vec<LineInfo>,
    /// Maps and BTF that instructions name by index (5.14).
    pub fd_array: Vec<RawFd>,
    /// Whether the length of `fd_array` is passed too, which binds every map in it to the program (6.14).
    pub count_fd_array: bool,
}

/// A program's license.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct License(pub CString);

impl Default for License {
    fn default() -> Self {
        Self(c"GPL".to_owned())
    }
}

impl ProgSpec {
    /// A program of a type, for a licence of `GPL`.
    #[must_use]
    pub fn new(prog_type: u32, name: &str, insns: Vec<Insn>) -> Self {
        Self { prog_type, name: name.to_owned(), insns, ..Self::default() }
    }

    /// An LSM program for the hook with this BTF id.
    #[must_use]
    pub fn lsm(name: &str, hook: u32, insns: Vec<Insn>) -> Self {
        Self {
            expected_attach_type: consts::BPF_LSM_MAC,
            attach_btf_id: hook,
            ..Self::new(consts::BPF_PROG_TYPE_LSM, name, insns)
        }
    }

    /// An LSM program of a cgroup (6.0) for the hook with this BTF id.
    #[must_use]
    pub fn lsm_cgroup(name: &str, hook: u32, insns: Vec<Insn>) -> Self {
        Self { expected_attach_type: consts::BPF_LSM_CGROUP, ..Self::lsm(name, hook, insns) }
    }

    /// The same program, allowed to sleep.
    #[must_use]
    pub fn sleepable(mut self) -> Self {
        self.flags |= consts::BPF_F_SLEEPABLE;
        self
    }
}

/// A refusal, with what the verifier wrote about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("refused with {errno}")]
pub struct LoadError {
    /// What the kernel answered.
    pub errno: Errno,
    /// The log; empty when none was asked for or nothing was written.
    pub log: String,
}

/// Something loaded, with the log that was asked for.
#[derive(Debug)]
pub struct Loaded {
    /// The program.
    pub fd: OwnedFd,
    /// The log; empty when none was asked for.
    pub log: String,
    /// What the kernel answered when it was asked first, without a log, if that was no.
    pub refused_first: Option<Errno>,
}

/// `struct { .. }` of `BPF_PROG_LOAD`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct LoadAttr {
    pub(super) prog_type: u32,
    pub(super) insn_cnt: u32,
    pub(super) insns: u64,
    pub(super) license: u64,
    pub(super) log_level: u32,
    pub(super) log_size: u32,
    pub(super) log_buf: u64,
    pub(super) kern_version: u32,
    pub(super) prog_flags: u32,
    pub(super) prog_name: [u8; NAME_LEN],
    pub(super) prog_ifindex: u32,
    pub(super) expected_attach_type: u32,
    pub(super) prog_btf_fd: u32,
    pub(super) func_info_rec_size: u32,
    pub(super) func_info: u64,
    pub(super) func_info_cnt: u32,
    pub(super) line_info_rec_size: u32,
    pub(super) line_info: u64,
    pub(super) line_info_cnt: u32,
    pub(super) attach_btf_id: u32,
    pub(super) attach_fd: u32,
    pub(super) core_relo_cnt: u32,
    pub(super) fd_array: u64,
    pub(super) core_relos: u64,
    pub(super) core_relo_rec_size: u32,
    pub(super) log_true_size: u32,
    pub(super) prog_token_fd: u32,
    pub(super) fd_array_cnt: u32,
}

// SAFETY: integers in an order that leaves no padding (152 bytes, checked by a test).
unsafe impl Attr for LoadAttr {}

/// `struct { .. }` of `BPF_BTF_LOAD`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct BtfLoadAttr {
    pub(super) btf: u64,
    pub(super) log_buf: u64,
    pub(super) btf_size: u32,
    pub(super) log_size: u32,
    pub(super) log_level: u32,
    pub(super) log_true_size: u32,
}

// SAFETY: integers in an order that leaves no padding (32 bytes, checked by a test).
unsafe impl Attr for BtfLoadAttr {}

/// Loads a program. The first attempt asks for no log, which is cheapest; after a refusal the load is repeated with
/// `log_level` (1 in general, 0 for never) to learn the reason. The errno is that of the first attempt.
///
/// # Errors
/// [`LoadError`] with what the kernel answered and the log.
pub fn prog_load(spec: &ProgSpec, log_level: u32) -> Result<OwnedFd, LoadError> {
    prog_load_told(spec, log_level).map(|loaded| loaded.fd)
}

/// As [`prog_load`], and tells whether the program was refused at first. The log is that of a refusal.
///
/// # Errors
/// As there.
pub fn prog_load_told(spec: &ProgSpec, log_level: u32) -> Result<Loaded, LoadError> {
    let attr = load_attr(spec).map_err(refused)?;
    asked_twice(log_level, |buffer, level| load_once(attr, buffer, level))
}

/// Loads without a log, and after a refusal with one.
pub(super) fn asked_twice(
    log_level: u32,
    once: impl Fn(&mut [u8], u32) -> Result<OwnedFd, Errno>,
) -> Result<Loaded, LoadError> {
    match once(&mut [], 0) {
        Ok(fd) => Ok(Loaded { fd, log: String::new(), refused_first: None }),
        Err(errno) if log_level == 0 => Err(refused(errno)),
        Err(errno) => match logged(log_level, once) {
            // Only a passing failure, such as of memory, goes away by asking again.
            Ok(Loaded { fd, .. }) => Ok(Loaded { fd, log: String::new(), refused_first: Some(errno) }),
            Err(again) => Err(joined(errno, again)),
        },
    }
}

/// A refusal with the log of the load that was repeated for it. A log that is too short is ENOSPC, whatever the reason
/// was; any other errno than the first belongs to another refusal, and so does its log, which says so at its end.
fn joined(errno: Errno, LoadError { errno: again, mut log }: LoadError) -> LoadError {
    if again != errno && again != Errno::ENOSPC {
        log.push_str(&format!("\nasked again for this log, the kernel answered {again}\n"));
    }
    LoadError { errno, log }
}

/// Loads a program whose name is these bytes, unchanged, and without a log.
///
/// # Errors
/// [`LoadError`] with what the kernel answered.
pub fn prog_load_named(spec: &ProgSpec, name: &[u8]) -> Result<OwnedFd, LoadError> {
    let mut attr = load_attr(spec).map_err(refused)?;
    attr.prog_name = [0; NAME_LEN];
    attr.prog_name.iter_mut().zip(name).for_each(|(to, from)| *to = *from);
    load_once(attr, &mut [], 0).map_err(refused)
}

/// Loads a program for the network device with this index, without a log.
///
/// # Errors
/// [`LoadError`] with what the kernel answered.
pub fn prog_load_for_device(spec: &ProgSpec, ifindex: u32) -> Result<OwnedFd, LoadError> {
    let mut attr = load_attr(spec).map_err(refused)?;
    attr.prog_ifindex = ifindex;
    load_once(attr, &mut [], 0).map_err(refused)
}

/// Loads a program with a BPF token (6.9), with the verifier's log of a refusal. Whether the descriptor is one, the kernel says.
///
/// # Errors
/// [`LoadError`] with what the kernel answered and the log.
pub fn prog_load_with_token(spec: &ProgSpec, token: RawFd) -> Result<OwnedFd, LoadError> {
    let mut attr = load_attr(spec).map_err(refused)?;
    attr.prog_flags |= consts::BPF_F_TOKEN_FD;
    attr.prog_token_fd = token.cast_unsigned();
    logged(1, |buffer, level| load_once(attr, buffer, level)).map(|loaded| loaded.fd)
}

/// Loads a program with a log from the start, which is given on success as well.
///
/// The levels are bits: 1 for the path that led to a refusal, 2 for every path with the state after each instruction,
/// 4 for statistics. After a success, level 1 leaves little but the statistics, because the log of a path that
/// verifies is thrown away (`do_check_common`, 6.12 kernel/bpf/verifier.c, `pop_log`): take 2 to see something.
///
/// # Errors
/// [`LoadError`] with what the kernel answered and the log; `ENOSPC` when the log exceeds 16 MiB.
pub fn prog_load_logged(spec: &ProgSpec, log_level: u32) -> Result<Loaded, LoadError> {
    let attr = load_attr(spec).map_err(refused)?;
    logged(log_level, |buffer, level| load_once(attr, buffer, level))
}

/// Loads BTF, which programs and maps then refer to by its descriptor; the log is as in [`prog_load`].
///
/// # Errors
/// [`LoadError`] with what the kernel answered and the log.
pub fn btf_load(btf: &[u8]) -> Result<OwnedFd, LoadError> {
    let size = length(btf).map_err(refused)?;
    let once = |buffer: &mut [u8], log_level: u32| {
        let log_size = length(buffer)?;
        let log_buf = address_mut(buffer);
        let mut attr =
            BtfLoadAttr { btf: address(btf), log_buf, btf_size: size, log_size, log_level, log_true_size: 0 };
        // SAFETY: both addresses and lengths are those of slices that outlive the call, and the command gives a new
        // descriptor.
        unsafe { bpf_fd(consts::BPF_BTF_LOAD, &mut attr) }
    };
    match once(&mut [], 0) {
        Ok(fd) => Ok(fd),
        Err(errno) => match logged(1, once) {
            Ok(loaded) => Ok(loaded.fd),
            Err(again) => Err(joined(errno, again)),
        },
    }
}

pub(super) fn refused(errno: Errno) -> LoadError {
    LoadError { errno, log: String::new() }
}

/// The attribute of a load without its log. Addresses in it are those of the specification's buffers.
pub(super) fn load_attr(spec: &ProgSpec) -> Result<LoadAttr, Errno> {
    let record = |empty: bool, size: usize| if empty { 0 } else { u32::try_from(size).unwrap_or(0) };
    Ok(LoadAttr {
        prog_type: spec.prog_type,
        insn_cnt: length(&spec.insns)?,
        insns: address(&spec.insns),
        license: address(spec.license.0.as_bytes_with_nul()),
        prog_flags: spec.flags,
        prog_name: object_name(&spec.name),
        expected_attach_type: spec.expected_attach_type,
        prog_btf_fd: fd_field(spec.prog_btf_fd),
        func_info_rec_size: record(spec.func_info.is_empty(), size_of::<FuncInfo>()),
        func_info: address(&spec.func_info),
        func_info_cnt: length(&spec.func_info)?,
        line_info_rec_size: record(spec.line_info.is_empty(), size_of::<LineInfo>()),
        line_info: address(&spec.line_info),
        line_info_cnt: length(&spec.line_info)?,
        attach_btf_id: spec.attach_btf_id,
        attach_fd: fd_field(spec.attach_fd),
        fd_array: address(&spec.fd_array),
        fd_array_cnt: if spec.count_fd_array { length(&spec.fd_array)? } else { 0 },
        ..LoadAttr::default()
    })
}

/// One load, repeated a few times while the kernel says `EAGAIN`.
fn load_once(attr: LoadAttr, buffer: &mut [u8], log_level: u32) -> Result<OwnedFd, Errno> {
    let (log_size, log_buf) = (length(buffer)?, address_mut(buffer));
    let mut answer = Err(Errno::EAGAIN);
    for _ in 0..AGAIN {
        let mut attr = LoadAttr { log_level, log_size, log_buf, ..attr };
        // SAFETY: `attr` was made by `load_attr` from a specification that its callers still borrow, the log is a
        // slice that outlives the call, and the command gives a new descriptor.
        answer = unsafe { bpf_fd(consts::BPF_PROG_LOAD, &mut attr) };
        if !matches!(answer, Err(Errno::EAGAIN)) {
            break;
        }
    }
    answer
}

thread_local! {
    /// The log buffer. A mapping of its own, because pages of it that no log reaches then cost nothing: an allocator
    /// may zero what it hands out, which took longer than the loads.
    static LOG: RefCell<Option<MmapMut>> = const { RefCell::new(None) };
}

/// Loads with a log.
fn logged(
    log_level: u32,
    once: impl Fn(&mut [u8], u32) -> Result<OwnedFd, Errno>,
) -> Result<Loaded, LoadError> {
    LOG.with_borrow_mut(|log| {
        let buffer = match log {
            Some(buffer) => buffer,
            None => log.insert(MmapMut::map_anon(LOG_BYTES).map_err(|error| refused(error.into()))?),
        };
        if let Some(byte) = buffer.first_mut() {
            *byte = 0; // a load that writes no log leaves the last one's there
        }
        match once(buffer, log_level) {
            Ok(fd) => Ok(Loaded { fd, log: field_text(buffer), refused_first: None }),
            Err(errno) => Err(LoadError { errno, log: field_text(buffer) }),
        }
    })
}

/// `struct { .. } test` of `BPF_PROG_TEST_RUN`.
#[derive(Clone, Copy, Default)]
#[repr(C)]
pub(super) struct TestAttr {
    pub(super) prog_fd: u32,
    pub(super) retval: u32,
    pub(super) data_size_in: u32,
    pub(super) data_size_out: u32,
    pub(super) data_in: u64,
    pub(super) data_out: u64,
    pub(super) repeat: u32,
    pub(super) duration: u32,
    pub(super) ctx_size_in: u32,
    pub(super) ctx_size_out: u32,
    pub(super) ctx_in: u64,
    pub(super) ctx_out: u64,
    pub(super) flags: u32,
    pub(super) cpu: u32,
    pub(super) batch_size: u32,
    pub(super) pad: u32,
}

// SAFETY: integers in an order that leaves no padding (80 bytes, checked by a test).
unsafe impl Attr for TestAttr {}

/// What a test run is given.
#[derive(Debug, Default)]
pub struct TestRun<'a> {
    /// The packet or data.
    pub data_in: &'a [u8],
    /// Where the data goes afterwards; empty for nowhere.
    pub data_out: &'a mut [u8],
    /// The context, read and, for `BPF_PROG_TYPE_SYSCALL`, written back.
    pub ctx: &'a mut [u8],
    /// How often to run; the kernel takes 0 for once where it takes a number at all.
    pub repeat: u32,
    /// `BPF_F_TEST_RUN_ON_CPU`, ..
    pub flags: u32,
    /// On which CPU, with that flag.
    pub cpu: u32,
}

/// What a test run gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestResult {
    /// The program's return value.
    pub retval: u32,
    /// Nanoseconds per run, as the kernel measured them.
    pub duration: u32,
    /// Bytes written to `data_out`.
    pub data_size_out: u32,
}

/// `BPF_PROG_TEST_RUN`. Program types without one answer `ENOTSUPP`.
///
/// # Errors
/// What the kernel answers.
pub fn prog_test_run(prog: impl AsFd, run: TestRun<'_>) -> Result<TestResult, Errno> {
    let ctx_size_in = length(run.ctx)?;
    let mut attr = TestAttr {
        prog_fd: prog.as_fd().as_raw_fd().cast_unsigned(),
        data_size_in: length(run.data_in)?,
        data_size_out: length(run.data_out)?,
        data_in: address(run.data_in),
        data_out: address_mut(run.data_out),
        repeat: run.repeat,
        ctx_size_in,
        ctx_in: address_mut(run.ctx),
        flags: run.flags,
        cpu: run.cpu,
        ..TestAttr::default()
    };
    // SAFETY: every address comes with the length of the slice it belongs to; what the kernel writes (`ctx_in` for
    // BPF_PROG_TYPE_SYSCALL, 6.12 kernel/bpf/syscall.c bpf_prog_test_run_syscall) was borrowed mutably.
    unsafe { bpf(consts::BPF_PROG_TEST_RUN, &mut attr) }?;
    Ok(TestResult { retval: attr.retval, duration: attr.duration, data_size_out: attr.data_size_out })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    #[test]
    fn a_program_that_is_accepted_at_the_second_asking_is_told_apart() {
        let asked = Cell::new(0);
        let loaded = asked_twice(1, |_, _| {
            asked.set(asked.get() + 1);
            let fd = || std::fs::File::open("/dev/null").map(OwnedFd::from).map_err(Errno::from);
            if asked.get() == 1 { Err(Errno::ENOMEM) } else { fd() }
        });
        assert_eq!((loaded.unwrap().refused_first, asked.get()), (Some(Errno::ENOMEM), 2));
        let refused = asked_twice(1, |buffer, level| {
            buffer.iter_mut().zip(b"why").for_each(|(to, from)| *to = *from);
            Err(if level == 0 { Errno::EACCES } else { Errno::ENOSPC })
        });
        let refused = refused.unwrap_err();
        assert_eq!((refused.errno, refused.log.as_str()), (Errno::EACCES, "why"));
        let other = asked_twice(1, |_, level| Err(if level == 0 { Errno::EACCES } else { Errno::ENOMEM }));
        let other = other.unwrap_err();
        assert_eq!(other.errno, Errno::EACCES);
        assert_eq!(other.log.trim(), "asked again for this log, the kernel answered ENOMEM");
    }
}
