//! Kernel modules that the harness has put into `/modules` (`harness/src/provision/modules.rs`).

use super::files::index;
use super::syscall;
use crate::errno::Errno;
use std::fs::File;

/// Loads modules, each after those it needs. One that is not there may be built into the kernel: then what follows
/// works without it, and else says what is missing.
///
/// # Errors
/// What the kernel answers to a module that it does not take.
pub fn load(names: &[&str]) -> Result<(), Errno> {
    for name in names {
        // To hear that a module is loaded already costs as much as loading it: it is read and its signature checked.
        if std::fs::exists(format!("/sys/module/{}", name.replace('-', "_")))? {
            continue;
        }
        let Ok(file) = File::open(format!("/modules/{name}.ko")) else { continue };
        let args = [index(&file), c"".as_ptr().addr(), 0, 0, 0, 0];
        // SAFETY: a descriptor, a terminated string, a number.
        match unsafe { syscall(libc::SYS_finit_module, args) } {
            Ok(_) | Err(Errno::EEXIST) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(())
}
