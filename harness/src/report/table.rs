//! The report for people: what was seen per family and kernel, where the time went, what needs attention.
//!
//! Kernels stand across. Where they do not fit the width, the table is continued below with the next kernels; a
//! measure that is zero everywhere has no line. Plain ASCII unless asked otherwise, colours only where asked for.

use super::Material;
use super::counted;
use super::counts::Counts;
use crate::model::{KernelRun, Timing};
use crate::snapshot::compare::message;
use crate::snapshot::{Comparison, Verdict};
use comfy_table::{CellAlignment, Table};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// How the tables look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// Columns available.
    pub width: usize,
    /// Lines drawn with box characters instead of ASCII.
    pub unicode: bool,
    /// Diffs in colour; only for a terminal.
    pub colour: bool,
}

impl Default for Look {
    fn default() -> Self {
        Self { width: 120, unicode: false, colour: false }
    }
}

/// comfy-table's presets with nothing but a line under the head: the sixth and seventh place.
const ASCII: &str = "     --            ";
const UNICODE: &str = "     ──            ";

/// What each measure counts.
const LEGEND: &str = "\
accepted, refused, absent, fired, denied: cases; could not tell: cases and probes;
crashed, hung, not run, different and missing (from the snapshot): probes. A dot is zero.
";

/// The whole report.
#[must_use]
pub fn render(material: Material<'_>, look: Look) -> String {
    let runs = material.ordered_runs();
    let mut text = String::new();
    text += &grid("counts", &runs, &count_rows(material, &runs), look);
    text.push('\n');
    text += LEGEND;
    text.push('\n');
    text += &grid("seconds", &runs, &time_rows(&runs), look);
    text += &notes(&runs);
    text += &attention(material, look.colour);
    text += &summary(&runs, material.comparison);
    text
}

/// A line of a grid: its title and a cell per kernel, then the total.
struct Row {
    title: [String; 2],
    cells: Vec<String>,
    total: String,
}

fn count_rows(material: Material<'_>, runs: &[&KernelRun]) -> Vec<Row> {
    let counted: Vec<BTreeMap<&str, Counts>> =
        runs.iter().map(|run| count_families(run, material.comparison)).collect();
    let mut rows = Vec::new();
    for family in material.families() {
        let of_kernels: Vec<Counts> =
            counted.iter().map(|families| families.get(family).copied().unwrap_or_default()).collect();
        rows.extend(measure_rows(family, &of_kernels));
    }
    let all: Vec<Counts> = counted.iter().map(|families| families.values().copied().sum()).collect();
    rows.extend(measure_rows("all", &all));
    rows
}

fn count_families<'a>(run: &'a KernelRun, comparison: &Comparison) -> BTreeMap<&'a str, Counts> {
    let verdicts = comparison.of_kernel(&run.kernel);
    let mut families: BTreeMap<&str, Counts> = BTreeMap::new();
    for record in &run.records {
        let counts = Counts::of(record, verdicts.get(record.probe.as_str()).copied());
        *families.entry(probes::spec::family_of(&record.probe)).or_default() += counts;
    }
    families
}

fn measure_rows(family: &str, of_kernels: &[Counts]) -> Vec<Row> {
    let total: Counts = of_kernels.iter().copied().sum();
    let mut rows = Vec::new();
    for (place, (measure, sum)) in total.measures().into_iter().enumerate() {
        if sum > 0 {
            let title = if rows.is_empty() { family } else { "" };
            let cells = of_kernels.iter().map(|counts| number(counts.measures()[place].1)).collect();
            rows.push(Row { title: [title.to_owned(), measure.to_owned()], cells, total: number(sum) });
        }
    }
    rows
}

/// A dot for zero, so that the eye finds the numbers.
fn number(count: u32) -> String {
    if count == 0 { ".".to_owned() } else { count.to_string() }
}

/// Takes one part of the time, in milliseconds.
type TimePart = fn(&Timing) -> u64;

fn time_rows(runs: &[&KernelRun]) -> Vec<Row> {
    let parts: [(&str, TimePart); 4] = [
        ("boot", |timing| timing.boot_ms),
        ("probes", |timing| timing.probes_ms),
        ("rest", |timing| timing.rest_ms),
        ("all", |timing| timing.all_ms()),
    ];
    let row = |(title, part): (&str, TimePart)| {
        let spent: Vec<u64> = runs.iter().map(|run| part(&run.timing)).collect();
        Row {
            title: [String::new(), title.to_owned()],
            cells: spent.iter().copied().map(seconds).collect(),
            total: seconds(spent.iter().sum()),
        }
    };
    parts.into_iter().map(row).collect()
}

fn seconds(millis: u64) -> String {
    format!("{}.{}", millis / 1000, millis % 1000 / 100)
}

/// The rows as tables of as many kernels as fit the width.
fn grid(title: &str, runs: &[&KernelRun], rows: &[Row], look: Look) -> String {
    let mut text = String::new();
    for columns in pieces(runs, rows, look.width) {
        let last = columns.end == runs.len();
        let mut table = Table::new();
        table.load_preset(if look.unicode { UNICODE } else { ASCII });
        table.set_truncation_indicator("~");
        let total = |text: &str| last.then(|| text.to_owned());
        let head = runs[columns.clone()].iter().map(|run| run.kernel.clone());
        table.set_header([title.to_owned(), String::new()].into_iter().chain(head).chain(total("total")));
        for row in rows {
            let cells = row.cells[columns.clone()].iter().cloned();
            table.add_row(row.title.iter().cloned().chain(cells).chain(total(&row.total)));
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 1));
            if column.index > 1 {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        for line in table.lines() {
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

/// Ranges of kernels whose columns, with the two titles and a total, fit the width; at least one each.
fn pieces(runs: &[&KernelRun], rows: &[Row], width: usize) -> Vec<std::ops::Range<usize>> {
    let widest =
        |texts: &mut dyn Iterator<Item = &str>| texts.map(|text| text.chars().count()).max().unwrap_or(0) + 2;
    let titles = widest(&mut rows.iter().map(|row| row.title[0].as_str()).chain(["seconds", "counts"]))
        + widest(&mut rows.iter().map(|row| row.title[1].as_str()));
    let total = widest(&mut rows.iter().map(|row| row.total.as_str()).chain(["total"]));
    let mut pieces: Vec<std::ops::Range<usize>> = Vec::new();
    let (mut start, mut used) = (0, titles + total);
    for (place, run) in runs.iter().enumerate() {
        let cells = rows.iter().map(|row| row.cells[place].as_str());
        let column = widest(&mut cells.chain([run.kernel.as_str()]));
        if place > start && used + column > width {
            pieces.push(start..place);
            (start, used) = (place, titles + total);
        }
        used += column;
    }
    pieces.push(start..runs.len());
    pieces
}

/// What a reader should know of how the run was made.
fn notes(runs: &[&KernelRun]) -> String {
    let mut text = String::new();
    for run in runs {
        let mut note = |what: String| {
            let _ = writeln!(text, "{}: {what}", run.kernel);
        };
        if let Some(failure) = &run.failure {
            note(format!("could not be run: {failure}"));
        }
        if let Some(substituted) = &run.image.substituted {
            note(format!("not the row's version: {substituted}"));
        }
        if run.boot_retries > 0 {
            note(format!("{} of {} boots died early and were tried again", run.boot_retries, run.boots));
            run.boots_lost.iter().for_each(|lost| note(format!("one of them: {lost}")));
        }
        for again in &run.asked_again {
            note(format!("asked again: {again}"));
        }
        for lost in &run.lost_between {
            note(format!("a machine was lost between probes, {lost}"));
        }
        for warning in &run.warned_between {
            note(format!("the kernel warned between probes, {warning}"));
        }
        for step in run.facts.iter().flat_map(|facts| &facts.setup) {
            note(format!("the guest could not prepare: {step}"));
        }
    }
    if text.is_empty() { text } else { format!("\n{text}") }
}

/// Every verdict that needs a person, kernels with the same one together.
fn attention(material: Material<'_>, colour: bool) -> String {
    let mut groups: Vec<(&str, &Verdict, Vec<&str>)> = Vec::new();
    let mut lost: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for cell in &material.comparison.cells {
        let (probe, kernel) = (cell.probe.as_str(), cell.kernel.as_str());
        match &cell.verdict {
            Verdict::Matched => {}
            Verdict::NotCompared { why } => lost.entry((kernel, why)).or_default().push(probe),
            verdict @ (Verdict::Different { .. } | Verdict::Missing | Verdict::Stale { .. }) => {
                let same =
                    |(known, of, _): &&mut (&str, &Verdict, Vec<&str>)| *known == probe && *of == verdict;
                match groups.iter_mut().find(same) {
                    Some((_, _, kernels)) => kernels.push(kernel),
                    None => groups.push((probe, verdict, vec![kernel])),
                }
            }
        }
    }
    let mut text = String::new();
    for ((kernel, why), probes) in lost {
        let _ = writeln!(text, "\n{kernel}: {} not compared: {why}", probe_count(&probes));
    }
    for (probe, verdict, kernels) in groups {
        if let Some(message) = message(probe, &kernels, verdict, material.matrix, colour) {
            let _ = writeln!(text, "\n{message}");
        }
    }
    text
}

fn probe_count(probes: &[&str]) -> String {
    match probes {
        [one] => (*one).to_owned(),
        several => counted(several.len(), "probe"),
    }
}

fn summary(runs: &[&KernelRun], comparison: &Comparison) -> String {
    let count = |name: &str| comparison.cells.iter().filter(|cell| cell.verdict.name() == name).count();
    let parts: Vec<String> = ["matched", "different", "missing", "not-compared", "stale"]
        .into_iter()
        .map(|name| format!("{} {}", count(name), name.replace('-', " ")))
        .collect();
    format!("\n{}: {}\n", counted(runs.len(), "kernel"), parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::made_up;
    use crate::snapshot::made_up::names;
    use rstest::rstest;

    fn text(runs: &[KernelRun], comparison: &Comparison, look: Look) -> String {
        let (matrix, probes) = (names(&["5.10", "6.1"]), made_up::probes());
        render(Material { runs, comparison, matrix: &matrix, probes: &probes }, look)
    }

    #[test]
    fn a_report_reads_well() {
        insta::assert_snapshot!(text(&made_up::runs(), &made_up::comparison(), Look::default()), @"
        counts                  5.10  6.1  total
        -----------------------------------------
        rules   absent             .    1      1
                could not tell     .    1      1
                crashed            .    1      1
                not run            1    .      1
                different          .    1      1
        hooks   accepted           .    1      1
                refused            .    1      1
                fired              .    1      1
                denied             .    1      1
                not run            1    .      1
        all     accepted           .    1      1
                refused            .    1      1
                absent             .    1      1
                fired              .    1      1
                denied             .    1      1
                could not tell     .    1      1
                crashed            .    1      1
                not run            2    .      2
                different          .    1      1

        accepted, refused, absent, fired, denied: cases; could not tell: cases and probes;
        crashed, hung, not run, different and missing (from the snapshot): probes. A dot is zero.

        seconds          5.10  6.1  total
        ----------------------------------
                 boot     0.0  4.2    4.2
                 probes   0.0  1.5    1.5
                 rest     0.0  0.3    0.3
                 all      0.0  6.0    6.0

        5.10: could not be run: no boot
        6.1: not the row's version: 6.1.1 was gone, took 6.1.2
        6.1: 1 of 2 boots died early and were tried again
        6.1: one of them: before hello: BUG
        6.1: asked again: hooks/attach, whose machine was ended from outside

        5.10: 2 probes not compared: no boot

        rules/return on 6.1: differs from the snapshot (- snapshot, + this run)
        @@ case c
        -done at read
        +absent at open
        to accept: cargo conform accept --probe rules/return --kernel 6.1
               or: cargo insta review

        old/gone: no such probe any more; cargo conform accept --probe old/gone --prune removes its file

        2 kernels: 1 matched, 1 different, 0 missing, 2 not compared, 1 stale
        ");
    }

    fn many(count: u32) -> Vec<KernelRun> {
        let run = |number| KernelRun { kernel: format!("6.{number}"), ..made_up::runs().remove(0) };
        (0..count).map(run).collect()
    }

    #[rstest]
    #[case(11, 120, 1)]
    #[case(37, 120, 3)]
    #[case(3, 10, 3)]
    fn tables_fit_the_width(#[case] kernels: u32, #[case] width: usize, #[case] expected: usize) {
        let runs = many(kernels);
        let look = Look { width, ..Look::default() };
        let text = text(&runs, &Comparison::default(), look);
        let tables = text.lines().filter(|line| line.starts_with("seconds")).count();
        assert_eq!(tables, expected, "{text}");
        let table_lines = text.lines().take_while(|line| !line.starts_with("accepted"));
        assert!(width < 80 || table_lines.clone().all(|line| line.chars().count() <= width), "{text}");
        assert!(text.is_ascii());
    }

    #[test]
    fn kernels_with_the_same_difference_are_told_once() {
        let mut comparison = made_up::comparison();
        let mut other = comparison.cells[1].clone();
        other.kernel = "6.2".to_owned();
        comparison.cells.push(other);
        let matrix = names(&["6.1", "6.2"]);
        let material = Material { runs: &[], comparison: &comparison, matrix: &matrix, probes: &[] };
        let text = attention(material, false);
        assert_eq!(text.matches("+absent at open").count(), 1, "{text}");
        assert!(text.contains("--kernel 6.1 --kernel 6.2"), "{text}");
    }

    #[test]
    fn an_empty_run_is_a_report_too() {
        assert!(text(&[], &Comparison::default(), Look::default()).contains("0 kernels: 0 matched"));
    }
}
