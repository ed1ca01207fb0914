//! The host side of bpf-lsm-conformance: from a row of `matrix.yaml` to a report.

pub mod cli;
pub mod model;
pub mod normalize;
pub mod report;
pub mod run;
pub mod snapshot;
pub mod vmm;
