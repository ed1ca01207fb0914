//! What the records say of items (hooks, helpers, kfuncs) as history: on which kernels each is there, since when, until
//! when, under which condition.
//!
//! Snapshots hold what was seen on each kernel; this is where ranges are inferred from them, for the documentation's
//! verdicts, the compatibility data and the site. An end of a range is exact only where both neighbouring minor versions
//! were measured ([`range`]). What a kernel's build leaves out is no evidence about its version ([`guards`]).

mod answers;
pub mod guards;
mod helper;
mod hook;
pub mod item;
mod kfunc;
pub mod range;
mod said;
mod usage;

pub use crate::version::Version;
pub use answers::{Answer, Answers, Support};
pub use hook::took_effect;
pub use item::{Feature, Item, Kind, collect};
pub(crate) use kfunc::OF_NO_LSM_PROGRAM;
pub use range::{Added, Known, Removed, Span, spans};
pub use said::Said;

/// What the tests of facts have in common.
#[cfg(test)]
mod testing {
    use crate::snapshot::{Ci, Store};
    use serde_json::Value;
    use std::collections::BTreeSet;
    use std::path::Path;

    /// Every text that the project's snapshots of the probes whose id begins so have in the facts that are `wanted`, by
    /// case and name.
    pub(super) fn words_of(begins: &str, wanted: impl Fn(&str, &str) -> bool) -> BTreeSet<String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let snapshots = Store::new(root.join("snapshots"), Ci::Yes).load_all().unwrap();
        let of = snapshots.iter().filter(|(id, _)| id.starts_with(begins));
        let cases = of.flat_map(|(_, snapshot)| &snapshot.observed).flat_map(|(_, normal)| &normal.cases);
        let facts = cases.flat_map(|case| case.seen.iter().map(move |(key, said)| (&case.name, key, said)));
        let of_facts = facts.filter(|(case, key, _)| wanted(case, key)).map(|(.., said)| said);
        of_facts.filter_map(Value::as_str).map(str::to_owned).collect()
    }
}
