//! The documented examples, as a reader of the documentation would write them.
//!
//! Each comes in more than one writing, because the verifier judges instructions, not intentions. `as-written` and
//! its like are Rust objects loaded with aya: LLVM adds a field's offset, a constant from `.rodata`, to the pointer
//! before it loads. `as-compiled-from-c` is assembled by hand into what a C compiler makes of `vma->vm_mm`: one load
//! with the offset in the instruction. The two are refused, where they are, with different words.

mod child;
mod mprotect;
mod socket;

use crate::spec::{Probe, source};

/// The hooks with an inert program: taking the last one off costs a grace period.
pub const KEPT: &[&str] = &["socket_create", "file_mprotect"];

/// The probes of this family.
#[must_use]
pub fn probes() -> Vec<Probe> {
    vec![
        Probe::new(
            "example/file_mprotect",
            "Does the documented program load, deny mprotect on the heap, and leave other memory and other processes alone?",
            &[
                source("6.14", "Documentation/bpf/prog_lsm.rst", "mprotect_audit"),
                source("6.14", "mm/mprotect.c", "do_mprotect_pkey"),
                source("6.14", "kernel/bpf/verifier.c", "check_ptr_to_btf_access"),
                source("7.1", "kernel/bpf/verifier.c", "type_is_trusted_or_null"),
            ],
            mprotect::probe,
        )
        .uses_aya(),
        Probe::new(
            "example/socket_create",
            "Does user space see exactly the errno that a program on socket_create returns, for its target alone?",
            &[
                source("6.14", "net/socket.c", "__sock_create"),
                source("6.14", "security/security.c", "security_socket_create"),
            ],
            socket::probe,
        )
        .uses_aya(),
    ]
}
