//! The host side of bpf-lsm-conformance: from a row of `matrix.yaml` to a report.

pub mod cache;
pub mod child;
pub mod claims;
pub mod cli;
pub mod docs;
pub mod exit;
pub mod export;
pub mod facts;
pub mod guard;
pub mod interrupt;
pub mod matrix;
pub mod model;
pub mod normalize;
pub mod progress;
pub mod provision;
pub mod report;
pub mod run;
pub mod site;
pub mod snapshot;
pub mod text;
pub mod verbs;
pub mod version;
pub mod vmm;
pub mod whole;
