//! The host side of bpf-lsm-conformance: from a row of `matrix.yaml` to a report.

pub mod cache;
pub mod child;
pub mod exit;
pub mod matrix;
pub mod model;
pub mod progress;
pub mod provision;
