//! Who current is when a client of the kernel's NFS server opens or reads a file: the client first or last, and in between
//! the server's thread. Both have the file's owner before them, by which the programs know it.

use super::{ASKER, OWNER, Tell, make, watching};
use crate::errno::Errno;
use crate::session::{Ended, Session, Stop};
use crate::triggers::Arm;
use crate::triggers::creds::become_real;
use crate::triggers::nfs::{EXPORT, MOUNTED, Mounted};
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use std::fs::File;
use std::io::Read;

/// What a client does.
type Way = fn(&mut Client, Arm) -> Result<(), Errno>;
/// The cases, each with a file of its own each time, so that the client remembers nothing.
const WAYS: &[(&str, Way)] = &[("open", Client::open), ("read", Client::read)];

/// The probe.
pub(in super::super) fn of_nfs(session: &mut Session<'_>) -> Result<(), Stop> {
    watching(session, |session, watch| {
        for &(name, ask) in WAYS {
            session.case(name, |attempt| {
                let mut client = Client::new().map_err(|errno| Ended::could_not("make it ready", errno))?;
                watch.watch(attempt, Tell::FileSystemUser, |arm| ask(&mut client, arm))
            })?;
        }
        Ok(())
    })
}

/// A client that is another user than root, in both respects.
struct Client {
    _mounted: Mounted,
    nth: u32,
}

impl Client {
    fn new() -> Result<Self, Errno> {
        let client = Self { _mounted: Mounted::new()?, nth: 0 };
        become_real(ASKER.0, ASKER.1)?;
        setfsgid(Gid::from_raw(ASKER.1));
        setfsuid(Uid::from_raw(ASKER.0));
        Ok(client)
    }

    /// Another file, by the name that the client has for it.
    fn file(&mut self) -> Result<String, Errno> {
        self.nth += 1;
        let kept = format!("{EXPORT}/asked-for-{}", self.nth);
        setfsuid(Uid::from_raw(0));
        let made = make(&kept);
        setfsuid(Uid::from_raw(ASKER.0));
        made?;
        Ok(format!("{MOUNTED}/asked-for-{}", self.nth))
    }

    fn open(&mut self, arm: Arm) -> Result<(), Errno> {
        let path = self.file()?;
        arm.during_mark(u64::from(OWNER), || File::open(path)).map(drop).map_err(Errno::from)
    }

    fn read(&mut self, arm: Arm) -> Result<(), Errno> {
        let mut file = File::open(self.file()?)?;
        arm.during_mark(u64::from(OWNER), || file.read(&mut [0; 2])).map(drop).map_err(Errno::from)
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        setfsuid(Uid::from_raw(0));
        setfsgid(Gid::from_raw(0));
        let _best_effort = become_real(0, 0);
    }
}
