//! A page of documentation against the records: [`page`] reads it as it is, [`mod@check`] gives a verdict for each statement
//! and list entry, [`mod@print`] says it,
//! [`mod@fix`] corrects what can be corrected.
//!
//! ```text
//! docs check --format json    an array, one object per page
//!   schema        1
//!   page          its path as given
//!   findings      an array, in the page's order; what is gone comes last
//!     id          the statement's, or `helpers/NAME`, `kfuncs/NAME`
//!     says        what is stated, in the project's words
//!     inferred    whether nobody wrote it and readers conclude it
//!     line        on the page, from 1; null when it is gone
//!     verdict     confirmed, contradicted, conditional, within-bounds, undecided, gone
//!     detail      why, with kernels
//!     kernels     {true, false, unknown, not_of}: arrays of rows of the matrix; of an entry: where the item may be called
//!     evidence    probes with their cases, `FAMILY/NAME/CASE`, each to be pasted into `cargo conform explain`
//!     source      places in the kernel's source
//!     instead     a paragraph that would be true, or null
//!   unlisted      what some kernel lets LSM programs call and the page's list leaves out, the kernel's own tests apart: kind,
//!                 name, added, removed (null where the newest kernels let them still), condition, evidence
//!   passed_over   files of claims of which nothing is on the page
//!   not_read      lines between a list's markers that are no entries: line, text
//! ```

pub mod check;
mod entries;
pub mod fix;
mod judge;
mod limits;
pub mod page;
pub mod print;
#[cfg(test)]
mod testing;
pub mod unlisted;

pub use check::{Finding, Report, Verdict, check};
pub use page::Page;
