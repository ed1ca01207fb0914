//! Kfuncs about files, which are there for LSM programs only.

use super::body::{BUFFER, BUFFER_BYTES, Body, OUT};
use super::row::{GOT, KEPT, OPENED, Row, inode, kfunc};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::results::Results;
use crate::session::{Attempt, Ended};
use crate::spec::source;
use std::ffi::{CStr, CString};

const FS: &str = "fs/bpf_fs_kfuncs.c";
/// What a test's extended attribute holds.
const VALUE: &[u8] = b"sample";
/// Its length, as a kfunc returns it.
const VALUE_BYTES: i64 = 6;
/// Where the dynptr of a program is on its stack.
const DYNPTR: i32 = -16;

/// The rows of this subject.
pub(super) fn rows() -> Vec<Row> {
    vec![
        exe_file(),
        put_file(),
        d_path(),
        file_xattr(),
        dentry_xattr(),
        set_dentry_xattr("inode_getxattr", 0, ask_for_an_attribute),
        set_dentry_xattr("inode_setxattr", 1, set_an_attribute).variant("-where-the-inode-is-locked"),
        remove_dentry_xattr("inode_getxattr", 0, ask_for_an_attribute),
        remove_dentry_xattr("inode_setxattr", 1, set_an_attribute).variant("-where-the-inode-is-locked"),
        fsverity(),
        real_data_inode(),
    ]
}

/// Leaves the inode number of the file in [`GOT`], keeping it.
fn leave_inode(b: &mut Body<'_>) {
    b.mov_reg(Reg::R1, GOT);
    b.follow(Reg::R1, "file", "f_inode");
    b.follow(Reg::R1, "inode", "i_ino");
    b.leave(0, Reg::R1);
}

fn exe_file() -> Row {
    kfunc("bpf_get_task_exe_file", "6.12", FS)
        .takes(|b| b.current(Reg::R1))
        .owned("bpf_put_file")
        .then(leave_inode)
        .leaves("inode of the executable", 0, || inode("/proc/self/exe"))
        .not_null(Reg::R1)
        .not_untrusted(Reg::R1, "task_struct")
        .lsm_only()
        .cites(source("6.12", FS, "bpf_fs_kfuncs_filter"))
}

fn put_file() -> Row {
    kfunc("bpf_put_file", "6.12", FS)
        .releases()
        .takes(|b| {
            b.current(Reg::R1);
            b.kfunc("bpf_get_task_exe_file");
            b.jeq_imm(Reg::R0, 0, "pass").mov_reg(Reg::R1, Reg::R0);
        })
        .wrong("misuse-not-acquired", |b| {
            b.context_argument(Reg::R1, 0);
            b.kfunc("bpf_put_file");
        })
        .lsm_only()
}

fn d_path() -> Row {
    kfunc("bpf_path_d_path", "6.12", FS)
        .takes(|b| {
            b.context_argument(Reg::R1, 0);
            b.member_address(Reg::R1, "file", "f_path");
            b.page_address(Reg::R2, BUFFER);
            b.mov_imm(Reg::R3, BUFFER_BYTES);
        })
        .gives(12)
        .checks(|attempt, results| {
            attempt.same("path", results.bytes(BUFFER, OPENED.len()), OPENED.as_bytes().to_vec());
        })
        .also("buffer-too-small", -i64::from(libc::ENAMETOOLONG), |b| {
            b.mov_imm(Reg::R3, 4);
        })
        .not_null(Reg::R1)
        .not_untrusted(Reg::R1, "path")
        .spoilt("misuse-buffer-beyond-the-map", |b| {
            b.mov_imm(Reg::R3, 8192);
        })
        .spoilt("misuse-another-type", |b| b.context_argument(Reg::R1, 0))
        .lsm_only()
}

/// `setxattr(2)` on the file that the trigger opens.
fn set_xattr(name: &CStr) -> Result<(), Ended> {
    let path = CString::new(OPENED).unwrap_or_default();
    // SAFETY: two strings that end with NUL and a value of the length given.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), VALUE.as_ptr().cast(), VALUE.len(), 0) };
    Errno::result(result).map(drop).map_err(|errno| Ended::could_not("set an extended attribute", errno))
}

/// `getxattr(2)` on it.
fn get_xattr(name: &CStr) -> Result<Vec<u8>, Errno> {
    let path = CString::new(OPENED).unwrap_or_default();
    let mut value = vec![0_u8; 64];
    // SAFETY: two strings that end with NUL and a buffer of the length given.
    let result =
        unsafe { libc::getxattr(path.as_ptr(), name.as_ptr(), value.as_mut_ptr().cast(), value.len()) };
    let length = Errno::result(result)?;
    value.truncate(usize::try_from(length).unwrap_or(0));
    Ok(value)
}

/// The trigger of hooks on attributes. What it gives does not matter, only that it asks.
fn ask_for_an_attribute() -> Result<(), Errno> {
    get_xattr(c"user.sample").map(drop)
}

/// The trigger of a hook that is called with the inode locked. The kernel knows which those are and calls another
/// function there, which does not take the lock again.
fn set_an_attribute() -> Result<(), Errno> {
    let path = CString::new(OPENED).unwrap_or_default();
    // SAFETY: two strings that end with NUL and a value of the length given.
    let result = unsafe {
        libc::setxattr(path.as_ptr(), c"user.other".as_ptr(), VALUE.as_ptr().cast(), VALUE.len(), 0)
    };
    Errno::result(result).map(drop)
}

fn given_user_xattr(_: &mut Results) -> Result<(), Ended> {
    set_xattr(c"user.sample")
}

/// Pointer argument of the hook, name, buffer.
fn xattr_arguments(b: &mut Body<'_>, name: &str) {
    b.dynptr(DYNPTR, BUFFER, 32);
    b.context_argument(Reg::R1, 0);
    b.text(Reg::R2, name);
    b.stack_address(Reg::R3, DYNPTR);
}

fn value_is_there(attempt: &mut Attempt<'_>, results: &Results) {
    attempt.same("value", results.bytes(BUFFER, VALUE.len()), VALUE.to_vec());
}

/// What the two kfuncs that read an attribute have in common.
fn reads_xattr(row: Row) -> Row {
    row.sleepable()
        .given(given_user_xattr)
        .takes(|b| xattr_arguments(b, "user.sample"))
        .gives(VALUE_BYTES)
        .checks(value_is_there)
        .also("no-such-attribute", -i64::from(libc::ENODATA), |b| b.text(Reg::R2, "user.other"))
        .also("trusted-prefix", -i64::from(libc::EPERM), |b| b.text(Reg::R2, "trusted.sample"))
        .not_null(Reg::R1)
        .not_null(Reg::R3)
        .spoilt("misuse-name-not-constant", |b| b.page_address(Reg::R2, OUT))
        .spoilt("misuse-uninitialised-dynptr", |b| b.stack_address(Reg::R3, -64))
        .lsm_only()
}

fn file_xattr() -> Row {
    reads_xattr(kfunc("bpf_get_file_xattr", "6.12", FS)).not_untrusted(Reg::R1, "file")
}

fn dentry_xattr() -> Row {
    reads_xattr(kfunc("bpf_get_dentry_xattr", "6.12", FS).on("inode_getxattr", ask_for_an_attribute))
        .not_untrusted(Reg::R1, "dentry")
}

fn set_dentry_xattr(hook: &'static str, argument: i32, act: fn() -> Result<(), Errno>) -> Row {
    kfunc("bpf_set_dentry_xattr", "7.2", FS)
        .on(hook, act)
        .sleepable()
        .given(given_user_xattr)
        .given(|results| {
            let words = VALUE.iter().rev().fold(0_u64, |word, &byte| (word << 8) | u64::from(byte));
            results.set(BUFFER, words);
            Ok(())
        })
        .takes(move |b| {
            b.dynptr(DYNPTR, BUFFER, 6);
            b.context_argument(Reg::R1, argument);
            b.text(Reg::R2, "security.bpf.sample");
            b.stack_address(Reg::R3, DYNPTR);
            b.mov_imm(Reg::R4, 0);
        })
        .gives(0)
        .checks(|attempt, _| {
            attempt.same("value", get_xattr(c"security.bpf.sample"), Ok(VALUE.to_vec()));
        })
        .also("user-prefix", -i64::from(libc::EPERM), |b| b.text(Reg::R2, "user.sample"))
        .not_null(Reg::R1)
        .spoilt("misuse-name-not-constant", |b| b.page_address(Reg::R2, OUT))
        .lsm_only()
        .cites(source("7.2", FS, "bpf_lsm_has_d_inode_locked"))
}

fn remove_dentry_xattr(hook: &'static str, argument: i32, act: fn() -> Result<(), Errno>) -> Row {
    kfunc("bpf_remove_dentry_xattr", "7.2", FS)
        .on(hook, act)
        .sleepable()
        .given(given_user_xattr)
        .given(|_| set_xattr(c"security.bpf.sample"))
        .takes(move |b| {
            b.context_argument(Reg::R1, argument);
            b.text(Reg::R2, "security.bpf.sample");
        })
        .gives(0)
        .checks(|attempt, _| {
            attempt.outcome("user space asks for it", &get_xattr(c"security.bpf.sample"));
        })
        .also("user-prefix", -i64::from(libc::EPERM), |b| b.text(Reg::R2, "user.sample"))
        .not_null(Reg::R1)
        .lsm_only()
}

/// tmpfs has no fs-verity: what can be checked is that the kfunc says so.
fn fsverity() -> Row {
    kfunc("bpf_get_fsverity_digest", "6.12", "fs/verity/measure.c")
        .takes(|b| {
            b.dynptr(DYNPTR, BUFFER, 64);
            b.context_argument(Reg::R1, 0);
            b.stack_address(Reg::R2, DYNPTR);
        })
        .gives(-i64::from(libc::ENODATA))
        .not_null(Reg::R1)
        .lsm_only()
}

fn real_data_inode() -> Row {
    kfunc("bpf_real_data_inode", "7.2", FS)
        .sleepable()
        .nullable()
        .takes(|b| b.context_argument(Reg::R1, 0))
        .then(|b| {
            b.mov_reg(KEPT, GOT);
            b.follow(KEPT, "inode", "i_ino");
            b.stx(Size::DW, crate::lsm::PAGE, OUT, KEPT);
        })
        .leaves("inode", 0, || inode(OPENED))
        .not_null(Reg::R1)
        .lsm_only()
}
