//! A profile for AppArmor, as its parser would compile it, and a process that it confines.
//!
//! The format is read in 7.1 security/apparmor/policy_unpack.c, `verify_header` and `unpack_profile`, which take versions
//! 5 to 9; what may be absent is.

use crate::errno::Errno;
use crate::session::Ended;
use std::fs;

const NAME: &str = "conform";
/// Tags of the format: a number, a string, the name of what follows, a structure and its end.
const NUMBER: u8 = 2;
const TEXT: u8 = 5;
const NAMED: u8 = 4;
const STRUCT: u8 = 7;
const END: u8 = 8;

fn text(bytes: &mut Vec<u8>, tag: u8, text: &str) {
    bytes.push(tag);
    bytes.extend(u16::try_from(text.len() + 1).unwrap_or(0).to_le_bytes());
    bytes.extend(text.as_bytes());
    bytes.push(0);
}

fn numbers(bytes: &mut Vec<u8>, numbers: &[u32]) {
    for number in numbers {
        bytes.push(NUMBER);
        bytes.extend(number.to_le_bytes());
    }
}

/// A profile that enforces, with no capabilities and no rules.
fn profile() -> Vec<u8> {
    let mut bytes = Vec::new();
    text(&mut bytes, NAMED, "version");
    numbers(&mut bytes, &[5]);
    text(&mut bytes, NAMED, "profile");
    bytes.push(STRUCT);
    text(&mut bytes, TEXT, NAME);
    text(&mut bytes, NAMED, "flags");
    bytes.push(STRUCT);
    numbers(&mut bytes, &[0, 0, 0]); // no hat; mode: enforce; audit: what is denied
    bytes.push(END);
    numbers(&mut bytes, &[0, 0, 0, 0]); // capabilities: allowed, audited, quiet, unused
    bytes.push(END);
    bytes
}

/// Gives AppArmor the profile.
pub(super) fn load_profile() -> Result<(), Ended> {
    let folder = "/sys/kernel/security/apparmor";
    if !fs::exists(folder).unwrap_or(false) {
        return Err(Ended::Absent("AppArmor".into()));
    }
    fs::write(format!("{folder}/.replace"), profile())
        .map_err(|error| Ended::could_not("load a profile", error))
}

/// Confines this process. By its own name, for of an LSM that stands before it the other file would ask (6.1
/// security/security.c, security_setprocattr). Before 5.8 there is only the other (5.7 fs/proc/base.c, attr_dir_stuff):
/// with bpf before AppArmor nobody can be confined in this way there.
pub(super) fn confine() -> Result<(), Errno> {
    let own = "/proc/self/attr/apparmor/current";
    let file = if fs::exists(own)? { own } else { "/proc/self/attr/current" };
    fs::write(file, format!("changeprofile {NAME}")).map_err(Errno::from)
}
