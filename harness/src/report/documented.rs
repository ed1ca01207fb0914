//! Where the documentation's lists of helpers and kfuncs (`claims/lists*.yaml`) and the records part.
//!
//! ```text
//! list --undocumented --format json    an array: what LSM programs may call and the page does not list
//! list --unsupported --format json     an array: what the page lists and no kernel of the matrix lets them call
//!   kind            "helper" or "kfunc"
//!   name            its name
//!   kernels         the rows on which some LSM program may call it, in matrix order; empty for --unsupported
//!   answers         --unsupported only: what kernels said instead, each once
//! ```
//!
//! "May call" is the verifier's answer to a bare call (`probes::families::helpers`, the case `callable`, in any kind of
//! program; `kfuncs/inventory`), not a promise that a program can have the arguments.

use crate::claims::{Claims, List};
use crate::normalize::{Normal, NormalCase};
use crate::snapshot::{Snapshot, kernel_phrase};
use comfy_table::{ContentArrangement, Table, presets};
use probes::record::End;
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// The probe that asks about every kfunc.
const INVENTORY: &str = "kfuncs/inventory";

/// A helper or kfunc on which page and records differ. The module's documentation says what each field is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Helper or kfunc.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// Where it may be called.
    pub kernels: Vec<String>,
    /// What kernels said instead.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub answers: Vec<String>,
}

/// What the records say of one name: on which kernels it may be called, and the other answers.
#[derive(Default)]
struct Answers {
    may: Vec<String>,
    others: BTreeSet<String>,
}

type Names = BTreeMap<(&'static str, String), Answers>;

fn documented(claims: &Claims) -> BTreeSet<(&'static str, String)> {
    let of = |list: List| claims.entries(list).map(move |entry| (list.kind().name(), entry.name.clone()));
    of(List::Helpers).chain(of(List::Kfuncs)).collect()
}

/// Everything that the records say of helpers and kfuncs on `kernels`.
fn recorded(snapshots: &BTreeMap<String, Snapshot>, kernels: &[String]) -> Names {
    let mut names = Names::new();
    for kernel in kernels {
        for (id, snapshot) in snapshots {
            let Some(normal) = snapshot.of(kernel) else { continue };
            if let Some(name) = id.strip_prefix("helpers/").filter(|name| name.starts_with("bpf_")) {
                if let Some(case) = case_of(normal, "callable") {
                    helper(names.entry(("helper", name.to_owned())).or_default(), kernel, case);
                }
            } else if id == INVENTORY {
                for case in &normal.cases {
                    kfunc(names.entry(("kfunc", case.name.clone())).or_default(), kernel, case);
                }
            }
        }
    }
    names
}

fn case_of<'a>(normal: &'a Normal, name: &str) -> Option<&'a NormalCase> {
    normal.cases.iter().find(|case| case.name == name)
}

fn helper(answers: &mut Answers, kernel: &str, case: &NormalCase) {
    note(answers, kernel, case, |answer| answer == "yes");
}

fn kfunc(answers: &mut Answers, kernel: &str, case: &NormalCase) {
    note(answers, kernel, case, |answer| answer == "may call it");
}

/// Notes what a kernel said of one name, asked for several kinds of program: one that may is enough.
fn note(answers: &mut Answers, kernel: &str, case: &NormalCase, may: impl Fn(&Value) -> bool) {
    match &case.end {
        End::Done if case.seen.values().any(may) => answers.may.push(kernel.to_owned()),
        End::Done => {
            answers.others.extend(case.seen.values().filter_map(Value::as_str).map(str::to_owned));
        }
        End::Absent { .. } => {
            answers.others.insert("not in the kernel".to_owned());
        }
        End::Refused { .. } | End::CouldNotTell { .. } => {
            answers.others.insert("could not tell".to_owned());
        }
    }
}

/// What some LSM program may call on some kernel, and the page does not list.
#[must_use]
pub fn undocumented(
    snapshots: &BTreeMap<String, Snapshot>,
    kernels: &[String],
    claims: &Claims,
) -> Vec<Difference> {
    let documented = documented(claims);
    let found = recorded(snapshots, kernels).into_iter();
    found
        .filter(|(name, answers)| !answers.may.is_empty() && !documented.contains(name))
        .map(|((kind, name), answers)| Difference { kind, name, kernels: answers.may, answers: Vec::new() })
        .collect()
}

/// What the page lists, and no LSM program may call on any of the kernels.
#[must_use]
pub fn unsupported(
    snapshots: &BTreeMap<String, Snapshot>,
    kernels: &[String],
    claims: &Claims,
) -> Vec<Difference> {
    let mut recorded = recorded(snapshots, kernels);
    let difference = |(kind, name): (&'static str, String)| {
        let answers = recorded.remove(&(kind, name.clone())).unwrap_or_default();
        let others = match answers.others.is_empty() {
            true => vec!["not in the kernel".to_owned()],
            false => answers.others.into_iter().collect(),
        };
        answers.may.is_empty().then_some(Difference { kind, name, kernels: Vec::new(), answers: others })
    };
    documented(claims).into_iter().filter_map(difference).collect()
}

/// The differences as a table of at most `width` columns.
#[must_use]
pub fn table(differences: &[Difference], kernels: &[String], width: u16) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    for it in differences {
        let places: Vec<usize> =
            (0..kernels.len()).filter(|&place| it.kernels.contains(&kernels[place])).collect();
        let where_or_why =
            if places.is_empty() { it.answers.join("; ") } else { kernel_phrase(kernels, &places) };
        table.add_row([it.kind, &it.name, &where_or_why]);
    }
    format!("{}\n{} in all\n", table.trim_fmt(), differences.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Entry, File};
    use crate::snapshot::made_up::{self, done, names};
    use serde_json::json;

    fn claims() -> Claims {
        let entry = |name: &str| Entry { name: name.to_owned(), since: None, until: None };
        let helpers = ["bpf_loop", "bpf_get_func_ip", "bpf_get_prandom_u32"].map(entry).into();
        let lists = vec![(List::Helpers, helpers), (List::Kfuncs, vec![entry("bpf_dynptr_size")])];
        Claims { files: vec![File { name: "lists.yaml".to_owned(), claims: Vec::new(), lists }] }
    }

    fn case(name: &str, seen: &Value) -> NormalCase {
        NormalCase { seen: seen.as_object().unwrap().clone(), ..done(name) }
    }

    fn snapshot(probe: &str, cases: Vec<NormalCase>) -> (String, Snapshot) {
        (probe.to_owned(), made_up::snapshot(probe, vec![("k", cases)]))
    }

    fn snapshots() -> BTreeMap<String, Snapshot> {
        let helper = |name: &str, answer| {
            snapshot(&format!("helpers/{name}"), vec![case("callable", &json!({"a": "no", "b": answer}))])
        };
        let kfunc =
            |name: &str, answer| case(name, &json!({"plain": "may NOT call it", "sleepable": answer}));
        let kfuncs = vec![kfunc("bpf_new", "may call it"), kfunc("bpf_dynptr_size", "may NOT call it")];
        BTreeMap::from([
            helper("bpf_get_stack", "yes"),
            helper("bpf_loop", "yes"),
            helper("bpf_get_func_ip", "no"),
            helper("bpf_redirect", "no"),
            snapshot(INVENTORY, kfuncs),
        ])
    }

    #[test]
    fn what_may_be_called_and_is_not_listed_is_found() {
        let found = undocumented(&snapshots(), &names(&["k"]), &claims());
        let found: Vec<_> = found.iter().map(|it| (it.kind, it.name.as_str())).collect();
        assert_eq!(found, [("helper", "bpf_get_stack"), ("kfunc", "bpf_new")]);
    }

    #[test]
    fn what_is_listed_and_refused_everywhere_says_how() {
        let found = unsupported(&snapshots(), &names(&["k"]), &claims());
        let answer = |name: &str| found.iter().find(|it| it.name == name).map(|it| it.answers.join("; "));
        assert_eq!(answer("bpf_get_func_ip").as_deref(), Some("no"));
        assert_eq!(answer("bpf_dynptr_size").as_deref(), Some("may NOT call it"));
        assert_eq!(answer("bpf_get_prandom_u32").as_deref(), Some("not in the kernel"));
        assert_eq!(answer("bpf_loop"), None);
    }
}
