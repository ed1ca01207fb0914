//! What a program of a cgroup is attached to that is no cgroup of version 2, or none any more.

use super::bench::{NOTHING, inside, program};
use crate::bpf::{self, BPF_F_ALLOW_MULTI, BPF_LSM_CGROUP};
use crate::errno::Errno;
use crate::record::Phase;
use crate::rules::{Cgroup, ROOT_CGROUP, SESSION};
use crate::session::{Attempt, Ended, Session, Stop};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};

/// Where a hierarchy of version 1 is mounted.
const VERSION_1: &str = "/tmp/version-1";

pub(super) fn all(session: &mut Session<'_>) -> Result<(), Stop> {
    for (name, open) in OPENED {
        session.case(name, |attempt| {
            let (cgroup, program) = ready(attempt)?;
            let target = open()?;
            attach(attempt, &program, target.as_raw_fd(), &cgroup);
            Ok(())
        })?;
    }
    session.case("minus-1", |attempt| {
        let (cgroup, program) = ready(attempt)?;
        attach(attempt, &program, -1, &cgroup);
        Ok(())
    })?;
    session.case("a-cgroup-that-was-removed", |attempt| {
        let (cgroup, program) = ready(attempt)?;
        let gone = Cgroup::new("gone")?;
        gone.remove().map_err(|errno| Ended::could_not("remove a cgroup", errno))?;
        attach(attempt, &program, gone.as_fd().as_raw_fd(), &cgroup);
        Ok(())
    })?;
    session.case("a-cgroup-of-version-1", |attempt| {
        let (cgroup, program) = ready(attempt)?;
        let _mounted = Version1::mount()?;
        let target = open(VERSION_1)?;
        attach(attempt, &program, target.as_raw_fd(), &cgroup);
        Ok(())
    })
}

/// Gives a descriptor.
type Open = fn() -> Result<OwnedFd, Ended>;

/// What has a path. The first is a control.
const OPENED: [(&str, Open); 3] = [
    ("the-root", || open(ROOT_CGROUP)),
    ("a-file-of-the-root", || open(&format!("{ROOT_CGROUP}/cgroup.procs"))),
    ("a-folder-of-another-file-system", || open("/tmp")),
];

fn open(path: &str) -> Result<OwnedFd, Ended> {
    let opened = File::open(path).map_err(|error| Ended::could_not(&format!("open {path}"), error))?;
    Ok(opened.into())
}

/// A cgroup that takes the program, and the program, which allows.
fn ready(attempt: &mut Attempt<'_>) -> Result<(Cgroup, OwnedFd), Ended> {
    let (cgroup, chain) = inside(attempt, SESSION)?;
    // Nobody is named in its page by now, so that it allows whoever asks.
    let program = attempt.load_lsm(&program(&SESSION, &chain, 0, NOTHING))?;
    Ok((cgroup, program))
}

/// Attaches the program to the target in both ways, and takes it off again; then to a cgroup, which is the control.
fn attach(attempt: &mut Attempt<'_>, program: &OwnedFd, target: RawFd, cgroup: &Cgroup) {
    attempt.at(Phase::Attach);
    let usual = cgroup.as_fd().as_raw_fd();
    for (of, fd) in [("", target), (", of a cgroup that is there", usual)] {
        let attached = bpf::prog_attach_raw(program, fd, BPF_LSM_CGROUP, BPF_F_ALLOW_MULTI, None);
        attempt.outcome(&format!("BPF_PROG_ATTACH{of}"), &attached);
        if attached.is_ok() {
            attempt
                .outcome(&format!("BPF_PROG_DETACH{of}"), &bpf::prog_detach_raw(program, fd, BPF_LSM_CGROUP));
        }
        let linked = bpf::link_create_raw(program, fd, BPF_LSM_CGROUP, 0, 0);
        attempt.outcome(&format!("BPF_LINK_CREATE{of}"), &linked);
    }
}

/// A hierarchy of version 1 with a name and no controllers, which takes none from version 2; unmounted when it is dropped.
struct Version1;

impl Version1 {
    fn mount() -> Result<Self, Ended> {
        let could_not = |error: &dyn std::fmt::Display| Ended::could_not("mount cgroups of version 1", error);
        fs::create_dir_all(VERSION_1).map_err(|error| could_not(&error))?;
        let mounted =
            mount(Some("cgroup"), VERSION_1, Some("cgroup"), MsFlags::empty(), Some("none,name=conform"));
        match mounted {
            Ok(()) => Ok(Self),
            Err(nix::Error::ENODEV) => Err(Ended::Absent("cgroups of version 1".into())),
            Err(errno) => Err(could_not(&Errno::from(errno))),
        }
    }
}

impl Drop for Version1 {
    fn drop(&mut self) {
        let _ = umount2(VERSION_1, MntFlags::MNT_DETACH);
    }
}
