//! How much of the family `hooks` the records cover, per kernel, and what has not fired: from the snapshots alone.
//!
//! ```text
//! list --coverage --format json    an array, one object per kernel in matrix order
//!   kernel          the row's name
//!   functions       `bpf_lsm_*` functions in the kernel's BTF
//!   hooks           those of them that are hooks, disabled ones included: by the kernel's answer to a program for them or,
//!                   where it refuses one before it looks and where it takes any name, by its list of hooks
//!   attachable      hooks that a program attaches to
//!   fired           attachable hooks whose trigger made a program run for the trigger's own task
//!   int_attachable  attachable hooks that return something
//!   denied          int_attachable hooks with a verdict that user space saw, as the errno or as another effect, where
//!                   the same act ended otherwise without the program. Of hooks whose value is no errno it may grant
//!                   what was refused (`inode_xattr_skipcap`): `compat/hooks.json` has those as `decides`, not `denies`
//!
//! list --unfired --format json     an array, one object per kernel and hook
//!   kernel, hook    as above; the hook without `bpf_lsm_`
//!   reason          why it did not fire
//! ```

use super::{counted, keep_whole};
use crate::facts::took_effect;
use crate::normalize::Normal;
use crate::snapshot::{Snapshot, kernels::phrase};
use comfy_table::{ContentArrangement, Table, presets};
use probes::families::hooks::{is_hook, unfired};
use probes::record::End;
use probes::spec::family_of;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// The family that is about hooks.
const FAMILY: &str = "hooks";
/// What is printed where nobody has written down a reason.
const UNKNOWN: &str = "no reason known";

/// One kernel's figures. The module's documentation says what each is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// The row's name.
    pub kernel: String,
    /// Functions that could be hooks.
    pub functions: usize,
    /// Hooks.
    pub hooks: usize,
    /// Hooks that a program attaches to.
    pub attachable: usize,
    /// Those that fired.
    pub fired: usize,
    /// Those that return something.
    pub int_attachable: usize,
    /// Those of them that were denied.
    pub denied: usize,
}

/// An attachable hook that did not fire on a kernel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unfired {
    /// The row's name.
    pub kernel: String,
    /// The hook, without `bpf_lsm_`.
    pub hook: String,
    /// Why.
    pub reason: String,
}

/// What one record says of its function.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Hook {
    function: bool,
    hook: bool,
    attachable: bool,
    fired: bool,
    int: bool,
    denied: bool,
}

impl Hook {
    fn of(normal: &Normal) -> Self {
        let case = |name: &str| normal.case(name);
        let inventory = case("inventory").filter(|case| case.end == End::Done);
        let fact = |key: &str| inventory.and_then(|case| case.seen.get(key));
        let hook = fact("hook").and_then(Value::as_str).is_some_and(is_hook);
        let attachable = hook && case("attach").is_some_and(|case| case.end == End::Done);
        Self {
            function: inventory.is_some(),
            hook,
            attachable,
            fired: attachable && case("fire").is_some_and(|case| case.fired == Some(true)),
            int: fact("slot of ret").is_some_and(Value::is_number),
            denied: attachable && normal.cases.iter().any(took_effect),
        }
    }
}

/// The records of the family, hook by hook.
fn hooks(snapshots: &BTreeMap<String, Snapshot>) -> impl Iterator<Item = (&str, &Snapshot)> {
    snapshots
        .iter()
        .filter(|(id, _)| family_of(id) == FAMILY)
        .filter_map(|(id, snapshot)| Some((id.split_once('/')?.1, snapshot)))
}

/// The figures of each kernel, from what the snapshots hold of it.
#[must_use]
pub fn coverage(snapshots: &BTreeMap<String, Snapshot>, kernels: &[String]) -> Vec<Coverage> {
    let of_kernel = |kernel: &String| {
        let mut sum = Coverage { kernel: kernel.clone(), ..Coverage::default() };
        for (_, snapshot) in hooks(snapshots) {
            let hook = snapshot.of(kernel).map(Hook::of).unwrap_or_default();
            sum.functions += usize::from(hook.function);
            sum.hooks += usize::from(hook.hook);
            sum.attachable += usize::from(hook.attachable);
            sum.fired += usize::from(hook.fired);
            sum.int_attachable += usize::from(hook.attachable && hook.int);
            sum.denied += usize::from(hook.int && hook.denied);
        }
        sum
    };
    kernels.iter().map(of_kernel).collect()
}

/// Every attachable hook that did not fire, per kernel.
#[must_use]
pub fn unfired(snapshots: &BTreeMap<String, Snapshot>, kernels: &[String]) -> Vec<Unfired> {
    let mut found = Vec::new();
    for kernel in kernels {
        for (hook, snapshot) in hooks(snapshots) {
            let Some(normal) = snapshot.of(kernel) else { continue };
            let is = Hook::of(normal);
            if is.attachable && !is.fired {
                let reason = unfired::reason(hook).map_or_else(|| from_record(normal), str::to_owned);
                found.push(Unfired { kernel: kernel.clone(), hook: hook.to_owned(), reason });
            }
        }
    }
    found
}

/// What the record itself says, where the table has no reason.
fn from_record(normal: &Normal) -> String {
    let Some(case) = normal.case("fire") else { return UNKNOWN.to_owned() };
    match &case.end {
        End::CouldNotTell { why } => format!("{UNKNOWN}; {why}"),
        End::Refused { errno } => format!("{UNKNOWN}; the trigger's program is refused with {errno}"),
        End::Done | End::Absent { .. } => format!("{UNKNOWN}; its trigger does not make it run"),
    }
}

/// The figures as a table.
#[must_use]
pub fn coverage_table(figures: &[Coverage]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(["kernel", "functions", "hooks", "attachable", "fired", "", "int", "denied", ""]);
    let percent = |part: usize, whole: usize| {
        (part * 100).checked_div(whole).map(|share| format!("{share} %")).unwrap_or_default()
    };
    for it in figures {
        table.add_row([
            it.kernel.clone(),
            it.functions.to_string(),
            it.hooks.to_string(),
            it.attachable.to_string(),
            it.fired.to_string(),
            percent(it.fired, it.attachable),
            it.int_attachable.to_string(),
            it.denied.to_string(),
            percent(it.denied, it.int_attachable),
        ]);
    }
    format!("{}\n", table.trim_fmt())
}

/// The hooks that did not fire as a table of at most `width` columns: a line per hook and reason, with its kernels.
#[must_use]
pub fn unfired_table(unfired: &[Unfired], kernels: &[String], width: u16) -> String {
    let mut lines: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for it in unfired {
        lines.entry((&it.hook, &it.reason)).or_default().push(&it.kernel);
    }
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    table.set_header(["hook", "on", "reason"]);
    for ((hook, reason), on) in &lines {
        let places: Vec<usize> = kernels
            .iter()
            .enumerate()
            .filter(|(_, name)| on.contains(&name.as_str()))
            .map(|(at, _)| at)
            .collect();
        let on = phrase(kernels, &places);
        table.add_row([*hook, &on, reason]);
    }
    keep_whole(&mut table, 0);
    let mut text = format!("{}\n", table.trim_fmt());
    for kernel in kernels {
        let here: Vec<&Unfired> = unfired.iter().filter(|it| it.kernel == *kernel).collect();
        let unknown = here.iter().filter(|it| it.reason.starts_with(UNKNOWN)).count();
        text += &format!(
            "{kernel}: {} did not fire, {unknown} with no reason known\n",
            counted(here.len(), "attachable hook")
        );
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::normalize::NormalCase;
    use crate::snapshot::made_up::{self, done, names, refused};
    use rstest::rstest;
    use serde_json::json;

    fn inventory(hook: &str, ret: &Value) -> NormalCase {
        let seen = json!({"hook": hook, "prototype": "..", "slots": 2, "slot of ret": ret});
        NormalCase { seen: seen.as_object().unwrap().clone(), ..plain("inventory") }
    }

    fn plain(name: &str) -> NormalCase {
        NormalCase { accepted: None, fired: None, ..done(name) }
    }

    fn absent(name: &str) -> NormalCase {
        NormalCase { end: End::Absent { what: "function x".into() }, ..plain(name) }
    }

    fn unable(name: &str) -> NormalCase {
        NormalCase { end: End::CouldNotTell { why: "no device".into() }, ..plain(name) }
    }

    fn effect(name: &str, seen: &str, control: &str) -> NormalCase {
        let seen = json!({"user space sees": seen, "not the target": control});
        NormalCase { seen: seen.as_object().unwrap().clone(), ..done(name) }
    }

    const TAKEN: &str = "no, but taken for one: the kernel looks at the prefix alone";
    const LISTED: &str = "yes, by the kernel's list; the load is refused before it looks";

    fn snapshots() -> BTreeMap<String, Snapshot> {
        let int = || inventory("yes", &json!(1));
        let void = || inventory("yes", &json!("none"));
        let denied = NormalCase { denied: Some(true), ..done("deny-EPERM") };
        let ignored = NormalCase { denied: Some(false), ..effect("deny-EPERM", "ok", "ok") };
        let probes = [
            ("hooks/all", vec![int(), plain("attach"), done("fire"), denied]),
            ("hooks/effect", vec![int(), plain("attach"), done("fire"), effect("return-1", "seen", "ok")]),
            ("hooks/ignored", vec![int(), plain("attach"), done("fire"), ignored]),
            (
                "hooks/void",
                vec![void(), plain("attach"), done("fire"), effect("return-EPERM", "ok", "EPERM")],
            ),
            ("hooks/untriggered", vec![void(), plain("attach")]),
            ("hooks/unable", vec![int(), plain("attach"), unable("fire"), unable("deny-EPERM")]),
            ("hooks/silent", vec![int(), plain("attach"), NormalCase { fired: Some(false), ..done("fire") }]),
            ("hooks/disabled", vec![inventory("disabled", &json!(1)), refused("attach", "disabled")]),
            ("hooks/helper", vec![inventory("no", &json!(1)), refused("attach", "wrong type")]),
            ("hooks/prefix", vec![inventory(TAKEN, &json!(1)), plain("attach")]),
            ("hooks/listed", vec![inventory(LISTED, &json!(1)), refused("attach", "an argument")]),
            ("hooks/elsewhere", vec![absent("inventory")]),
            ("hooks/all-together", vec![plain("attach"), done("ordinary-things")]),
            ("chain/two", vec![int(), plain("attach"), done("fire")]),
        ];
        let snapshot = |(id, cases): (&str, Vec<NormalCase>)| {
            (id.to_owned(), made_up::snapshot(id, vec![("6.1", cases)]))
        };
        probes.into_iter().map(snapshot).collect()
    }

    #[test]
    fn figures_count_each_hook_once() {
        let found = coverage(&snapshots(), &names(&["6.1", "7.3"]));
        assert_eq!(
            serde_json::to_value(&found).unwrap(),
            json!([
                {"kernel": "6.1", "functions": 11, "hooks": 9, "attachable": 7, "fired": 4, "int_attachable": 5, "denied": 2},
                {"kernel": "7.3", "functions": 0, "hooks": 0, "attachable": 0, "fired": 0, "int_attachable": 0, "denied": 0},
            ])
        );
    }

    #[rstest]
    #[case("untriggered", "no reason known")]
    #[case("unable", "no reason known; no device")]
    #[case("silent", "no reason known; its trigger does not make it run")]
    fn nothing_is_silently_missing(#[case] hook: &str, #[case] reason: &str) {
        let found = unfired(&snapshots(), &names(&["6.1"]));
        assert_eq!(found.iter().find(|it| it.hook == hook).unwrap().reason, reason);
        assert_eq!(found.len(), 3);
        let text = unfired_table(&found, &names(&["6.1"]), 110);
        assert!(text.contains("6.1: 3 attachable hooks did not fire, 3 with no reason known"), "{text}");
        assert!(text.contains(hook) && text.contains(reason), "{text}");
    }
}
