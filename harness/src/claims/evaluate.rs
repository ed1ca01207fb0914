//! From a statement and the records to a truth per kernel.

use super::{Claim, Condition, Decision, Truth};
use crate::snapshot::Snapshot;
use std::collections::BTreeMap;

/// What a statement is worth, kernel by kernel, each list in the matrix's order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evaluated {
    /// Where it is true.
    pub true_on: Vec<String>,
    /// Where it is false.
    pub false_on: Vec<String>,
    /// Where the records do not say, each with the reason.
    pub unknown_on: Vec<(String, String)>,
    /// Of which kernels it does not speak.
    pub not_of: Vec<String>,
    /// Where it is true, but not the whole truth ([`Claim::unless`]).
    pub restricted_on: Vec<String>,
    /// Where it is true, and the records do not say whether that is the whole truth, each with the reason.
    pub perhaps_restricted_on: Vec<(String, String)>,
}

/// Asks every kernel's records. A statement that no condition decides is unknown everywhere.
#[must_use]
pub fn evaluate(claim: &Claim, snapshots: &BTreeMap<String, Snapshot>, kernels: &[String]) -> Evaluated {
    let condition = match &claim.decision {
        Decision::Holds(condition) | Decision::Tag { exists: condition, .. } => Some(condition),
        Decision::Complete(_) | Decision::Undecided(_) => None,
    };
    let mut result = Evaluated::default();
    for kernel in kernels {
        let ask = |condition: &Condition| condition.of(snapshots, kernel);
        match claim.applies.as_ref().map_or(Truth::Yes, ask) {
            Truth::Yes => {}
            Truth::No => {
                result.not_of.push(kernel.clone());
                continue;
            }
            Truth::Unknown(why) => {
                result.unknown_on.push((kernel.clone(), why));
                continue;
            }
        }
        match condition.map(ask) {
            Some(Truth::Yes) => {
                result.true_on.push(kernel.clone());
                match claim.unless.as_ref().map(|unless| ask(&unless.when)) {
                    Some(Truth::Yes) => result.restricted_on.push(kernel.clone()),
                    Some(Truth::Unknown(why)) => result.perhaps_restricted_on.push((kernel.clone(), why)),
                    Some(Truth::No) | None => {}
                }
            }
            Some(Truth::No) => result.false_on.push(kernel.clone()),
            Some(Truth::Unknown(why)) => result.unknown_on.push((kernel.clone(), why)),
            None => {}
        }
    }
    result
}
