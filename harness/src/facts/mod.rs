//! What the records say of items (hooks, helpers, kfuncs) as history: on which kernels each is there, since when, until
//! when, under which condition.
//!
//! Snapshots hold what was seen on each kernel; this is where ranges are inferred from them, for the documentation's
//! verdicts, the compatibility data and the site. An end of a range is exact only where both neighbouring minor versions
//! were measured ([`range`]). What a kernel's build leaves out is no evidence about its version ([`guards`]).

pub mod guards;
mod hook;
pub mod item;
mod kfunc;
pub mod range;
mod usage;
pub mod version;

pub use hook::took_effect;
pub use item::{Answer, Answers, Feature, Item, Kind, collect};
pub use range::{Added, Known, Removed, Span, spans};
pub use version::Version;
