//! Building the guest: the crates `conform-boot` and `probes` as a static binary each.
//!
//! The harness calls cargo itself, so that one command does everything and a probe's edit is never forgotten. The
//! build has a target folder of its own: the outer cargo holds the lock of the other one while it compiles.

use crate::child::{ChildError, Command};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long the build may take, which compiles everything the first time, and waits for another one in the same folder.
const DEADLINE: Duration = Duration::from_secs(1800);

/// The target that a static glibc binary is built for. Naming it keeps the flags away from build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Cargo could not be started, did not come to an end, or failed.
    #[error("there is no guest; run through cargo, or set CARGO")]
    Build(#[from] ChildError),
    /// There is no place for what the compiler says.
    #[error("cannot keep what the compiler says of the guest: {0}")]
    Log(#[source] std::io::Error),
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

/// Builds the guest in `workspace`. Does nothing when it is up to date.
///
/// # Errors
/// [`GuestError`].
pub fn build(workspace: &Path) -> Result<Guest, GuestError> {
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build_with(&cargo, workspace, DEADLINE)
}

fn build_with(cargo: &Path, workspace: &Path, deadline: Duration) -> Result<Guest, GuestError> {
    let target_dir = workspace.join("target").join("guest");
    // All that the compiler says, and not its end alone.
    let log = tempfile::NamedTempFile::new().map_err(GuestError::Log)?;
    let built = Command::new(cargo, "building the guest", deadline)
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
        .log(log.path())
        .run();
    built.map_err(|error| match error {
        ChildError::Failed { tail, .. } => {
            let all = std::fs::read(log.path()).map_or(tail, |it| String::from_utf8_lossy(&it).into_owned());
            GuestError::Code(all)
        }
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

    /// As another build that has the folder's lock and does not end.
    #[test]
    fn a_build_that_does_not_end_is_ended() {
        let folder = tempfile::tempdir().unwrap();
        let cargo = folder.path().join("cargo");
        let script = |text: &str| {
            std::fs::write(&cargo, format!("#!/bin/sh\n{text}\n")).unwrap();
            std::fs::set_permissions(&cargo, std::fs::Permissions::from_mode(0o755)).unwrap();
        };
        script("echo waiting for a lock >&2; sleep 600");
        let error = build_with(&cargo, folder.path(), Duration::from_secs(1)).unwrap_err();
        assert!(matches!(error, GuestError::Build(ChildError::Deadline { .. })), "{error}");
        script("echo error: expected a semicolon >&2; exit 101");
        let error = build_with(&cargo, folder.path(), Duration::from_secs(60)).unwrap_err();
        assert_eq!(error.to_string(), "the guest does not build:\nerror: expected a semicolon\n");
    }
}
