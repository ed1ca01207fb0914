//! The probes themselves, as a table or as JSON.
//!
//! The JSON is an array of objects with the fields of [`ProbeInfo`].

use comfy_table::{ContentArrangement, Table, presets};
use probes::protocol::Machine;
use probes::spec::Probe;
use serde::{Deserialize, Serialize};

/// What a probe is, without its function.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeInfo {
    /// `<family>/<name>`.
    pub id: String,
    /// The part of the id before the first slash.
    pub family: String,
    /// The question it asks.
    pub question: String,
    /// The virtual machine it needs: `"shared"`, `"own"`, or `{"lsm": {"order": ".."}}`.
    pub machine: Machine,
    /// The kernel source that the question rests on.
    pub sources: Vec<SourceInfo>,
}

/// A place in the kernel's source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceInfo {
    /// The version that was read.
    pub version: String,
    /// Path in the kernel tree.
    pub file: String,
    /// Function, macro or table.
    pub symbol: String,
}

impl From<&Probe> for ProbeInfo {
    fn from(probe: &Probe) -> Self {
        let source = |source: &probes::spec::Source| SourceInfo {
            version: source.version.to_owned(),
            file: source.file.to_owned(),
            symbol: source.symbol.to_owned(),
        };
        Self {
            id: probe.id.clone(),
            family: probe.family().to_owned(),
            question: probe.question.clone(),
            machine: probe.machine.clone(),
            sources: probe.sources.iter().map(source).collect(),
        }
    }
}

/// The probes as a table of at most `width` columns; the last line counts them.
#[must_use]
pub fn table(probes: &[ProbeInfo], width: u16) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Dynamic).set_width(width);
    for probe in probes {
        let sources: Vec<String> = probe.sources.iter().map(source_line).collect();
        let machine = match &probe.machine {
            Machine::Shared => String::new(),
            Machine::Own => " (own machine)".to_owned(),
            Machine::Lsm { order } => format!(" (booted with lsm={order})"),
        };
        table.add_row([probe.id.clone(), format!("{}{machine}", probe.question), sources.join("\n")]);
    }
    super::keep_whole(&mut table, 0);
    format!("{}\n{}\n", table.trim_fmt(), super::counted(probes.len(), "probe"))
}

fn source_line(source: &SourceInfo) -> String {
    format!("{} {} {}", source.version, source.file, source.symbol)
}

/// The probes as JSON.
///
/// # Errors
/// Never for these types; the error is serde's.
pub fn json(probes: &[ProbeInfo]) -> Result<String, serde_json::Error> {
    serde_json::to_string_pretty(probes)
}

/// A probe for tests.
#[cfg(test)]
pub(crate) fn made_up() -> ProbeInfo {
    ProbeInfo {
        id: "a/b".to_owned(),
        family: "a".to_owned(),
        question: "Why?".to_owned(),
        machine: Machine::Own,
        sources: vec![SourceInfo {
            version: "6.12".into(),
            file: "kernel/bpf/bpf_lsm.c".into(),
            symbol: "f".into(),
        }],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_becomes_its_description() {
        let source = probes::spec::source("6.12", "kernel/bpf/bpf_lsm.c", "f");
        let probe = Probe::new("a/b", "Why?", &[source], |_| Ok(())).own_machine();
        assert_eq!(ProbeInfo::from(&probe), made_up());
    }

    #[test]
    fn a_table_names_everything() {
        let text = table(&[made_up()], 120);
        for part in ["a/b", "Why?", "own machine", "6.12 kernel/bpf/bpf_lsm.c f", "\n1 probe\n"] {
            assert!(text.contains(part), "{text}");
        }
        assert!(text.lines().all(|line| line.chars().count() <= 120));
    }

    /// Who looks for an id must find it.
    #[test]
    fn an_id_is_never_broken() {
        let id = format!("attach/{}", "long-".repeat(8));
        let question = "why ".repeat(40);
        let text = table(&[ProbeInfo { id: id.clone(), question, ..made_up() }], 80);
        assert!(text.contains(&id), "{text}");
    }

    #[test]
    fn json_is_read_back() {
        let text = json(&[made_up()]).unwrap();
        assert!(text.contains(r#""machine": "own""#), "{text}");
        assert_eq!(serde_json::from_str::<Vec<ProbeInfo>>(&text).unwrap(), [made_up()]);
    }
}
