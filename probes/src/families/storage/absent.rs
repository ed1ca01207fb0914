//! Storage where bpf is not among the active LSMs, so that no program is asked and the kernel prepares nothing for labels.

use super::kinds::{KINDS, Kind, Object, map};
use super::{key_of, must};
use crate::bpf;
use crate::errno::Errno;
use crate::families::program::see_whether_active;
use crate::record::Phase;
use crate::session::{Attempt, Ended, Session, Stop};
use std::os::fd::OwnedFd;

/// What user space stores.
const STORED: u64 = 42;

pub(super) fn by_descriptor(session: &mut Session<'_>) -> Result<(), Stop> {
    let list = session.kernel().facts().lsm.clone();
    session.case("order", |attempt| {
        see_whether_active(attempt, &list)?;
        attempt.see("order", list.as_str());
        Ok(())
    })?;
    for kind in KINDS {
        session.case(kind.name, |attempt| of(attempt, kind))?;
    }
    Ok(())
}

/// Stores, reads and deletes a value. It is deleted before the object ends, or the map: where another LSM has a place in
/// the object, what the kernel takes for bpf's is 8 bytes from its beginning, in a head for RCU that nobody uses as long as
/// the inode lives (6.14 security/security.c, lsm_set_blob_sizes; include/linux/bpf_lsm.h, bpf_inode), and nobody frees the
/// value with the object (security/bpf/hooks.c, bpf_lsm_hooks).
fn of(attempt: &mut Attempt<'_>, kind: &'static Kind) -> Result<(), Ended> {
    let (map, _btf) = map(attempt, kind)?;
    let object = object(kind)?;
    let key = key_of(&object.fd);
    attempt.at(Phase::Read);
    attempt.outcome("user space reads before", &read(&map, &key));
    let stored = bpf::map_update(&map, &key, &STORED.to_ne_bytes(), bpf::BPF_ANY);
    attempt.outcome("user space stores", &stored);
    super::see_read(attempt, "user space reads", &read(&map, &key), STORED);
    attempt.outcome("user space deletes", &bpf::map_delete(&map, &key));
    attempt.outcome("user space reads afterwards", &read(&map, &key));
    Ok(())
}

fn read(map: &OwnedFd, key: &[u8; 4]) -> Result<u64, Errno> {
    let mut value = [0; 8];
    bpf::map_lookup(map, key, &mut value)?;
    Ok(u64::from_ne_bytes(value))
}

/// An object of this kind. The inode is a pipe's, which no LSM measures or labels: what another LSM has in its place is as
/// it was when the inode was made.
fn object(kind: &Kind) -> Result<Object, Ended> {
    if kind.name == "inode" {
        let (fd, _) = must("make a pipe", nix::unistd::pipe().map_err(Errno::from))?;
        return Ok(Object { fd, cgroup: None });
    }
    (kind.object)()
}
