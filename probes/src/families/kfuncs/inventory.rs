//! Which of all known kfuncs a kernel has, and which of these an LSM program may call.

use super::cases::bare_call;
use crate::session::{Attempt, Ended};
use crate::spec::{Probe, source};

/// Every function that is tagged `bpf_kfunc` in a kernel of the suite, and those that were kfuncs before there were
/// tags (6.1). Test kfuncs are left out.
const NAMES: &str = include_str!("inventory.txt");

/// The probe.
pub(super) fn probe() -> Probe {
    Probe::new(
        "kfuncs/inventory",
        "Which of the known kfuncs are in the kernel, and which of these may an LSM program call?",
        &[
            source("6.12", "kernel/bpf/btf.c", "bpf_prog_type_to_kfunc_hook"),
            source("6.12", "kernel/bpf/verifier.c", "check_kfunc_call"),
        ],
        |session| session.case("calls", list),
    )
}

/// Notes each kfunc of the list that the kernel has, with whether it may be called.
fn list(attempt: &mut Attempt<'_>) -> Result<(), Ended> {
    let btf = attempt.btf()?;
    for name in NAMES.split_whitespace() {
        let Some(id) = btf.function(name) else { continue };
        let answer = bare_call(attempt, "file_open", id, 0)?;
        attempt.see(name, answer);
    }
    Ok(())
}
