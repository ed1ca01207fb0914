//! A network file system whose server is in the same machine: the kernel's own, which an address of this machine may mount.
//!
//! What the server asks user space about, that is who asks, which paths there are and which handle is whose, it is told
//! beforehand, in the words of mountd (7.3 fs/nfsd/export.c, `svc_export_parse`, `expkey_parse`; net/sunrpc/svcauth_unix.c,
//! `ip_map_parse`). It speaks version 4 alone, for which no portmapper is needed.

mod daemon;

use super::{Act, Arm, OK, Seen, act, act_seen, known, modules, mounts, xattrs};
use crate::errno::Errno;
use daemon::Daemon;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::statfs::statfs;
use std::fs::{self, OpenOptions};
use std::io::Write;

/// What is exported, a tmpfs.
pub const EXPORT: &str = "/tmp/export";
/// Another one in it, which a client mounts when somebody looks.
const INNER: &str = "/tmp/export/inner";
/// Where the client mounts it.
pub const MOUNTED: &str = "/tmp/nfs";
/// The other one there.
const MOUNTED_INNER: &str = "/tmp/nfs/inner";
/// Where the server is told what to do.
const CONTROL: &str = "/tmp/nfsd";
/// Whether there are leases.
const LEASES: &str = "/proc/sys/fs/leases-enable";
/// What must be loaded, each after what it needs.
const MODULES: &[&str] = &[
    "sunrpc",
    "auth_rpcgss",
    "grace",
    "lockd",
    "nfs_acl",
    "nfsd",
    "netfs",
    "fscache",
    "nfs",
    "dns_resolver",
    "nfsv4",
];
/// The client gives up in the end, which it never needs to; a busy machine may need seconds.
const OPTIONS: &str = "vers=4.2,addr=127.0.0.1,clientaddr=127.0.0.1,soft,timeo=300,retrans=1";
/// include/uapi/linux/nfsd/export.h: INSECURE_PORT, ASYNC, SECURITY_LABEL, NOSUBTREECHECK, FSID and CROSSMOUNT.
const FLAGS: u32 = 0x2 | 0x10 | 0x80 | 0x400 | 0x2000 | 0x4000;
/// What statfs(2) says of it (include/uapi/linux/magic.h: NFS_SUPER_MAGIC).
pub const NFS: u64 = 0x6969;
/// Seconds since 1970, later than any machine's clock.
const NEVER: u32 = i32::MAX.cast_unsigned();

/// What user space sees of [`crossing_or_automount`] where there is no NFS.
pub const WITHOUT_NFS: Seen = Seen("ok, without NFS");
/// What user space sees of an attribute that is no label, and of one that is where the server has none.
pub const NO_LABEL: Seen = Seen("EOPNOTSUPP: it is no label, or the server has none");
/// What user space sees of a server that says that it has no labels, whoever says so to the server.
pub const WITHOUT_LABELS: Seen = Seen("ok, and the server has no labels either way");

/// The server, until dropped.
struct Server {
    /// Outlives it, since it asks when a client goes.
    _daemon: Daemon,
}

impl Server {
    /// Starts it with the two exports.
    fn start() -> Result<Self, Errno> {
        modules::load(MODULES)?;
        for place in [EXPORT, MOUNTED, CONTROL] {
            fs::create_dir_all(place)?;
        }
        let server = Self { _daemon: Daemon::start()? };
        tmpfs(EXPORT)?;
        fs::create_dir_all(INNER)?;
        tmpfs(INNER)?;
        mount(Some("nfsd"), CONTROL, Some("nfsd"), MsFlags::empty(), None::<&str>)?;
        let cache = |name: &str, line: String| tell(&format!("/proc/net/rpc/{name}/channel"), &line);
        cache("auth.unix.ip", format!("nfsd 127.0.0.1 {NEVER} conform\n"))?;
        for (id, path) in [(0_u32, EXPORT), (1, INNER)] {
            // No user stands for another, and the handle has a number in it.
            cache("nfsd.export", format!("conform {path} {NEVER} {FLAGS} 65534 65534 {id}\n"))?;
            cache("nfsd.fh", format!("conform 1 \\x{:08x} {NEVER} {path}\n", id.swap_bytes()))?;
        }
        let control = |name: &str, words: &str| tell(&format!("{CONTROL}/{name}"), words);
        for version in ["-2\n", "-3\n"] {
            let _what_there_is_not = control("versions", version);
        }
        control("portlist", "tcp 2049\n")?;
        control("threads", "1\n")?;
        Ok(server)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _best_effort = umount2(MOUNTED, MntFlags::MNT_DETACH);
        let _best_effort = tell(&format!("{CONTROL}/threads"), "0\n");
        for place in [CONTROL, INNER, EXPORT] {
            let _best_effort = umount2(place, MntFlags::MNT_DETACH);
        }
    }
}

/// The exported file system, mounted by a client that keeps nothing back and remembers nothing, until dropped.
pub struct Mounted {
    _server: Server,
    /// The server's one thread.
    thread: u32,
    /// What was there of leases, which the server gives to clients if there are any.
    leases: String,
}

impl Mounted {
    /// Starts a server and mounts what it has.
    ///
    /// # Errors
    /// The errno of either.
    pub fn new() -> Result<Self, Errno> {
        let server = Server::start()?;
        let leases = fs::read_to_string(LEASES)?;
        let thread = thread_of("nfsd")?;
        let mounted = Self { _server: server, thread, leases };
        tell(LEASES, "0")?;
        join(&format!("{OPTIONS},noac,lookupcache=none"))?;
        Ok(mounted)
    }

    /// Does `act` with the server's thread named as target.
    pub fn during<T>(&self, arm: Arm, act: impl FnOnce() -> T) -> T {
        arm.during_process(self.thread, act)
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _best_effort = tell(LEASES, &self.leases);
    }
}

/// The number of the process that has this name, of which there is one.
fn thread_of(name: &str) -> Result<u32, Errno> {
    let numbers =
        fs::read_dir("/proc")?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let is_it =
        |number: &u32| fs::read_to_string(format!("/proc/{number}/comm")).is_ok_and(|it| it.trim() == name);
    let mut found = numbers.filter(is_it);
    match (found.next(), found.next()) {
        (Some(number), None) => Ok(number),
        (None, _) | (Some(_), Some(_)) => Err(Errno::ENOENT),
    }
}

fn tmpfs(place: &str) -> Result<(), Errno> {
    mount(Some("conform"), place, Some("tmpfs"), MsFlags::empty(), Some("size=1m")).map_err(Errno::from)
}

/// Writes to a file of the kernel's, at once.
fn tell(path: &str, words: &str) -> Result<(), Errno> {
    let mut file = OpenOptions::new().write(true).open(path)?;
    file.write_all(words.as_bytes()).map_err(Errno::from)
}

fn join(options: &str) -> Result<(), Errno> {
    mount(Some("127.0.0.1:/"), MOUNTED, Some("nfs4"), MsFlags::empty(), Some(options)).map_err(Errno::from)
}

fn leave() -> Result<(), Errno> {
    umount2(MOUNTED, MntFlags::empty()).map_err(Errno::from)
}

/// `mount(2)` of the exported file system.
///
/// # Errors
/// The errno of starting the server.
pub fn mounting() -> Result<Act, Errno> {
    let server = Server::start()?;
    act(move |arm: Arm| {
        let _held = &server;
        arm.during(|| join(OPTIONS))?;
        leave()
    })
}

/// The same, seen by the server, to which the root is an inode with this number. It asks whether the file system has
/// labels, and whoever says that there are none, whatever the errno, has said the same.
///
/// # Errors
/// As [`mounting`]; that of finding out the number.
pub fn served() -> Result<Act, Errno> {
    let server = Server::start()?;
    let inode = known::inode(EXPORT).ok_or(Errno::ENOENT)?;
    act_seen(move |arm: Arm| {
        let _held = &server;
        arm.during_mark(inode, || join(OPTIONS))?;
        leave()?;
        Ok(WITHOUT_LABELS)
    })
}

/// `stat(2)` of what the other file system has, which mounts it.
///
/// # Errors
/// As [`mounting`]; that of mounting.
pub fn crossing() -> Result<Act, Errno> {
    let server = Server::start()?;
    join(OPTIONS)?;
    act(move |arm: Arm| {
        let _held = &server;
        let seen = arm.during(|| fs::metadata(format!("{MOUNTED_INNER}/.")).map(drop));
        let left = umount2(MOUNTED_INNER, MntFlags::empty());
        seen.map_err(Errno::from).and_then(|()| left.map_err(Errno::from))
    })
}

/// The same where there is NFS, else what mounts without a network.
///
/// # Errors
/// Those of the one that there is.
pub fn crossing_or_automount() -> Result<Act, Errno> {
    match crossing() {
        // No such file system.
        Err(errno) if errno.raw() == libc::ENODEV => {
            let mut automount = mounts::automount()?;
            act_seen(move |arm: Arm| automount(arm).map(|_| WITHOUT_NFS))
        }
        ready => ready,
    }
}

/// The magic number of the file system in which [`crossing_or_automount`] mounts another: that of NFS or of debugfs
/// (include/uapi/linux/magic.h).
#[must_use]
pub fn crossed() -> Option<u64> {
    let mounted = statfs(MOUNTED).is_ok_and(|it| u64::try_from(it.filesystem_type().0) == Ok(NFS));
    Some(if mounted { NFS } else { 0x6462_6720 })
}

/// `setxattr(2)` of an attribute that could be a label.
///
/// # Errors
/// As [`mounting`]; that of mounting.
pub fn labelling() -> Result<Act, Errno> {
    let server = Server::start()?;
    join(OPTIONS)?;
    act_seen(move |arm: Arm| {
        let _held = &server;
        match arm.during(|| xattrs::set_at(c"/tmp/nfs", c"security.conform", b"label")) {
            Err(errno) if errno.raw() == libc::EOPNOTSUPP => Ok(NO_LABEL),
            other => other.map(|()| OK),
        }
    })
}
