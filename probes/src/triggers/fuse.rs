//! A file system in user space, whose server is a child of the probe.

use super::children::{Idle, spawn};
use super::{Act, Seen, act_seen, modules};
use crate::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsRawFd;

const PATH: &str = "/tmp/fuse";
/// include/uapi/linux/fuse.h: FUSE_LOOKUP, FUSE_FORGET, FUSE_MKDIR, FUSE_INIT.
const LOOKUP: u32 = 1;
const FORGET: u32 = 2;
const MKDIR: u32 = 9;
const INIT: u32 = 26;
/// The same: FUSE_INIT_EXT, and FUSE_SECURITY_CTX among the flags that this announces.
const MORE_FLAGS: u32 = 1 << 30;
const LABELS: u32 = 1;

/// `mkdir(2)` where the server wants a label for what is made. It has no space.
///
/// # Errors
/// The errno of opening the device or of mounting.
pub fn make_directory() -> Result<Act, Errno> {
    modules::load(&["fuse"])?;
    let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
    let _ = umount2(PATH, MntFlags::MNT_DETACH); // an earlier one's, whose server is gone
    std::fs::create_dir_all(PATH)?;
    let options = format!("fd={},rootmode=40000,user_id=0,group_id=0", device.as_raw_fd());
    mount(Some("conform"), PATH, Some("fuse"), MsFlags::empty(), Some(options.as_str()))?;
    let server = Idle::of(spawn(|| serve(&device))?);
    drop(device); // with the server's end the file system's comes
    act_seen(move |arm| {
        let _server = &server;
        match arm.during(|| std::fs::create_dir("/tmp/fuse/made")).map_err(Errno::from) {
            Err(Errno::ENOSPC) => Ok(Seen("ENOSPC: what the server answers")),
            Err(Errno::EDQUOT) => Ok(WITHOUT_CONTEXT),
            other => other.map(|()| super::OK),
        }
    })
}

/// What user space sees where FUSE asks no module about a new folder (until 5.16): the kernel does not offer it to servers.
pub(crate) const WITHOUT_CONTEXT: Seen =
    Seen("EDQUOT, which the server answers to a FUSE that asks no module about a new folder");

/// Answers until nobody asks any more. How it refuses a folder tells whether FUSE asks modules about one.
fn serve(mut device: &File) -> Result<(), Errno> {
    let mut request = vec![0_u8; 1 << 18];
    let mut refusal = libc::EDQUOT;
    loop {
        let length = device.read(&mut request)?;
        let word = |at: usize| request.get(at..length)?.first_chunk().map(|bytes| u32::from_ne_bytes(*bytes));
        // struct fuse_in_header: length, opcode, unique.
        let (Some(opcode), Some(unique)) = (word(4), request.get(8..16)) else { return Ok(()) };
        let (errno, body) = match opcode {
            FORGET => continue,
            INIT => {
                // struct fuse_init_in, behind the head: major, minor, max_readahead, flags, and flags2 since 7.36.
                if word(56).is_some_and(|flags| flags & LABELS != 0) {
                    refusal = libc::ENOSPC;
                }
                (0, init())
            }
            LOOKUP => (libc::ENOENT, Vec::new()),
            MKDIR => (refusal, Vec::new()),
            _ => (libc::ENOSYS, Vec::new()),
        };
        // struct fuse_out_header: length, error, unique.
        let mut answer = u32::try_from(16 + body.len()).unwrap_or(16).to_ne_bytes().to_vec();
        answer.extend((-errno).to_ne_bytes());
        answer.extend(unique);
        answer.extend(body);
        device.write_all(&answer)?;
    }
}

/// `struct fuse_init_out`.
fn init() -> Vec<u8> {
    let mut words = [0_u32; 16];
    (words[0], words[1]) = (7, 36); // version
    words[3] = MORE_FLAGS;
    words[5] = 4096; // max_write
    words[8] = LABELS;
    words.into_iter().flat_map(u32::to_ne_bytes).collect()
}
