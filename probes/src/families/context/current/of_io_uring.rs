//! Who current is when a ring of io_uring opens or reads a file: the process itself, a worker, or the thread that polls the
//! ring.

use super::{ASKER, OWNER, REGISTERED, Tell, make, watching};
use crate::errno::Errno;
use crate::session::{Ended, Session, Stop};
use crate::triggers::Arm;
use crate::triggers::creds::become_real;
use crate::triggers::uring::{ASYNC, FIXED_FILE, OPENAT, READ, Request, Ring};
use std::ffi::CStr;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;

/// The file, in its folder, below whose descriptor it is opened: a thread of the kernel may have another root.
const FOLDER: &str = "/tmp";
const FILE: &CStr = c"asked-for";
const PATH: &str = "/tmp/asked-for";

/// How a request is made.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Without a ring.
    SystemCall,
    /// As a ring does it by itself.
    Ring,
    /// With `IOSQE_ASYNC`.
    Worker,
    /// In a ring with `IORING_SETUP_SQPOLL`.
    Poller,
    /// With credentials that were registered.
    Credentials,
}

const WAYS: &[(&str, u8, By)] = &[
    ("open-by-system-call", OPENAT, By::SystemCall),
    ("open", OPENAT, By::Ring),
    ("open-by-a-worker", OPENAT, By::Worker),
    ("open-by-the-polling-thread", OPENAT, By::Poller),
    ("open-with-registered-credentials", OPENAT, By::Credentials),
    ("read-by-system-call", READ, By::SystemCall),
    ("read", READ, By::Ring),
    ("read-by-a-worker", READ, By::Worker),
    ("read-by-the-polling-thread", READ, By::Poller),
    ("read-with-registered-credentials", READ, By::Credentials),
];

/// The probe.
pub(in super::super) fn of_io_uring(session: &mut Session<'_>) -> Result<(), Stop> {
    watching(session, |session, watch| {
        for &(name, operation, by) in WAYS {
            session.case(name, |attempt| {
                let mut asker =
                    Asker::new(operation, by).map_err(|errno| Ended::could_not("make it ready", errno))?;
                watch.watch(attempt, Tell::NoFileSystemUser, |arm| asker.ask(arm))
            })?;
        }
        Ok(())
    })
}

/// What asks.
struct Asker {
    ring: Option<Ring>,
    request: Request,
    /// The file that is read, and the folder below which it is opened.
    file: File,
    _folder: File,
    /// Shorter than the file: of a read that gives less than it was asked for, a ring asks once more.
    buffer: Box<[u8; 2]>,
}

impl Asker {
    fn new(operation: u8, by: By) -> Result<Self, Errno> {
        make(PATH)?;
        let (file, folder) = (File::open(PATH)?, File::open(FOLDER)?);
        let mut request = Request { operation, ..Request::default() };
        let mut buffer = Box::new([0; 2]);
        if operation == OPENAT {
            request.fd = folder.as_raw_fd();
            request.address = FILE.as_ptr().addr();
        } else {
            // A polling thread takes no other file before 5.11.
            request.how = FIXED_FILE;
            request.address = buffer.as_mut_ptr().addr();
            request.length = u32::try_from(buffer.len()).unwrap_or(0);
        }
        if by == By::Worker {
            request.how |= ASYNC;
        }
        let registers = by == By::Credentials;
        let (user, group) = if registers { REGISTERED } else { ASKER };
        become_real(user, group)?;
        let ring = match by {
            By::SystemCall => None,
            By::Poller => Some(Ring::polled()?),
            By::Ring | By::Worker | By::Credentials => Some(Ring::new()?),
        };
        if let Some(ring) = &ring {
            ring.register_file(&file)?;
            if registers {
                request.personality = ring.register_credentials()?;
            }
        }
        become_real(ASKER.0, ASKER.1)?;
        Ok(Self { ring, request, file, _folder: folder, buffer })
    }

    /// Does it once, and puts back what it leaves.
    fn ask(&mut self, arm: Arm) -> Result<(), Errno> {
        let reads = self.request.operation == READ;
        let result = arm.during_mark(u64::from(OWNER), || match &mut self.ring {
            Some(ring) => ring.request(self.request),
            None if reads => self.file.read(&mut *self.buffer).map(|_| 0).map_err(Errno::from),
            None => File::open(PATH).map(|_| 0).map_err(Errno::from),
        });
        if self.ring.is_some() && !reads {
            let fd = i32::try_from(result?).map_err(|_| Errno::EOVERFLOW)?;
            // SAFETY: the kernel has just made this descriptor for this process.
            Errno::result(unsafe { libc::close(fd) })?;
            return Ok(());
        }
        result.map(drop)
    }
}

impl Drop for Asker {
    fn drop(&mut self) {
        let _ = become_real(0, 0);
    }
}
