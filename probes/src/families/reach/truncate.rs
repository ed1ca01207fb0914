//! Taking a file's content away.

use super::Subject;
use super::way::{Doing, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::Arm;
use crate::triggers::files::owned;
use crate::triggers::uring::{Request, Ring};
use std::fs::{self, File, OpenOptions};
use std::os::fd::AsRawFd;

pub(super) const SUBJECT: Subject = Subject {
    name: "truncate",
    what: "take the content of a file away",
    hooks: &["file_open", "file_permission", "path_truncate", "file_truncate", "inode_setattr"],
    ways: &[
        Way::new("truncate", || cutting(by_path)),
        Way::new("ftruncate", || cutting(by_descriptor)),
        Way::new("open-O_TRUNC", || cutting(|_| opening(libc::O_WRONLY | libc::O_TRUNC))),
        Way::new("open-O_TRUNC-for-reading", || cutting(|_| opening(libc::O_RDONLY | libc::O_TRUNC))),
        Way::new("creat", || cutting(|_| opening(libc::O_CREAT | libc::O_WRONLY | libc::O_TRUNC))),
        Way::new("fallocate-punch-hole", || cutting(punch_hole)),
        Way::new("io_uring-ftruncate", by_ring).lacking(&[libc::EINVAL]),
    ],
    sources: &[
        source("7.3", "fs/open.c", "vfs_truncate"),
        source("7.3", "fs/open.c", "do_ftruncate"),
        source("7.3", "fs/open.c", "vfs_fallocate"),
        source("7.3", "fs/namei.c", "handle_truncate"),
        source("7.3", "io_uring/truncate.c", "io_ftruncate"),
        source("5.7", "fs/namei.c", "handle_truncate"),
    ],
};

const PATH: &str = "/tmp/cut";
const CONTENT: &[u8] = b"content";

/// The file with its content, open for reading and writing.
fn whole() -> Result<File, Errno> {
    fs::write(PATH, CONTENT)?;
    Ok(OpenOptions::new().read(true).write(true).open(PATH)?)
}

/// What has become of the content.
fn left() -> Result<String, Errno> {
    let content = fs::read(PATH)?;
    Ok(if content == CONTENT {
        "all is there".to_owned()
    } else if content.len() == CONTENT.len() && content.iter().all(|&byte| byte == 0) {
        "zeros".to_owned()
    } else {
        format!("{} bytes are left", content.len())
    })
}

/// Does `call`, and looks at what is left, also where it fails.
fn cutting(call: fn(&File) -> Result<(), Errno>) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        let file = whole()?;
        outcome(arm.during(|| call(&file)))
    })
}

fn outcome(result: Result<(), Errno>) -> Result<String, super::way::Failed> {
    let left = left()?;
    match result {
        Err(errno) if left != "all is there" => Ok(format!("{errno}, and {left}")),
        Err(errno) => Err(errno.into()),
        Ok(()) => Ok(left),
    }
}

fn by_path(_: &File) -> Result<(), Errno> {
    // SAFETY: a terminated path and a number.
    Errno::result(unsafe { libc::truncate(c"/tmp/cut".as_ptr(), 3) }).map(drop)
}

fn by_descriptor(file: &File) -> Result<(), Errno> {
    // SAFETY: takes two numbers.
    Errno::result(unsafe { libc::ftruncate(file.as_raw_fd(), 3) }).map(drop)
}

fn opening(flags: i32) -> Result<(), Errno> {
    // SAFETY: a terminated path and numbers.
    let fd = unsafe { libc::open(c"/tmp/cut".as_ptr(), flags | libc::O_CLOEXEC, 0o600) };
    Errno::result(fd).map(|fd| drop(owned(fd.into())))
}

fn punch_hole(file: &File) -> Result<(), Errno> {
    let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    // SAFETY: takes four numbers.
    Errno::result(unsafe { libc::fallocate(file.as_raw_fd(), mode, 0, 4096) }).map(drop)
}

/// include/uapi/linux/io_uring.h: IORING_OP_FTRUNCATE.
const FTRUNCATE: u8 = 55;

/// A request of io_uring, to length 0.
fn by_ring() -> Result<Doing, Errno> {
    let mut ring = Ring::new()?;
    doing(move |arm: Arm| {
        let file = whole()?;
        let request = Request { operation: FTRUNCATE, fd: file.as_raw_fd(), ..Request::default() };
        outcome(arm.during(|| ring.request(request)).map(drop))
    })
}
