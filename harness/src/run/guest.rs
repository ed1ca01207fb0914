//! Building the guest: the crate `probes` as one static binary.
//!
//! The harness calls cargo itself, so that one command does everything and a probe's edit is never forgotten. The
//! build has a target folder of its own: the outer cargo holds the lock of the other one while it compiles.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The target that a static glibc binary is built for. Naming it keeps the flags away from build scripts.
const TARGET: &str = "x86_64-unknown-linux-gnu";

/// Why there is no guest.
#[derive(Debug, thiserror::Error)]
pub enum GuestError {
    /// Cargo could not be started.
    #[error("cannot start {}: {source}; run through cargo, or set CARGO", cargo.display())]
    Cargo {
        /// Which cargo.
        cargo: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The build failed; its messages are in the error.
    #[error("the guest does not build:\n{0}")]
    Build(String),
}

impl crate::exit::ExitCode for GuestError {
    fn exit_code(&self) -> u8 {
        crate::exit::INFRASTRUCTURE
    }
}

/// Builds the guest in `workspace` and returns its path. Does nothing when it is up to date.
///
/// # Errors
/// [`GuestError`].
pub fn build(workspace: &Path) -> Result<PathBuf, GuestError> {
    let cargo = PathBuf::from(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    let target_dir = workspace.join("target").join("guest");
    let output = Command::new(&cargo)
        .current_dir(workspace)
        .args([
            "build",
            "--package",
            "probes",
            "--bin",
            "conform-guest",
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
        .stdin(Stdio::null())
        .output()
        .map_err(|source| GuestError::Cargo { cargo, source })?;
    if !output.status.success() {
        return Err(GuestError::Build(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    Ok(target_dir.join(TARGET).join("guest").join("conform-guest"))
}
