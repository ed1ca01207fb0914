//! What the kernel's NFS server does for a client: a thread of the kernel's, which goes past what is only asked of system
//! calls.
//!
//! Programs act for that thread here, and not for the client, which is this process.

use super::Subject;
use super::way::{Doing, Failed, Way, doing};
use crate::errno::Errno;
use crate::spec::source;
use crate::triggers::Arm;
use crate::triggers::nfs::{EXPORT, MOUNTED, Mounted};
use nix::sys::stat::{Mode, SFlag, mknod};
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

pub(super) const SUBJECT: Subject = Subject {
    name: "nfs_server",
    what: "do something to a file of an NFS server",
    hooks: &[
        "path_mknod",
        "inode_create",
        "inode_mknod",
        "path_mkdir",
        "inode_mkdir",
        "path_link",
        "inode_link",
        "path_rename",
        "inode_rename",
        "path_unlink",
        "inode_unlink",
        "path_chmod",
        "path_truncate",
        "inode_setattr",
        "file_open",
        "file_permission",
    ],
    ways: &[
        Way::new("create", || served(|_| Ok(()), create, |at| at.kept("new").exists())),
        Way::new("mknod-of-a-fifo", || served(|_| Ok(()), fifo, |at| at.kept("new").exists())),
        Way::new("mkdir", || {
            served(|_| Ok(()), |at| fs::create_dir(at.made()), |at| at.kept("new").exists())
        }),
        Way::new("link", || {
            served(old, |at| fs::hard_link(at.old(), at.made()), |at| at.kept("new").exists())
        }),
        Way::new("rename", || {
            served(old, |at| fs::rename(at.old(), at.made()), |at| at.kept("new").exists())
        }),
        Way::new("unlink", || served(old, |at| fs::remove_file(at.old()), |at| !at.kept("old").exists())),
        Way::new("chmod", || served(old, chmod, |at| mode(at) == Some(0o400))),
        Way::new("truncate", || served(old, truncate, |at| length(at) == Some(0))),
        Way::new("read", || served(old, |at| fs::read(at.old()).map(drop), |_| false)),
        Way::new("write", || served(old, append, |at| length(at) == Some(4))),
    ],
    sources: &[
        source("7.3", "fs/nfsd/vfs.c", "nfsd_create_locked"),
        source("7.3", "fs/nfsd/vfs.c", "nfsd_unlink"),
        source("7.3", "fs/nfsd/vfs.c", "nfsd_rename"),
        source("7.3", "fs/nfsd/vfs.c", "nfsd_setattr"),
        source("7.3", "fs/nfsd/vfs.c", "__nfsd_open"),
        source("7.3", "security/security.c", "security_path_unlink"),
    ],
};

/// The names of a round, which no other has: neither the client nor the server knows anything of them.
struct Names {
    nth: u32,
}

impl Names {
    /// What is there before, as the client has it.
    fn old(&self) -> PathBuf {
        PathBuf::from(format!("{MOUNTED}/old-{}", self.nth))
    }

    /// What is there afterwards.
    fn made(&self) -> PathBuf {
        PathBuf::from(format!("{MOUNTED}/new-{}", self.nth))
    }

    /// One of them as the server has it.
    fn kept(&self, which: &str) -> PathBuf {
        PathBuf::from(format!("{EXPORT}/{which}-{}", self.nth))
    }
}

/// Mounts what the server has, makes something ready there, and has the client do something, of which `done` sees whether
/// it is done.
fn served(
    before: fn(&Names) -> io::Result<()>,
    call: fn(&Names) -> io::Result<()>,
    done: fn(&Names) -> bool,
) -> Result<Doing, Errno> {
    let mounted = Mounted::new()?;
    let mut nth = 0;
    doing(move |arm: Arm| {
        nth += 1;
        let names = Names { nth };
        before(&names)?;
        let result = mounted.during(arm, || call(&names));
        match (result, done(&names)) {
            (Err(_), true) => Ok("an error, and it is done".to_owned()),
            (Err(error), false) => Err(Failed::from(error)),
            (Ok(()), true) => Ok("done".to_owned()),
            (Ok(()), false) => Ok("ok".to_owned()),
        }
    })
}

/// A file of three bytes.
fn old(at: &Names) -> io::Result<()> {
    fs::write(at.kept("old"), b"old")?;
    fs::set_permissions(at.kept("old"), Permissions::from_mode(0o600))
}

fn create(at: &Names) -> io::Result<()> {
    File::create_new(at.made()).map(drop)
}

fn fifo(at: &Names) -> io::Result<()> {
    mknod(&at.made(), SFlag::S_IFIFO, Mode::S_IRUSR, 0).map_err(io::Error::from)
}

fn chmod(at: &Names) -> io::Result<()> {
    fs::set_permissions(at.old(), Permissions::from_mode(0o400))
}

fn mode(at: &Names) -> Option<u32> {
    fs::metadata(at.kept("old")).ok().map(|facts| facts.permissions().mode() & 0o777)
}

fn truncate(at: &Names) -> io::Result<()> {
    nix::unistd::truncate(&at.old(), 0).map_err(io::Error::from)
}

fn append(at: &Names) -> io::Result<()> {
    let mut file = OpenOptions::new().append(true).open(at.old())?;
    file.write_all(b"!")?;
    file.sync_all()
}

fn length(at: &Names) -> Option<u64> {
    fs::metadata(at.kept("old")).ok().map(|facts| facts.len())
}
