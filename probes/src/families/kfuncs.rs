//! Kfuncs: called as intended from an LSM program, the result checked against user space, and called wrongly.
//!
//! A kfunc is one `Row`, a few lines in the file of its subject; the row says how the arguments are made, what
//! comes back and what that must be. The cases follow from it:
//!
//! - `exists`: is the function in the kernel's BTF, with which prototype and tags, and does a name ending in `_impl` stand for
//!   a function. If it is not in BTF, every case is absent. Whether an LSM program may call it at all is `inventory`'s
//!   question, for every kfunc there is.
//! - `canonical`: the intended use, run by a real trigger, its result compared. `canonical-sleepable`: the same in a
//!   program that may sleep, which is only loaded where that makes no difference to the kfunc. Where RCU alone protects
//!   the arguments, it is `canonical-sleepable-in-an-rcu-section`.
//! - `misuse-..`: one rule each that its flags imply, broken; the program is loaded and never attached.
//!
//! A program that is refused for another kfunc than its row's says nothing of that one, and a misuse that meets what the
//! intended use has met says nothing of the rule: both are recorded as what could not be told.

mod arena;
mod bare;
mod body;
mod cases;
mod cgroup;
mod counted;
mod cpumask;
mod declared;
mod dynptr;
mod exe;
mod file;
mod fs;
mod hid;
mod implied;
mod inventory;
mod iter;
mod key;
mod ksock;
mod later;
mod list;
mod lock;
mod memcg;
mod misuses;
mod module;
mod net;
mod object;
mod other;
mod own;
mod refusal;
mod row;
mod scx;
mod section;
mod stream;
mod string;
mod task;
mod tree;
mod user;

use crate::spec::Probe;
pub(in crate::families) use bare::{NOT_ALLOWED, bare_call};
pub(in crate::families) use refusal::{message, of_the_build};

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    let subjects = [
        task::rows(),
        cgroup::rows(),
        section::rows(),
        cpumask::rows(),
        exe::rows(),
        fs::rows(),
        file::rows(),
        key::rows(),
        dynptr::rows(),
        iter::rows(),
        object::rows(),
        list::rows(),
        tree::rows(),
        lock::rows(),
        later::rows(),
        arena::rows(),
        stream::rows(),
        memcg::rows(),
        ksock::rows(),
        net::rows(),
        other::rows(),
        hid::rows(),
        string::rows(),
        user::rows(),
    ];
    let rows: Vec<row::Row> = subjects.into_iter().flatten().collect();
    let inventory = inventory::probe(&rows);
    let mut probes: Vec<Probe> = rows.into_iter().map(cases::probe).collect();
    probes.extend([scx::probe(), module::probe(), inventory]);
    probes
}
