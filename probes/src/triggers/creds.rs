//! Credentials, capabilities and user namespaces.

use super::children::in_child;
use super::{Act, Arm, act, syscall};
use crate::errno::Errno;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setegid};

/// include/uapi/linux/capability.h: _LINUX_CAPABILITY_VERSION_3.
const VERSION: u32 = 0x2008_0522;

/// `struct __user_cap_header_struct` and two `struct __user_cap_data_struct`.
#[repr(C)]
struct Capabilities {
    head: [u32; 2],
    data: [u32; 6],
}

impl Capabilities {
    fn get() -> Result<Self, Errno> {
        let mut all = Self { head: [VERSION, 0], data: [0; 6] };
        let args = [(&raw mut all.head).addr(), (&raw mut all.data).addr(), 0, 0, 0, 0];
        // SAFETY: a header and, as its version asks for, two data structures.
        unsafe { syscall(libc::SYS_capget, args) }.map(|_| all)
    }

    fn set(&self) -> Result<(), Errno> {
        let args = [(&raw const self.head).addr(), (&raw const self.data).addr(), 0, 0, 0, 0];
        // SAFETY: as in `get`.
        unsafe { syscall(libc::SYS_capset, args) }.map(drop)
    }
}

/// Gives up every capability of this process but `keep`, from the effective, permitted and inheritable sets.
///
/// # Errors
/// The errno of changing them.
pub fn drop_capabilities(keep: &[u32]) -> Result<(), Errno> {
    let mut words = [0_u32; 2];
    for &capability in keep {
        if let Some(word) = words.get_mut(capability as usize / 32) {
            *word |= 1 << (capability % 32);
        }
    }
    let [low, high] = words;
    Capabilities { head: [VERSION, 0], data: [low, low, 0, high, high, 0] }.set()
}

/// Does `body` while this thread has these effective capabilities and no others; it gets back afterwards what it had. The
/// kernel asks for no others than the effective ones (7.3 security/commoncap.c, cap_capable).
///
/// # Errors
/// The errno of reading or changing them.
pub fn with_only<T>(keep: &[u32], body: impl FnOnce() -> T) -> Result<T, Errno> {
    let held = Capabilities::get()?;
    let mut fewer = Capabilities { head: held.head, data: held.data };
    for (word, place) in [(0, 0), (1, 3)] {
        let kept = keep.iter().filter(|&&capability| capability / 32 == word);
        if let Some(effective) = fewer.data.get_mut(place) {
            *effective &= kept.fold(0, |bits, &capability| bits | 1 << (capability % 32));
        }
    }
    fewer.set()?;
    let result = body();
    held.set()?;
    Ok(result)
}

/// Does `body` while this thread lacks an effective capability, which it gets back afterwards.
///
/// # Errors
/// The errno of reading or changing them.
pub fn without_capability<T>(capability: u32, body: impl FnOnce() -> T) -> Result<T, Errno> {
    let held = Capabilities::get()?;
    let mut fewer = Capabilities { head: held.head, data: held.data };
    // Effective, permitted, inheritable of numbers below 32; the same again of those from 32 on.
    if let Some(effective) = fewer.data.get_mut(if capability < 32 { 0 } else { 3 }) {
        *effective &= !(1 << (capability % 32));
    }
    fewer.set()?;
    let result = body();
    held.set()?;
    Ok(result)
}

/// The effective group of [`take_group`].
pub const GROUP: u32 = 79;

/// Takes an effective group by which a program knows this process's credentials: 0, the user's number, is also what it
/// would read where nothing is.
///
/// # Errors
/// The errno of changing it.
pub fn take_group() -> Result<(), Errno> {
    setegid(Gid::from_raw(GROUP)).map_err(Errno::from)
}

/// `capget(2)`.
///
/// # Errors
/// None.
pub fn capget() -> Result<Act, Errno> {
    act(|arm: Arm| arm.during(Capabilities::get))
}

/// `capset(2)` to what is set already.
///
/// # Errors
/// The errno of reading them, of [`take_group`].
pub fn capset() -> Result<Act, Errno> {
    take_group()?;
    let all = Capabilities::get()?;
    act(move |arm: Arm| arm.during(|| all.set()))
}

/// `setresuid(2)` of a child.
///
/// # Errors
/// None.
pub fn setuid() -> Result<Act, Errno> {
    act(|arm: Arm| {
        in_child(|| {
            let other = Uid::from_raw(1);
            arm.during(|| nix::unistd::setresuid(other, other, other).map_err(Errno::from))
        })
    })
}

/// `unshare(2)` of a child's user namespace.
///
/// # Errors
/// That of [`take_group`].
pub fn new_user_namespace() -> Result<Act, Errno> {
    take_group()?;
    act(|arm: Arm| in_child(|| arm.during(|| unshare(CloneFlags::CLONE_NEWUSER).map_err(Errno::from))))
}

/// `sethostname(2)` to what it is already, which takes `CAP_SYS_ADMIN`.
///
/// # Errors
/// The errno of reading it.
pub fn privileged() -> Result<Act, Errno> {
    let name = nix::unistd::gethostname()?;
    act(move |arm: Arm| arm.during(|| nix::unistd::sethostname(&name).map_err(Errno::from)))
}

/// `setresgid(2)` of a child.
///
/// # Errors
/// None.
pub fn setgid() -> Result<Act, Errno> {
    act(|arm: Arm| {
        in_child(|| {
            let other = Gid::from_raw(1);
            arm.during(|| nix::unistd::setresgid(other, other, other).map_err(Errno::from))
        })
    })
}

/// `setgroups(2)` of a child.
///
/// # Errors
/// None.
pub fn setgroups() -> Result<Act, Errno> {
    act(|arm: Arm| {
        in_child(|| arm.during(|| nix::unistd::setgroups(&[Gid::from_raw(1)]).map_err(Errno::from)))
    })
}

/// The end of a child's credentials, some time after its own. Names the user that it has become, each time another.
///
/// # Errors
/// None.
pub fn end() -> Result<Act, Errno> {
    let mut user = 70_000;
    act(move |arm: Arm| {
        user += 1;
        let other = Uid::from_raw(user);
        arm.freeing(u64::from(user), || {
            in_child(|| nix::unistd::setresuid(other, other, other).map_err(Errno::from))
        })
    })
}

/// Sets the real ids; the effective ones stay 0, and with them the capabilities.
pub(crate) fn become_real(uid: u32, gid: u32) -> Result<(), Errno> {
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::setresgid(gid, 0, 0) })?;
    // SAFETY: plain numbers.
    Errno::result(unsafe { libc::setresuid(uid, 0, 0) }).map(drop)
}
