//! A file's content: reading and writing it through a descriptor, and through memory.

use super::Subject;
use super::way::{Doing, Step, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::uring::{READ, Request, Ring};
use crate::triggers::{Arm, syscall};
use memmap2::{Mmap, MmapOptions};
use std::fs::{self, File, OpenOptions};
use std::os::fd::{AsRawFd, OwnedFd};

pub(super) const SUBJECT: Subject = Subject {
    name: "file_permission",
    what: "read or write an open file of tmpfs",
    hooks: &["file_permission", "mmap_file"],
    ways: &[
        Way::new("read", || reading(read)),
        Way::new("pread", || reading(pread)),
        Way::new("readv", || reading(readv)),
        Way::new("splice-to-a-pipe", || reading(splice)),
        Way::new("io_uring-read", by_ring),
        Way::new("getdents64", folder),
        Way::new("write", || writing(write)),
        Way::new("pwritev", || writing(pwritev)),
        Way::new("sendfile-to-a-file", || writing(sendfile)),
        Way::new("copy_file_range", || writing(copy_file_range)),
        Way::new("mmap-and-read", map),
        Way::new("reading-what-is-mapped", mapped),
    ],
    sources: &[
        source("7.3", "fs/read_write.c", "rw_verify_area"),
        source("7.3", "fs/read_write.c", "vfs_copy_file_range"),
        source("7.3", "fs/splice.c", "do_splice_direct"),
        source("6.7", "fs/splice.c", "do_splice_direct"),
        source("6.7", "fs/read_write.c", "do_iter_write"),
        source("7.3", "fs/readdir.c", "iterate_dir"),
        source("7.3", "io_uring/rw.c", "__io_read"),
        source("7.3", "mm/util.c", "vm_mmap_pgoff"),
    ],
};

fn number(result: isize) -> Result<usize, Errno> {
    Errno::result(result).map(|number| usize::try_from(number).unwrap_or(0))
}

/// A file with two bytes, and an empty one, both open for reading and writing.
fn files() -> Result<(File, File), Errno> {
    let open = |path| OpenOptions::new().read(true).write(true).create(true).truncate(true).open(path);
    let (from, to) = (open("/tmp/from")?, open("/tmp/to")?);
    fs::write("/tmp/from", b"xy")?;
    Ok((from, to))
}

type Call = fn(&File) -> Result<usize, Errno>;

fn reading(call: Call) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        let (from, _) = files()?;
        let bytes = arm.during(|| call(&from))?;
        Ok(format!("{bytes} read"))
    })
}

fn read(file: &File) -> Result<usize, Errno> {
    let mut bytes = [0_u8; 2];
    // SAFETY: a buffer with its length.
    number(unsafe { libc::read(file.as_raw_fd(), bytes.as_mut_ptr().cast(), 2) })
}

fn pread(file: &File) -> Result<usize, Errno> {
    let mut bytes = [0_u8; 2];
    // SAFETY: a buffer with its length.
    number(unsafe { libc::pread(file.as_raw_fd(), bytes.as_mut_ptr().cast(), 2, 0) })
}

fn readv(file: &File) -> Result<usize, Errno> {
    let mut bytes = [0_u8; 2];
    let part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: 1 };
    let parts = [part, part];
    // SAFETY: two parts with their length; they are the same byte.
    number(unsafe { libc::readv(file.as_raw_fd(), parts.as_ptr(), 2) })
}

fn splice(file: &File) -> Result<usize, Errno> {
    let (_out, into): (OwnedFd, OwnedFd) = nix::unistd::pipe()?;
    let none = std::ptr::null_mut();
    // SAFETY: descriptors and numbers.
    number(unsafe {
        libc::splice(file.as_raw_fd(), none, into.as_raw_fd(), none, 2, libc::SPLICE_F_NONBLOCK)
    })
}

fn by_ring() -> Result<Doing, Errno> {
    let mut ring = Ring::new()?;
    doing(move |arm: Arm| {
        let (from, _) = files()?;
        let mut bytes = [0_u8; 2];
        let (fd, address) = (from.as_raw_fd(), bytes.as_mut_ptr().addr());
        let request = Request { operation: READ, fd, address, length: 2, ..Request::default() };
        let bytes = arm.during(|| ring.request(request))?;
        Ok(format!("{bytes} read"))
    })
}

fn folder() -> Result<Doing, Errno> {
    files()?;
    doing(|arm: Arm| {
        let folder = File::open("/tmp")?;
        let mut room = [0_u64; 64];
        let fd = usize::try_from(folder.as_raw_fd()).unwrap_or(usize::MAX);
        let args = [fd, room.as_mut_ptr().addr(), 512, 0, 0, 0];
        // SAFETY: a descriptor, and a buffer with its length.
        let bytes = arm.during(|| unsafe { syscall(libc::SYS_getdents64, args) })?;
        Ok(if bytes > 0 { "names" } else { "no name" }.to_owned())
    })
}

type Between = fn(&File, &File) -> Result<usize, Errno>;

fn writing(call: Between) -> Result<Doing, Errno> {
    doing(move |arm: Arm| {
        let (from, to) = files()?;
        let result = arm.during(|| call(&from, &to));
        let written = fs::metadata("/tmp/to")?.len();
        match result {
            Err(errno) if written > 0 => Ok(format!("{errno}, and {written} written")),
            Err(errno) => Err(errno.into()),
            Ok(bytes) => Ok(format!("gives {bytes}, {written} written")),
        }
    })
}

fn write(_: &File, to: &File) -> Result<usize, Errno> {
    // SAFETY: a buffer with its length.
    number(unsafe { libc::write(to.as_raw_fd(), b"xy".as_ptr().cast(), 2) })
}

fn pwritev(_: &File, to: &File) -> Result<usize, Errno> {
    let part = libc::iovec { iov_base: b"xy".as_ptr().cast_mut().cast(), iov_len: 2 };
    // SAFETY: a part with its length, which is only read.
    number(unsafe { libc::pwritev(to.as_raw_fd(), &raw const part, 1, 0) })
}

fn sendfile(from: &File, to: &File) -> Result<usize, Errno> {
    // SAFETY: descriptors, no offset, and a number.
    number(unsafe { libc::sendfile(to.as_raw_fd(), from.as_raw_fd(), std::ptr::null_mut(), 2) })
}

fn copy_file_range(from: &File, to: &File) -> Result<usize, Errno> {
    let none = std::ptr::null_mut();
    // SAFETY: descriptors, no offsets, and numbers.
    number(unsafe { libc::copy_file_range(from.as_raw_fd(), none, to.as_raw_fd(), none, 2, 0) })
}

fn mapping(file: &File) -> Result<Mmap, Errno> {
    // SAFETY: nobody changes or cuts the file while it is mapped.
    unsafe { MmapOptions::new().len(2).map(file) }.map_err(Errno::from)
}

/// What stands in the mapping, read anew.
fn looked_at(mapping: &Mmap) -> String {
    // SAFETY: a reference to a byte of the mapping.
    let byte = unsafe { std::ptr::from_ref(&mapping[0]).read_volatile() };
    if byte == b'x' { "the content" } else { "something else" }.to_owned()
}

fn map() -> Result<Doing, Errno> {
    doing(|arm: Arm| {
        let (from, _) = files()?;
        arm.during(|| mapping(&from).map(|mapping| looked_at(&mapping))).step("mmap")
    })
}

fn mapped() -> Result<Doing, Errno> {
    doing(|arm: Arm| {
        let (from, _) = files()?;
        let mapping = mapping(&from)?;
        Ok(arm.during(|| looked_at(&mapping)))
    })
}
