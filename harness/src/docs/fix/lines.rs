//! A text whose lines are kept, dropped and added to, so that everything else stays byte for byte.

use std::collections::BTreeMap;

/// A text under correction. Lines are counted from 0 and stay what they were while corrections are noted.
#[derive(Clone, Debug)]
pub(super) struct Lines {
    lines: Vec<Option<String>>,
    before: BTreeMap<usize, Vec<String>>,
}

impl Lines {
    pub(super) fn of(text: &str) -> Self {
        let lines = text.split_inclusive('\n').map(|line| Some(line.to_owned())).collect();
        Self { lines, before: BTreeMap::new() }
    }

    /// A line without its end; empty where there is none any more.
    pub(super) fn get(&self, line: usize) -> &str {
        self.lines.get(line).and_then(Option::as_deref).unwrap_or_default().trim_end_matches(['\n', '\r'])
    }

    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    pub(super) fn drop(&mut self, line: usize) {
        if let Some(line) = self.lines.get_mut(line) {
            *line = None;
        }
    }

    pub(super) fn replace(&mut self, line: usize, from: &str, to: &str) {
        if let Some(Some(line)) = self.lines.get_mut(line) {
            *line = line.replacen(from, to, 1);
        }
    }

    /// Makes a line another, with the end that it has.
    pub(super) fn set(&mut self, line: usize, text: &str) {
        if let Some(Some(line)) = self.lines.get_mut(line) {
            let end = line.trim_end_matches(['\n', '\r']).len();
            line.replace_range(..end, text);
        }
    }

    /// Puts a line before another, behind what was put there already.
    pub(super) fn insert(&mut self, before: usize, text: String) {
        self.before.entry(before).or_default().push(text);
    }

    pub(super) fn text(&self) -> String {
        let mut text = String::new();
        for place in 0..=self.lines.len() {
            for added in self.before.get(&place).into_iter().flatten() {
                if !text.is_empty() && !text.ends_with('\n') {
                    text.push('\n');
                }
                text += added;
                text.push('\n');
            }
            text += self.lines.get(place).and_then(Option::as_deref).unwrap_or_default();
        }
        text
    }
}

/// A key of YAML and the lines below it: from the one after the key to the one before the next that is no deeper.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Block {
    /// The key.
    pub(super) key: String,
    /// Its first line.
    pub(super) start: usize,
    /// The line after its last.
    pub(super) end: usize,
}

/// The keys at an indentation between two lines, with their lines. Comments and blanks at a block's end belong to nobody.
pub(super) fn blocks(lines: &Lines, from: usize, to: usize, indent: usize) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    for place in from..to {
        let line = lines.get(place);
        let text = line.trim_start();
        if text.is_empty() || text.starts_with('#') {
            continue;
        }
        let depth = line.len() - text.len();
        let key = text.strip_suffix(':').filter(|key| depth == indent && !key.starts_with('-'));
        if let Some(key) = key {
            found.push(Block { key: key.to_owned(), start: place + 1, end: place + 1 });
        } else if let Some(block) = found.last_mut() {
            block.end = place + 1;
        }
    }
    found
}
