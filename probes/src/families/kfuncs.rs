//! Kfuncs: called as intended from an LSM program, the result checked against user space, and called wrongly.
//!
//! A kfunc is one `Row`, a few lines in the file of its subject; the row says how the arguments are made, what
//! comes back and what that must be. The cases follow from it:
//!
//! - `exists`: is the function in the kernel's BTF, with which prototype and tags. If not, every case is absent.
//! - `registered`: may an LSM program call it at all, asked with a bare call, so that "not for LSM programs" can be
//!   told from a refusal of what the other cases do with it.
//! - `canonical`, `canonical-sleepable`: the intended use, run by a real trigger, its result compared.
//! - `misuse-..`: one rule each that its flags imply, broken; the program is loaded and never attached.

mod body;
mod cases;
mod cgroup;
mod cpumask;
mod dynptr;
mod fs;
mod inventory;
mod iter;
mod key;
mod object;
mod row;
mod section;
mod string;
mod task;
mod user;

use crate::spec::Probe;

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let subjects = [
        task::rows(),
        cgroup::rows(),
        section::rows(),
        cpumask::rows(),
        fs::rows(),
        key::rows(),
        dynptr::rows(),
        iter::rows(),
        object::rows(),
        string::rows(),
        user::rows(),
    ];
    let mut probes: Vec<Probe> = subjects.into_iter().flatten().map(cases::probe).collect();
    probes.push(inventory::probe());
    probes
}
