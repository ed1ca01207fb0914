//! The probes of bpf-lsm-conformance, the guest that runs them, and what it shares with the harness.
//!
//! The harness links this crate for the list of probes, the record types and the protocol; the binary
//! `conform-guest` is PID 1 of every virtual machine.

pub mod asm;
pub mod aya_load;
pub mod bpf;
pub mod btf;
pub mod btf_build;
pub mod channel;
pub mod disasm;
pub mod errno;
pub mod families;
pub mod guest;
pub mod helper;
pub mod insn;
pub mod lsm;
pub mod objects;
mod patience;
pub mod protocol;
pub mod record;
pub mod results;
mod rules;
pub mod session;
pub mod spec;
pub mod triggers;
