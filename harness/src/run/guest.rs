//! Building the guest: the crates `conform-boot` and `probes` as a static binary each.
//!
//! The harness calls cargo itself, so that one command does everything and a probe's edit is never forgotten. The
//! build has a target folder of its own: the outer cargo holds the lock of the other one while it compiles. It runs behind
//! a guard, as cargo's compilers would go on without it.

use crate::child::{ChildError, Command};
use crate::guard;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the build may take, which compiles everything the first time, and waits for another one in the same folder.
const DEADLINE: Duration = Duration::from_secs(1800);
/// All that the compiler says, and not its end alone; more than this nobody reads.
const WORDS: usize = 1 << 20;

/// The target that a static glibc binary is built for. Naming it keeps the flags away from build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Cargo could not be started; the guard's words are in the error.
    #[error("there is no cargo to build the guest with ({0}); run through cargo, or set CARGO to it")]
    NoCargo(String),
    /// The build did not come to an end, or could not be begun.
    #[error("the guest was not built; if another cargo holds target/guest, wait for its end, then run again")]
    Build(#[from] ChildError),
    /// The code does not compile; the compiler's words are in the error.
    #[error("the guest does not build:\n{0}")]
    Code(String),
}

impl crate::exit::ExitCode for GuestError {
    fn exit_code(&self) -> u8 {
        crate::exit::INFRASTRUCTURE
    }
}

/// The guest's two stages.
#[derive(Clone, Debug)]
pub struct Guest {
    /// The first, `/init` of the initramfs.
    pub boot: PathBuf,
    /// The second, handed over when the first waits.
    pub guest: PathBuf,
}

/// Builds the guest in `workspace`. Does nothing when it is up to date. `conform` is this program, which guards the build.
///
/// # Errors
/// [`GuestError`].
pub fn build(workspace: &Path, conform: &Path) -> Result<Guest, GuestError> {
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build_with(&cargo, workspace, conform, DEADLINE)
}

fn build_with(
    cargo: &Path,
    workspace: &Path,
    conform: &Path,
    deadline: Duration,
) -> Result<Guest, GuestError> {
    let target_dir = workspace.join("target").join("guest");
    let built = Command::guarded(conform, cargo, "building the guest", deadline)
        .current_dir(workspace)
        .args([
            "build",
            "--package",
            "conform-boot",
            "--package",
            "probes",
            "--bins",
            "--profile",
            "guest",
            "--target",
            TARGET,
        ])
        .args(["--quiet", "--color", "never", "--locked", "--target-dir"])
        .arg(&target_dir)
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        // Set by the outer cargo for the harness; the inner one must not take them for its own.
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .env_remove("CARGO_TARGET_DIR")
        .tail(WORDS)
        .run();
    built.map_err(|error| match error {
        ChildError::Failed { status, tail, .. } if status.code() == Some(guard::NOT_STARTED) => {
            GuestError::NoCargo(tail.trim().to_owned())
        }
        ChildError::Failed { tail, .. } => GuestError::Code(tail),
        other @ (ChildError::Start { .. }
        | ChildError::NotFound { .. }
        | ChildError::Log { .. }
        | ChildError::Deadline { .. }
        | ChildError::Wait { .. }) => GuestError::Build(other),
    })?;
    let built = target_dir.join(TARGET).join("guest");
    Ok(Guest { boot: built.join("conform-boot"), guest: built.join("conform-guest") })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    /// What stands for the guard: it ends its command when its standard input ends, and leaves with its status.
    const GUARD: &str = "shift 2; exec 3<&0; \"$@\" & it=$!\n\
                         (read _ <&3; kill $it) > /dev/null 2>&1 & wait $it";

    /// As another build that has the folder's lock and does not end; and what each way to fail is called.
    #[test]
    fn a_build_that_does_not_end_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let [cargo, conform] = ["cargo", "conform"].map(|name| folder.path().join(name));
        let script = |path: &Path, text: &str| {
            std::fs::write(path, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        let fails = |seconds| {
            let deadline = Duration::from_secs(seconds);
            build_with(&cargo, folder.path(), &conform, deadline).unwrap_err()
        };
        script(&conform, GUARD);
        script(&cargo, "echo waiting for a lock >&2; exec sleep 600");
        let error = fails(1);
        assert!(matches!(error, GuestError::Build(ChildError::Deadline { .. })), "{error}");
        assert!(
            error.to_string().contains("another cargo") && !error.to_string().contains("CARGO"),
            "{error}"
        );
        script(&cargo, "seq 10000 >&2; echo error: expected a semicolon >&2; exit 101");
        let error = fails(60).to_string();
        assert!(error.starts_with("the guest does not build:\n1\n2\n"), "{error}");
        assert!(error.ends_with("\n10000\nerror: expected a semicolon\n"), "{error}");
        script(&conform, "echo guard: cannot start cargo: No such file >&2; exit 127");
        let error = fails(60).to_string();
        assert!(error.contains("cannot start cargo: No such file") && error.contains("set CARGO"), "{error}");
    }
}
