//! Putting what a run gave into a snapshot: the kernels that ran are replaced, all others stay.

use super::{Known, Snapshot};
use crate::normalize::Normal;
use probes::record::Outcome;
use std::collections::BTreeSet;

/// The snapshot of a probe after a run.
///
/// A kernel on which the probe was not run keeps what the snapshot says of it. The order of cases is that of the
/// newest kernel of the run; cases that it lacks follow the case that preceded them. A kernel that ran is behind no more.
#[must_use]
pub fn merge(old: Option<&Snapshot>, probe: &str, run: &[(String, Normal)], known: &Known) -> Snapshot {
    let mut observed: Vec<(String, Normal)> = old.map(|old| old.observed.clone()).unwrap_or_default();
    let mut ran: Vec<&(String, Normal)> = run.iter().filter(|(_, normal)| was_seen(normal)).collect();
    ran.sort_by_key(|(kernel, _)| known.rank(kernel));
    for (kernel, normal) in &ran {
        match observed.iter_mut().find(|(name, _)| name == kernel) {
            Some((_, place)) => place.clone_from(normal),
            None => observed.push((kernel.clone(), normal.clone())),
        }
    }
    observed.sort_by_key(|(kernel, _)| known.rank(kernel));
    let order = case_order(&ran, old, &observed);
    for (_, normal) in &mut observed {
        normal.cases.sort_by_key(|case| order.iter().position(|name| *name == case.name));
    }
    let old_question = || old.map(|old| old.question.clone());
    let question = known.questions.get(probe).cloned().or_else(old_question).unwrap_or_default();
    let is_left = |kernel: &&String| {
        observed.iter().any(|(name, _)| name == *kernel) && !ran.iter().any(|(name, _)| name == *kernel)
    };
    let behind = old.into_iter().flat_map(|old| &old.behind).filter(is_left).cloned().collect();
    Snapshot { probe: probe.to_owned(), question, observed, order, behind }
}

/// Marks the kernels of `next` that have not run: the probe was changed, as the kernels that ran show of which `old` says
/// something else, and what it would say of the others is not known. Where they show nothing else, nothing is marked.
pub fn leave_behind(next: &mut Snapshot, old: &Snapshot, run: &[(String, Normal)]) {
    let ran: BTreeSet<&String> =
        run.iter().filter(|(_, normal)| was_seen(normal)).map(|(name, _)| name).collect();
    let is_another = |name: &String| {
        old.of(name).is_some_and(|before| next.of(name).is_none_or(|is| !says_the_same(is, before)))
    };
    if ran.iter().copied().any(is_another) {
        next.behind
            .extend(next.observed.iter().map(|(name, _)| name.clone()).filter(|name| !ran.contains(name)));
    }
}

/// The kernels that are behind in what is left of `proposal` once `next` has been accepted in place of `before`: those of
/// `next`, but for what the proposal has measured, of which it says something else, or that it is behind no more.
pub(super) fn left_behind(
    proposal: &Snapshot,
    before: Option<&Snapshot>,
    next: &Snapshot,
) -> BTreeSet<String> {
    let is_measured = |kernel: &&String| {
        let was = before.and_then(|before| before.of(kernel));
        let says_the_same =
            proposal.of(kernel).zip(was).is_some_and(|(proposed, was)| says_the_same(proposed, was));
        let was_behind = before.is_some_and(|before| before.behind.contains(*kernel));
        !says_the_same || was_behind && !proposal.behind.contains(*kernel)
    };
    next.behind.iter().filter(|kernel| !is_measured(kernel)).cloned().collect()
}

/// Whether two say the same: the order of cases says nothing, as in the difference that is shown.
pub(super) fn says_the_same(one: &Normal, other: &Normal) -> bool {
    one.outcome == other.outcome
        && one.warnings == other.warnings
        && one.cases.len() == other.cases.len()
        && one.cases.iter().all(|case| other.case(&case.name) == Some(case))
}

/// The same of every kernel of two snapshots.
pub(super) fn all_say_the_same(one: &Snapshot, other: &Snapshot) -> bool {
    one.observed.len() == other.observed.len()
        && one
            .observed
            .iter()
            .all(|(kernel, normal)| other.of(kernel).is_some_and(|other| says_the_same(normal, other)))
}

/// Whether a run saw the probe at all; what did not run says nothing about the kernel.
#[must_use]
pub fn was_seen(normal: &Normal) -> bool {
    match normal.outcome {
        Outcome::Observed | Outcome::CouldNotTell { .. } | Outcome::Crashed { .. } | Outcome::Hung { .. } => {
            true
        }
        Outcome::NotRun { .. } => false,
    }
}

fn case_order(
    ran: &[&(String, Normal)],
    old: Option<&Snapshot>,
    observed: &[(String, Normal)],
) -> Vec<String> {
    let mut order = Vec::new();
    for (_, normal) in ran.iter().rev() {
        weave(&mut order, normal.cases.iter().map(|case| &case.name));
    }
    if let Some(old) = old {
        weave(&mut order, old.order.iter());
    }
    let lives =
        |name: &String| observed.iter().any(|(_, normal)| normal.cases.iter().any(|case| case.name == *name));
    order.retain(lives);
    order
}

/// Adds the names that are new, each behind the name that precedes it in its own list.
fn weave<'a>(order: &mut Vec<String>, names: impl Iterator<Item = &'a String>) {
    let mut next = 0;
    for name in names {
        match order.iter().position(|known| known == name) {
            Some(place) => next = place + 1,
            None => {
                order.insert(next, name.clone());
                next += 1;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::snapshot::made_up::{done, names, observed, refused};
    use crate::snapshot::{parse, render};
    use std::path::Path;

    fn known() -> Known {
        Known::new(&names(&["5.10", "6.1", "6.12"]), [("a/b", "Why?")])
    }

    fn run(kernels: &[(&str, Normal)]) -> Vec<(String, Normal)> {
        kernels.iter().map(|(kernel, normal)| ((*kernel).to_owned(), normal.clone())).collect()
    }

    #[test]
    fn a_first_run_is_put_into_matrix_order() {
        let normal = observed(vec![done("x")]);
        let given = run(&[("mine", normal.clone()), ("6.12", normal.clone()), ("5.10", normal)]);
        let snapshot = merge(None, "a/b", &given, &known());
        assert_eq!(snapshot.kernels().collect::<Vec<_>>(), ["5.10", "6.12", "mine"]);
        assert_eq!(snapshot.question, "Why?");
        assert_eq!(parse(Path::new("x"), &render(&snapshot).unwrap()).unwrap(), snapshot);
    }

    #[test]
    fn a_partial_run_replaces_only_its_part() {
        let old = merge(
            None,
            "a/b",
            &run(&[("5.10", observed(vec![done("x")])), ("6.1", observed(vec![done("x")]))]),
            &known(),
        );
        let new = merge(Some(&old), "a/b", &run(&[("6.1", observed(vec![refused("x", "no")]))]), &known());
        assert_eq!(new.of("5.10"), old.of("5.10"));
        assert_eq!(new.of("6.1"), Some(&observed(vec![refused("x", "no")])));
    }

    #[test]
    fn where_a_probe_was_changed_the_kernels_that_did_not_run_are_behind_until_they_do() {
        let same = |kernel| (kernel, observed(vec![done("x")]));
        let old = merge(None, "a/b", &run(&[same("5.10"), same("6.1"), same("6.12")]), &known());

        let unchanged = run(&[same("6.12")]);
        let mut next = merge(Some(&old), "a/b", &unchanged, &known());
        leave_behind(&mut next, &old, &unchanged);
        assert!(next.behind.is_empty());

        let changed = run(&[("6.12", observed(vec![done("y")]))]);
        let mut next = merge(Some(&old), "a/b", &changed, &known());
        leave_behind(&mut next, &old, &changed);
        assert_eq!(next.behind, names(&["5.10", "6.1"]).into_iter().collect());
        let text = render(&next).unwrap();
        assert!(text.contains("measured before the probe changed: 5.10 6.1\n"), "{text}");
        assert_eq!(parse(Path::new("x"), &text).unwrap(), next);

        let measured = run(&[("6.1", observed(vec![done("y")]))]);
        assert_eq!(
            merge(Some(&next), "a/b", &measured, &known()).behind,
            names(&["5.10"]).into_iter().collect()
        );
    }

    #[test]
    fn what_did_not_run_replaces_nothing() {
        let old = merge(None, "a/b", &run(&[("5.10", observed(vec![done("x")]))]), &known());
        let mut lost = observed(vec![]);
        lost.outcome = Outcome::NotRun { why: "no boot".into() };
        let new = merge(Some(&old), "a/b", &run(&[("5.10", lost.clone()), ("6.1", lost)]), &known());
        assert_eq!(new, old);
    }

    #[test]
    fn merging_twice_changes_nothing_more() {
        let old = merge(
            None,
            "a/b",
            &run(&[("5.10", observed(vec![done("x"), done("old"), done("y")]))]),
            &known(),
        );
        let given = run(&[("6.1", observed(vec![done("y"), done("x"), done("new")]))]);
        let once = merge(Some(&old), "a/b", &given, &known());
        assert_eq!(once.order, ["y", "x", "old", "new"]);
        assert_eq!(merge(Some(&once), "a/b", &given, &known()), once);
        assert_eq!(parse(Path::new("x"), &render(&once).unwrap()).unwrap(), once);
    }

    #[test]
    fn a_case_that_no_kernel_has_any_more_goes() {
        let old = merge(None, "a/b", &run(&[("5.10", observed(vec![done("x"), done("gone")]))]), &known());
        let new = merge(Some(&old), "a/b", &run(&[("5.10", observed(vec![done("x")]))]), &known());
        assert_eq!(new.order, ["x"]);
    }
}
