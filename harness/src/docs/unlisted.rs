//! What LSM programs may call and a list leaves out, and whether that makes the list incomplete.

use super::check::{Evidence, Kernels, Verdict};
use super::page::Page;
use crate::claims::List;
use crate::facts::{Answer, Item, Known};
use crate::report::counted;
use serde::Serialize;
use std::collections::BTreeSet;

/// Something that LSM programs may call and the list leaves out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Unlisted {
    /// `helper` or `kfunc`.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Since when it may be called, as far as measured.
    pub added: String,
    /// The first version in which it may not be called any more.
    pub removed: Option<String>,
    /// Who may call it, where not every LSM program.
    pub condition: Option<String>,
    /// The case that shows it.
    pub evidence: String,
}

/// Kfuncs that the kernel has for its own tests alone, all the same in every build (6.12 net/bpf/test_run.c): no
/// documentation is expected to list them.
pub(super) fn is_of_a_test(name: &str) -> bool {
    ["bpf_kfunc_call_", "bpf_modify_return_test", "bpf_fentry_test"]
        .iter()
        .any(|start| name.starts_with(start))
}

/// What may be called and the page's list does not name; nothing where the page has no such list.
pub(super) fn unlisted(page: &Page, list: List, evidence: &Evidence<'_>) -> Vec<Unlisted> {
    if !page.lists.iter().any(|found| found.list == list) {
        return Vec::new();
    }
    left_out(&page.entries(list).map(|entry| entry.name.as_str()).collect(), list, evidence)
}

/// What may be called and is not among these names.
pub(super) fn left_out(listed: &BTreeSet<&str>, list: List, evidence: &Evidence<'_>) -> Vec<Unlisted> {
    let of_kind = evidence.items.values().filter(|item| item.kind == list.kind());
    of_kind
        .filter(|item| !listed.contains(item.name.as_str()) && !is_of_a_test(&item.name))
        .filter_map(of_item)
        .collect()
}

fn of_item(item: &Item) -> Option<Unlisted> {
    let span = item.answers.spans().pop()?;
    let condition = item.answers.0.iter().rev().find_map(|(_, answer)| match answer {
        Answer::Yes { condition } => Some(condition.clone()),
        Answer::No { .. } | Answer::Absent { .. } | Answer::BuildLacks { .. } | Answer::Unknown { .. } => {
            None
        }
    });
    Some(Unlisted {
        kind: item.kind.name(),
        name: item.name.clone(),
        added: span.added.to_string(),
        removed: span.removed.map(|removed| removed.to_string()),
        condition: condition.filter(|condition| !condition.is_empty()),
        evidence: format!("{}/{}", item.probe, item.case),
    })
}

/// The verdict on the statement that a list is complete. What the newest kernels let nobody call is no reason to list it,
/// and it was callable all the same.
pub(super) fn complete(list: List, unlisted: &[Unlisted]) -> (Verdict, String) {
    let of_list: Vec<&Unlisted> = unlisted.iter().filter(|it| it.kind == list.kind().name()).collect();
    let (now, gone): (Vec<&Unlisted>, Vec<&Unlisted>) = of_list.iter().partition(|it| it.removed.is_none());
    let past = |it: &&Unlisted| {
        let removed = it.removed.as_deref().unwrap_or_default();
        format!("{} (since {}, gone in {removed})", it.name, it.added)
    };
    let gone: Vec<String> = gone.iter().map(past).collect();
    let what = list.name();
    if now.is_empty() && gone.is_empty() {
        return (
            Verdict::Confirmed,
            format!("every one of the {what} that some LSM program may call is listed"),
        );
    }
    if now.is_empty() {
        let said =
            format!("true of the newest kernels; older ones let LSM programs call {}", gone.join(", "));
        return (Verdict::Conditional, said);
    }
    let names: Vec<&str> = now.iter().map(|it| it.name.as_str()).collect();
    let count = counted(names.len(), list.kind().name());
    let mut said = format!("may be called and not listed: {count}: {}", names.join(", "));
    if !gone.is_empty() {
        said += &format!("; {} more on older kernels alone: {}", gone.len(), gone.join(", "));
    }
    (Verdict::Contradicted, said)
}

/// The kernels on which the statement that a list is complete is false, because something of what is left out may be called
/// there; those that could not tell of something; and the others.
pub(super) fn kernels_of_complete(list: List, unlisted: &[Unlisted], evidence: &Evidence<'_>) -> Kernels {
    let of_list = unlisted.iter().filter(|it| it.kind == list.kind().name());
    let items: Vec<_> =
        of_list.filter_map(|it| evidence.items.get(&(list.kind(), it.name.clone()))).collect();
    let mut kernels = Kernels::default();
    for kernel in evidence.kernels {
        let some =
            |known| items.iter().any(|item| item.answers.of(kernel).is_some_and(|it| it.known() == known));
        let place = if some(Known::Yes) {
            &mut kernels.no
        } else if some(Known::Unknown) {
            &mut kernels.unknown
        } else {
            &mut kernels.yes
        };
        place.push(kernel.clone());
    }
    kernels
}
