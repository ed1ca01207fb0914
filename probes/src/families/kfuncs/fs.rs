//! Kfuncs about files, inodes, and what is written beside them. Most are there for LSM programs and few others.

use super::body::{BUFFER, BUFFER_BYTES, Body, OUT, RESULT, SECOND};
use super::cases::errno_text;
use super::cgroup::{acquired, give_root_id, of_an_acquired};
use super::row::{GOT, KEPT, OPENED, Row, inode, kfunc};
use crate::errno::Errno;
use crate::insn::{Reg, Size};
use crate::lsm::PAGE;
use crate::results::{RUNS, Results};
use crate::session::{Attempt, Ended};
use crate::spec::source;
use crate::triggers::{overlay, verity};
use std::ffi::{CStr, CString};
use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;

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
        d_path(),
        file_xattr(),
        dentry_xattr(),
        set_dentry_xattr("inode_getxattr", 0, ask_for_an_attribute),
        set_dentry_xattr("inode_setxattr", 1, set_an_attribute).variant("-where-the-inode-is-locked"),
        remove_dentry_xattr("inode_getxattr", 0, ask_for_an_attribute),
        remove_dentry_xattr("inode_setxattr", 1, set_an_attribute).variant("-where-the-inode-is-locked"),
        fsverity(),
        fsverity_digest(),
        real_data_inode(),
        cgroup_xattr(),
        socket_xattr(),
    ]
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
    set_xattr_of(OPENED, name)
}

/// `setxattr(2)`.
fn set_xattr_of(path: &str, name: &CStr) -> Result<(), Ended> {
    let path = CString::new(path).unwrap_or_default();
    // SAFETY: two strings that end with NUL and a value of the length given.
    let result =
        unsafe { libc::setxattr(path.as_ptr(), name.as_ptr(), VALUE.as_ptr().cast(), VALUE.len(), 0) };
    Errno::result(result).map(drop).map_err(|errno| Ended::could_not("set an extended attribute", errno))
}

/// `removexattr(2)` on it, which may have none.
fn remove_xattr(name: &CStr) -> Result<(), Ended> {
    let path = CString::new(OPENED).unwrap_or_default();
    // SAFETY: two strings that end with NUL.
    let result = unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) };
    match Errno::result(result) {
        Err(errno) if errno.raw() != libc::ENODATA => {
            Err(Ended::could_not("remove an extended attribute", errno))
        }
        Ok(_) | Err(_) => Ok(()),
    }
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

/// The attributes that BPF programs may write have this beginning (include/uapi/linux/xattr.h, `XATTR_NAME_BPF_LSM`); this
/// one is written by user space. Whether a program may read it changed between 6.14 and 6.16, and the record shows it.
fn reads_what_programs_write(row: Row) -> Row {
    row.sleepable()
        .given(|_| set_xattr(c"security.bpf.sample"))
        .takes(|b| xattr_arguments(b, "security.bpf.sample"))
        .shows_result()
        .checks(|attempt, results| {
            attempt.same("user space asks for it", get_xattr(c"security.bpf.sample"), Ok(VALUE.to_vec()));
            if results.get(RESULT) == VALUE_BYTES.unsigned_abs() {
                value_is_there(attempt, results);
            }
        })
        .cites(source("7.2", FS, "bpf_xattr_read_permission"))
}

/// What no BPF program may read: what other security modules write, and what only begins like an attribute of programs.
fn not_of_others(row: Row) -> Row {
    let refused = -i64::from(libc::EPERM);
    row.also("security-selinux", refused, |b| b.text(Reg::R2, "security.selinux")).also(
        "security-bpf-without-the-dot",
        refused,
        |b| b.text(Reg::R2, "security.bpf"),
    )
}

fn file_xattr() -> Row {
    let row = || kfunc("bpf_get_file_xattr", "6.12", FS);
    not_of_others(reads_xattr(row()))
        .not_untrusted(Reg::R1, "file")
        .other("canonical-security-bpf-prefix", reads_what_programs_write(row()))
}

fn dentry_xattr() -> Row {
    let row = || kfunc("bpf_get_dentry_xattr", "6.12", FS).on("inode_getxattr", ask_for_an_attribute);
    not_of_others(reads_xattr(row()))
        .not_untrusted(Reg::R1, "dentry")
        .other("canonical-security-bpf-prefix", reads_what_programs_write(row()))
}

/// A program that writes an attribute, with the inode that is the hook's `argument`.
fn writes(hook: &'static str, argument: i32, act: fn() -> Result<(), Errno>) -> Row {
    kfunc("bpf_set_dentry_xattr", "7.2", FS)
        .on(hook, act)
        .sleepable()
        .given(given_user_xattr)
        .given(|results| {
            results.set_bytes(BUFFER, VALUE);
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
}

/// What a program has written, it reads: `given` has seen to it that there is nothing else to be read.
fn read_back(row: Row, argument: i32) -> Row {
    row.given(|_| remove_xattr(c"security.bpf.sample"))
        .then(move |b| {
            b.dynptr(DYNPTR, SECOND, 32);
            b.context_argument(Reg::R1, argument);
            b.text(Reg::R2, "security.bpf.sample");
            b.stack_address(Reg::R3, DYNPTR);
            b.kfunc("bpf_get_dentry_xattr");
            b.leave(0, Reg::R0);
        })
        .checks(|attempt, results| {
            attempt.see("reading gives", errno_text(results.get(OUT)));
            attempt.same("value that the program reads", results.bytes(SECOND, VALUE.len()), VALUE.to_vec());
        })
}

fn set_dentry_xattr(hook: &'static str, argument: i32, act: fn() -> Result<(), Errno>) -> Row {
    not_of_others(writes(hook, argument, act))
        .also("user-prefix", -i64::from(libc::EPERM), |b| b.text(Reg::R2, "user.sample"))
        .other("canonical-read-back", read_back(writes(hook, argument, act), argument))
        .not_null(Reg::R1)
        .spoilt("misuse-name-not-constant", |b| b.page_address(Reg::R2, OUT))
        .lsm_only()
        .cites(source("7.2", FS, "bpf_lsm_has_d_inode_locked"))
        .cites(source("7.2", FS, "bpf_xattr_write_permission"))
}

fn remove_dentry_xattr(hook: &'static str, argument: i32, act: fn() -> Result<(), Errno>) -> Row {
    not_of_others(kfunc("bpf_remove_dentry_xattr", "7.2", FS))
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

/// The digest of a file that has one: `struct fsverity_digest`, the algorithm, the size, and then what user space worked out.
fn fsverity_digest() -> Row {
    kfunc("bpf_get_fsverity_digest", "6.12", "fs/verity/measure.c")
        .variant("-of-a-file-with-verity")
        .given(|_| verity::make_file().map_err(|errno| Ended::could_not("make a file with fs-verity", errno)))
        .on("file_open", || File::open(verity::FILE).map(drop).map_err(Errno::from))
        .takes(|b| {
            b.dynptr(DYNPTR, BUFFER, 64);
            b.context_argument(Reg::R1, 0);
            b.stack_address(Reg::R2, DYNPTR);
        })
        .gives(0)
        .checks(|attempt, results| {
            let found = results.bytes(BUFFER, 36);
            let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
            attempt.same("algorithm and size", hex(&found[..4]), format!("{:02x}002000", verity::SHA256));
            attempt.same("digest", hex(&found[4..]), verity::DIGEST.to_owned());
        })
        .not_null(Reg::R2)
}

/// A file of an overlay's lower directory, and where it is there.
const MERGED: &str = "/tmp/merged/read";
const LOWER: &str = "/tmp/lower/read";

fn device(path: &str) -> Option<u64> {
    std::fs::metadata(path).ok().map(|metadata| metadata.dev())
}

/// Of a file of an overlay, the inode that has the data, which is on another device. That the lower file is opened
/// too makes the program run a second time, which leaves nothing.
fn real_data_inode_of_an_overlay() -> Row {
    fn leave_device(b: &mut Body<'_>, slot: i32) {
        b.follow(KEPT, "inode", "i_sb");
        b.follow(KEPT, "super_block", "s_dev");
        b.leave(slot, KEPT);
    }
    kfunc("bpf_real_data_inode", "7.2", FS)
        .sleepable()
        .nullable()
        .given(|_| {
            overlay::open_and_read().map(drop).map_err(|errno| Ended::could_not("mount an overlay", errno))
        })
        .on("file_open", || File::open(MERGED).map(drop).map_err(Errno::from))
        .takes(|b| b.context_argument(Reg::R1, 0))
        .then(|b| {
            b.ldx(Size::DW, Reg::R1, PAGE, RUNS).jne_imm(Reg::R1, 1, "done");
            b.mov_reg(KEPT, GOT);
            leave_device(b, 0);
            b.context_argument(KEPT, 0);
            b.follow(KEPT, "file", "f_inode");
            leave_device(b, 1);
        })
        .leaves("device of the data", 0, || device(LOWER))
        .leaves("device of the file", 1, || device("/tmp/merged"))
        .cites(source("7.3", "fs/overlayfs/super.c", "ovl_d_real"))
}

fn real_data_inode() -> Row {
    kfunc("bpf_real_data_inode", "7.2", FS)
        .sleepable()
        .nullable()
        .takes(|b| b.context_argument(Reg::R1, 0))
        .then(|b| {
            b.mov_reg(KEPT, GOT);
            b.follow(KEPT, "inode", "i_ino");
            b.leave(0, KEPT);
        })
        .leaves("inode", 0, || inode(OPENED))
        .other("canonical-of-an-overlay", real_data_inode_of_an_overlay())
        .not_null(Reg::R1)
        .lsm_only()
}

/// Where the cgroup of every process is.
const CGROUP: &str = "/sys/fs/cgroup";

/// What a program has acquired it need not protect.
fn acquired_cgroup_xattr() -> Row {
    of_an_acquired(kfunc("bpf_cgroup_read_xattr", "7.3", FS), give_root_id)
        .given(|_| set_xattr_of(CGROUP, c"user.sample"))
        .takes(|b| {
            b.dynptr(DYNPTR, BUFFER, 32);
            acquired(b);
            b.mov_reg(Reg::R1, KEPT);
            b.text(Reg::R2, "user.sample");
            b.stack_address(Reg::R3, DYNPTR);
        })
        .gives(VALUE_BYTES)
        .checks(value_is_there)
}

fn cgroup_xattr() -> Row {
    kfunc("bpf_cgroup_read_xattr", "7.3", FS)
        .given(|_| set_xattr_of(CGROUP, c"user.sample"))
        .takes(|b| {
            b.dynptr(DYNPTR, BUFFER, 32);
            b.current_cgroup(Reg::R1);
            b.text(Reg::R2, "user.sample");
            b.stack_address(Reg::R3, DYNPTR);
        })
        .rcu()
        .gives(VALUE_BYTES)
        .checks(value_is_there)
        .also("no-such-attribute", -i64::from(libc::ENODATA), |b| b.text(Reg::R2, "user.other"))
        .also("trusted-prefix", -i64::from(libc::EPERM), |b| b.text(Reg::R2, "trusted.sample"))
        .also("security-bpf-prefix", -i64::from(libc::EPERM), |b| b.text(Reg::R2, "security.bpf.sample"))
        .other("canonical-sleepable-of-an-acquired-cgroup", acquired_cgroup_xattr())
        .not_null(Reg::R1)
        .not_untrusted(Reg::R1, "cgroup")
        .spoilt("misuse-name-not-constant", |b| b.page_address(Reg::R2, OUT))
        .spoilt("misuse-uninitialised-dynptr", |b| b.stack_address(Reg::R3, -64))
}

/// The trigger of a hook on a socket that has an attribute, which sockets can have since 7.1.
fn ask_for_a_name() -> Result<(), Errno> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    // SAFETY: a descriptor, a string that ends with NUL and a value of the length given.
    let set = unsafe {
        let (value, length) = (VALUE.as_ptr().cast(), VALUE.len());
        libc::fsetxattr(socket.as_raw_fd(), c"user.sample".as_ptr(), value, length, 0)
    };
    Errno::result(set)?;
    socket.local_addr().map(drop).map_err(Errno::from)
}

fn socket_xattr() -> Row {
    kfunc("bpf_sock_read_xattr", "7.3", FS)
        .on("socket_getsockname", ask_for_a_name)
        .takes(|b| xattr_arguments(b, "user.sample"))
        .gives(VALUE_BYTES)
        .checks(value_is_there)
        .also("no-such-attribute", -i64::from(libc::ENODATA), |b| b.text(Reg::R2, "user.other"))
        .also("trusted-prefix", -i64::from(libc::EPERM), |b| b.text(Reg::R2, "trusted.sample"))
        .also("security-bpf-prefix", -i64::from(libc::EPERM), |b| b.text(Reg::R2, "security.bpf.sample"))
        .not_null(Reg::R1)
        .not_untrusted(Reg::R1, "socket")
        .spoilt("misuse-name-not-constant", |b| b.page_address(Reg::R2, OUT))
}
