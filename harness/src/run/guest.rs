//! Building the guest: the crates `conform-boot` and `probes` as a static binary each.
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
    let target_dir = workspace.join("target").join("guest");
    let output = Command::new(&cargo)
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
        .stdin(Stdio::null())
        .output()
        .map_err(|source| GuestError::Cargo { cargo, source })?;
    if !output.status.success() {
        return Err(GuestError::Build(String::from_utf8_lossy(&output.stderr).into_owned()));
    }
    let built = target_dir.join(TARGET).join("guest");
    Ok(Guest { boot: built.join("conform-boot"), guest: built.join("conform-guest") })
}
