//! Where the documentation's lists of helpers and kfuncs (`claims/lists*.yaml`) and the records part.
//!
//! ```text
//! list --undocumented --format json    an array: what LSM programs may call and the page does not list
//! list --unsupported --format json     an array: what the page lists and no kernel of the matrix lets them call
//!   kind            "helper" or "kfunc"
//!   name            its name
//!   kernels         the rows on which some LSM program may call it, in matrix order; empty for --unsupported
//!   answers         --unsupported only: what kernels said instead, each once, as facts have it: what a build may lack, and
//!                   what could not be told, is no "not in the kernel"
//! ```
//!
//! "May call" is the verifier's answer to a bare call (an item's answer in [`crate::facts`]), not a promise that a program can have the arguments.

use super::keep_whole;
use crate::claims::{Claims, List};
use crate::facts::{Item, Kind, Known};
use crate::snapshot::kernel_phrase;
use comfy_table::{ContentArrangement, Table, presets};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// What the records say of items ([`crate::facts::collect`]).
type Items = BTreeMap<(Kind, String), Item>;

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

fn documented(claims: &Claims) -> BTreeSet<(Kind, String)> {
    let of = |list: List| claims.entries(list).map(move |entry| (list.kind(), entry.name.clone()));
    of(List::Helpers).chain(of(List::Kfuncs)).collect()
}

/// What some LSM program may call on some kernel, and the page does not list.
#[must_use]
pub fn undocumented(items: &Items, claims: &Claims) -> Vec<Difference> {
    let documented = documented(claims);
    let difference = |(key, item): (&(Kind, String), &Item)| {
        let kernels: Vec<String> = item.answers.kernels(Known::Yes).map(str::to_owned).collect();
        let is_new = key.0 != Kind::Hook && !kernels.is_empty() && !documented.contains(key);
        is_new.then(|| Difference { kind: key.0.name(), name: key.1.clone(), kernels, answers: Vec::new() })
    };
    items.iter().filter_map(difference).collect()
}

/// What the page lists, and no LSM program may call on any of the kernels that the items are of.
#[must_use]
pub fn unsupported(items: &Items, claims: &Claims) -> Vec<Difference> {
    let difference = |key: (Kind, String)| {
        let said = items.get(&key).map(|item| &item.answers);
        if said.is_some_and(|answers| answers.kernels(Known::Yes).next().is_some()) {
            return None;
        }
        let words: BTreeSet<String> =
            said.into_iter().flat_map(|answers| &answers.0).map(|(_, answer)| answer.words()).collect();
        let answers =
            if words.is_empty() { vec![NOT_MEASURED.to_owned()] } else { words.into_iter().collect() };
        Some(Difference { kind: key.0.name(), name: key.1, kernels: Vec::new(), answers })
    };
    documented(claims).into_iter().filter_map(difference).collect()
}

/// Of a name that no probe has asked about.
const NOT_MEASURED: &str = "not measured";

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
    keep_whole(&mut table, 1);
    format!("{}\n{} in all\n", table.trim_fmt(), differences.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::claims::{Entry, File};
    use crate::facts;
    use crate::normalize::NormalCase;
    use crate::snapshot::Snapshot;
    use crate::snapshot::made_up::{self, done, names};
    use probes::record::End;
    use serde_json::{Value, json};

    fn claims() -> Claims {
        let entry = |name: &str| Entry { name: name.to_owned(), since: None, until: None };
        let helpers = ["bpf_loop", "bpf_get_func_ip", "bpf_get_prandom_u32"].map(entry).into();
        let lists = vec![
            (List::Helpers, helpers),
            (List::Kfuncs, ["bpf_dynptr_size", "hid_bpf_get_data", "bpf_gone"].map(entry).into()),
        ];
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
        let kfunc = |name: &str, answer| {
            case(name, &json!({"LSM programs": "may NOT call it", "sleepable LSM programs": answer}))
        };
        let absent = |name: &str| {
            let end = End::Absent { what: format!("kfunc {name}") };
            NormalCase { end, ..done(name) }
        };
        let kfuncs = vec![
            kfunc("bpf_new", "may call it"),
            kfunc("bpf_dynptr_size", "may NOT call it"),
            absent("hid_bpf_get_data"),
            absent("bpf_gone"),
        ];
        BTreeMap::from([
            helper("bpf_get_stack", "yes"),
            helper("bpf_loop", "yes"),
            helper("bpf_get_func_ip", "no"),
            helper("bpf_redirect", "no"),
            snapshot("kfuncs/inventory", kfuncs),
        ])
    }

    fn items() -> Items {
        facts::collect(&snapshots(), &names(&["k"]))
    }

    #[test]
    fn what_may_be_called_and_is_not_listed_is_found() {
        let found = undocumented(&items(), &claims());
        let found: Vec<_> = found.iter().map(|it| (it.kind, it.name.as_str())).collect();
        assert_eq!(found, [("helper", "bpf_get_stack"), ("kfunc", "bpf_new")]);
    }

    #[test]
    fn what_is_listed_and_refused_everywhere_says_how() {
        let found = unsupported(&items(), &claims());
        let answer = |name: &str| found.iter().find(|it| it.name == name).map(|it| it.answers.join("; "));
        assert_eq!(answer("bpf_get_func_ip").as_deref(), Some("no: no LSM program may call it"));
        assert_eq!(answer("bpf_dynptr_size").as_deref(), Some("no: may NOT call it"));
        assert_eq!(answer("bpf_gone").as_deref(), Some("not in the kernel"));
        let build = "not in this build, perhaps for want of CONFIG_HID_BPF";
        assert_eq!(answer("hid_bpf_get_data").as_deref(), Some(build));
        assert_eq!(answer("bpf_get_prandom_u32").as_deref(), Some("not measured"));
        assert_eq!(answer("bpf_loop"), None);
    }
}
