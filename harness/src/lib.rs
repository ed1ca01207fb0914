//! The host side of bpf-lsm-conformance: from a row of `matrix.yaml` to a report.

pub mod child;
pub mod exit;
pub mod model;
pub mod progress;
