//! The daemon that remembers an NFS server's clients for it, as nfsdcld does, and knows of none.
//!
//! With it the server has nobody to wait for, and lets files be opened at once. Without one it looks for it for a second, and
//! whoever opens a file then waits for 90 more (7.3 fs/nfsd/nfs4recover.c, `nfsd4_cld_tracking_init`; fs/nfsd/nfs4state.c,
//! `nfs4_state_start_net`).

use crate::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Where the kernel asks.
const PIPES: &str = "/tmp/pipefs";
/// The file that it makes for it.
const PIPE: &str = "/tmp/pipefs/nfsd/cld";
/// `struct cld_msg` (7.3 include/uapi/linux/nfsd/cld.h): version, command, status and a number of the question's own, then
/// what the command is about, of which the longest is a name with its length.
const MESSAGE_BYTES: usize = 8 + 2 + 1024;
/// `Cld_GetVersion` (the same file).
const GET_VERSION: u8 = 5;

/// The daemon, until dropped.
pub(super) struct Daemon {
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Daemon {
    /// Starts it, to answer as soon as it is asked.
    pub(super) fn start() -> Result<Self, Errno> {
        fs::create_dir_all(PIPES)?;
        mount(Some("rpc_pipefs"), PIPES, Some("rpc_pipefs"), MsFlags::empty(), None::<&str>)?;
        let over = Arc::new(AtomicBool::new(false));
        let until = Arc::clone(&over);
        let thread = std::thread::spawn(move || {
            let mut pipe = None;
            while !until.load(Ordering::Relaxed) {
                match &mut pipe {
                    None => {
                        pipe = OpenOptions::new().read(true).write(true).open(PIPE).ok();
                        std::thread::sleep(Duration::from_millis(1));
                    }
                    Some(file) => {
                        let _the_kernel_gives_up_by_itself = answer(file);
                    }
                }
            }
        });
        Ok(Self { over, thread: Some(thread) })
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _it_has_nothing_to_say = thread.join();
        }
        let _best_effort = umount2(PIPES, MntFlags::MNT_DETACH);
    }
}

/// Answers a question, if one comes within a moment: yes, and of the versions the first.
fn answer(pipe: &mut File) -> Result<(), Errno> {
    let mut wait = [PollFd::new(pipe.as_fd(), PollFlags::POLLIN)];
    if poll(&mut wait, PollTimeout::from(10_u8))? == 0 {
        return Ok(());
    }
    let mut message = [0; MESSAGE_BYTES];
    let length = pipe.read(&mut message)?;
    let Some(message) = message.get_mut(..length).filter(|it| it.len() > 8) else { return Ok(()) };
    message[2..4].fill(0);
    if message[1] == GET_VERSION {
        message[8] = 1;
    }
    pipe.write_all(message).map_err(Errno::from)
}
