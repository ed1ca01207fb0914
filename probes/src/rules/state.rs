//! What answers depend on besides the program: a sysctl, and whether a hook's function has a trampoline.

use crate::errno::Errno;
use crate::session::{Ended, Session};
use std::fs;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// The values of `kernel.unprivileged_bpf_disabled` that answers may depend on. A kernel begins with the one that it was
/// built with (CONFIG_BPF_UNPRIV_DEFAULT_OFF), and never gives up the third, 1.
pub(crate) const UNPRIVILEGED_DISABLED: [Disabled; 2] = [Disabled("0"), Disabled("2")];

/// A value of that sysctl.
#[derive(Clone, Copy)]
pub(crate) struct Disabled(pub(crate) &'static str);

/// The value that the sysctl is to have again when this is dropped.
pub(crate) struct Restored(Option<String>);

impl Disabled {
    const PATH: &str = "/proc/sys/kernel/unprivileged_bpf_disabled";

    /// Sets the sysctl, which takes CAP_SYS_ADMIN.
    pub(crate) fn set(self) -> Result<Restored, Ended> {
        let could_not = |error| Ended::could_not("set kernel.unprivileged_bpf_disabled", error);
        let before = fs::read_to_string(Self::PATH).map_err(could_not)?.trim().to_owned();
        if before == self.0 {
            return Ok(Restored(None));
        }
        fs::write(Self::PATH, self.0).map_err(|error| match Errno::from(error) {
            // 2 is known since 5.13, and to some older kernels that are kept up.
            Errno::EINVAL => {
                Ended::Absent(format!("the value {} of kernel.unprivileged_bpf_disabled", self.0))
            }
            errno => Ended::could_not("set kernel.unprivileged_bpf_disabled", errno),
        })?;
        Ok(Restored(Some(before)))
    }
}

impl Drop for Restored {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            let _ = fs::write(Disabled::PATH, before);
        }
    }
}

/// A hook that no family keeps a program on, and no probe outside of `hooks`, which comes last, loads one for: nobody has
/// made its function a trampoline.
pub(crate) const BARE: &str = "file_fcntl";

/// Loads something for the hook [`BARE`] while it has no trampoline. What a probe has left there goes a little after its
/// programs, and this answer's own program keeps it: where the answer is yes, it is asked again after a pause in which a
/// trampoline goes, and the last answer counts. A kernel that looks at the function refuses (5.7 kernel/bpf/verifier.c,
/// check_attach_btf_id).
pub(crate) fn without_trampoline(
    held: bool,
    mut load: impl FnMut() -> Result<OwnedFd, Ended>,
) -> Result<OwnedFd, Ended> {
    if held {
        return Err(Ended::CouldNotTell(format!("programs of another probe are still on {BARE}")));
    }
    for _ in 0..5 {
        match load() {
            Ok(program) => drop(program),
            refused => return refused,
        }
        std::thread::sleep(Duration::from_secs(1));
    }
    load()
}

/// Whether a probe before has left programs on [`BARE`].
pub(crate) fn bare_is_held(session: &Session<'_>) -> bool {
    session.held().iter().any(|id| id.strip_prefix("hooks/") == Some(BARE))
}
