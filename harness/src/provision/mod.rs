//! Getting what a run needs: kernel images ([`kernels`]), QEMU and virtme-ng ([`tools`]), and a look at what is
//! there ([`doctor`]).
//!
//! Everything that is fetched goes into the [cache](crate::cache); what is in the cache is used without a network.

pub mod apt;
pub mod build;
pub mod deb;
pub mod debian_version;
pub mod doctor;
pub mod entry;
pub mod image;
pub mod kernels;
pub mod modules;
mod package;
pub mod sources;
pub mod tools;

use sha2::{Digest, Sha256};
use std::io::Read;
use std::path::Path;

/// The SHA-256 of a file, in lower-case hexadecimal.
///
/// # Errors
/// When the file cannot be read.
pub fn sha256_file(path: &Path) -> std::io::Result<String> {
    let mut file = std::fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    Ok(hasher.finalize().iter().map(|byte| format!("{byte:02x}")).collect())
}
