//! The host side of bpf-lsm-conformance: from a row of `matrix.yaml` to a report.

pub mod model;
pub mod normalize;
pub mod report;
pub mod snapshot;
