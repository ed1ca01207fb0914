//! A page of the documentation, read as it is: its passages with their headings, its feature tags, and the lists that a
//! generator wrote between comment markers.
//!
//! Markdown gives the passages (paragraphs, code blocks, items), so that links, emphasis and line breaks do not matter to
//! whoever looks for words. Tags and lists are read line by line: an indented list below `???` is, to Markdown, the rest
//! of a paragraph.

use crate::claims::{List, Place};
use crate::exit::{self, ExitCode};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};
use regex::Regex;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

/// A page that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("cannot read {}: {source}; give the path of a page", path.display())]
pub struct PageError {
    path: PathBuf,
    source: std::io::Error,
}

impl ExitCode for PageError {
    fn exit_code(&self) -> u8 {
        exit::BAD_INPUT
    }
}

/// A paragraph, code block or item.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passage {
    /// The heading above it, without markup; shared, for a page may have as many passages as it has lines.
    pub heading: Arc<str>,
    /// Its text, without markup, in lower case and with single spaces.
    text: String,
    /// Where in `text` a line of the page begins: offset and line, ascending.
    lines: Vec<(usize, usize)>,
    /// Whether what comes next begins a word.
    open: bool,
}

/// A version at a feature of the page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FeatureTag {
    /// The feature's name.
    pub feature: String,
    /// The version as written, such as `v5.7`.
    pub version: String,
    /// Its line, from 1.
    pub line: usize,
}

/// One entry of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageEntry {
    /// The name.
    pub name: String,
    /// Where it links to.
    pub link: String,
    /// The version at its tag, such as `v6.0`.
    pub since: Option<String>,
    /// The version behind the dash, the first in which it may not be called any more.
    pub until: Option<String>,
    /// Its line, from 1.
    pub line: usize,
}

impl PageEntry {
    /// An entry that is nothing but a name.
    #[must_use]
    pub fn bare(name: &str) -> Self {
        Self { name: name.to_owned(), link: String::new(), since: None, until: None, line: 0 }
    }
}

/// A list between its markers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageList {
    /// Which.
    pub list: List,
    /// The line of its first marker, from 1.
    pub line: usize,
    /// Its entries, in the page's order.
    pub entries: Vec<PageEntry>,
    /// Lines that are no entries, with what they say.
    pub not_read: Vec<(usize, String)>,
}

/// A page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Page {
    /// The path as given.
    pub path: PathBuf,
    /// The text as it is.
    pub text: String,
    /// Its passages, in order.
    pub passages: Vec<Passage>,
    /// Its feature tags.
    pub tags: Vec<FeatureTag>,
    /// Its lists.
    pub lists: Vec<PageList>,
}

impl Page {
    /// Reads a page.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn load(path: &Path) -> Result<Self, PageError> {
        let text = crate::text::read(path, crate::text::WRITTEN)
            .map_err(|source| PageError { path: path.to_owned(), source })?;
        Ok(Self::parse(path, &text))
    }

    /// Reads the text of a page. Every text is a page.
    #[must_use]
    pub fn parse(path: &Path, text: &str) -> Self {
        Self {
            path: path.to_owned(),
            text: text.to_owned(),
            passages: passages(text),
            tags: tags(text),
            lists: lists(text),
        }
    }

    /// The line on which a statement begins: below its heading, else anywhere.
    #[must_use]
    pub fn find(&self, place: &Place) -> Option<usize> {
        let heading = plain(&place.heading);
        let below = self.passages.iter().filter(|passage| *passage.heading == *heading);
        let elsewhere = self.passages.iter().filter(|passage| *passage.heading != *heading);
        below.chain(elsewhere).find_map(|passage| passage.find(&place.words))
    }

    /// The entries of a list, of all lists of the kind together.
    pub fn entries(&self, list: List) -> impl Iterator<Item = &PageEntry> {
        self.lists.iter().filter(move |found| found.list == list).flat_map(|found| &found.entries)
    }
}

impl Passage {
    /// The line of the first of these words, if all of them are there in their order.
    fn find(&self, words: &[String]) -> Option<usize> {
        let (mut from, mut first) = (0, None);
        for words in words {
            let words = plain(words);
            let at = from + self.text.get(from..)?.find(&words)?;
            first.get_or_insert(at);
            from = at + words.len();
        }
        let first = first?;
        self.lines.iter().rev().find(|(offset, _)| *offset <= first).map(|(_, line)| *line)
    }

    fn add(&mut self, text: &str, mut line: usize) {
        for part in text.split_inclusive('\n') {
            let words = plain(part);
            if !words.is_empty() {
                let glued = part.starts_with(|c: char| !c.is_whitespace()) && !self.open;
                if !self.text.is_empty() && !glued {
                    self.text.push(' ');
                }
                self.lines.push((self.text.len(), line));
                self.text += &words;
            }
            self.open = part.ends_with(char::is_whitespace);
            line += usize::from(part.ends_with('\n'));
        }
    }
}

/// Lower case, single spaces.
fn plain(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ").to_lowercase()
}

#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "the many other events of Markdown hold no text of a passage"
)]
fn passages(text: &str) -> Vec<Passage> {
    let starts: Vec<usize> =
        std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
    let line_of = |offset: usize| starts.partition_point(|start| *start <= offset);
    let mut found = Vec::new();
    let mut heading: Arc<str> = Arc::from("");
    let mut open = Passage::below(&heading);
    for (event, range) in Parser::new_ext(text, Options::ENABLE_YAML_STYLE_METADATA_BLOCKS).into_offset_iter()
    {
        let line = line_of(range.start);
        match event {
            Event::Start(Tag::Heading { .. } | Tag::Paragraph | Tag::CodeBlock(_) | Tag::Item)
            | Event::End(TagEnd::Paragraph | TagEnd::CodeBlock | TagEnd::Item) => {
                found.push(std::mem::replace(&mut open, Passage::below(&heading)));
            }
            Event::End(TagEnd::Heading(_)) => {
                heading = Arc::from(std::mem::take(&mut open.text));
                open = Passage::below(&heading);
            }
            Event::Text(text) => open.add(&text, line),
            Event::Code(text) => open.add(&text, line),
            Event::SoftBreak | Event::HardBreak => open.add("\n", line),
            _ => {}
        }
    }
    found.push(open);
    found.retain(|passage| !passage.text.is_empty());
    found
}

impl Passage {
    fn below(heading: &Arc<str>) -> Self {
        Self { heading: Arc::clone(heading), text: String::new(), lines: Vec::new(), open: true }
    }
}

fn matcher(pattern: &str) -> Option<Regex> {
    Regex::new(pattern).ok()
}

/// `[:octicons-tag-24: v5.7](address)`.
static VERSION: LazyLock<Option<Regex>> =
    LazyLock::new(|| matcher(r"\[:octicons-tag-24:\s*(v?[0-9][0-9.]*)\s*\]"));
/// A feature tag's first marker.
static FEATURE: LazyLock<Option<Regex>> =
    LazyLock::new(|| matcher(r"<!--\s*\[FEATURE_TAG\]\(([A-Za-z0-9_]+)\)\s*-->"));
/// A list's entry.
static ENTRY: LazyLock<Option<Regex>> =
    LazyLock::new(|| matcher(r"^\s*[-*+]\s+\[`?([A-Za-z_][A-Za-z0-9_]*)`?\]\(([^)]*)\)(.*)$"));

fn version_in(text: &str) -> Option<String> {
    Some(VERSION.as_ref()?.captures(text)?.get(1)?.as_str().to_owned())
}

fn tags(text: &str) -> Vec<FeatureTag> {
    let mut found = Vec::new();
    let mut open: Option<String> = None;
    for (place, line) in text.lines().enumerate() {
        let begins = FEATURE.as_ref().and_then(|feature| feature.captures(line));
        if let Some(name) = begins.and_then(|parts| Some(parts.get(1)?.as_str().to_owned())) {
            open = Some(name);
        } else if line.contains("[/FEATURE_TAG]") {
            open = None;
        }
        if let (Some(feature), Some(version)) = (&open, version_in(line)) {
            found.push(FeatureTag { feature: feature.clone(), version, line: place + 1 });
        }
    }
    found
}

/// The names of the lists' markers.
const MARKERS: [(&str, List); 2] =
    [("PROG_HELPER_FUNC_REF", List::Helpers), ("PROG_KFUNC_REF", List::Kfuncs)];

fn lists(text: &str) -> Vec<PageList> {
    let mut found: Vec<PageList> = Vec::new();
    let mut inside = false;
    for (place, line) in text.lines().enumerate() {
        let marker = |with: &str| {
            MARKERS.iter().find(|(name, _)| line.contains(&format!("[{with}{name}]"))).map(|(_, list)| *list)
        };
        if let Some(list) = marker("") {
            found.push(PageList { list, line: place + 1, entries: Vec::new(), not_read: Vec::new() });
            inside = true;
        } else if marker("/").is_some() || line.starts_with('#') {
            inside = false;
        } else if inside && let Some(list) = found.last_mut() {
            match entry(line, place + 1) {
                Some(entry) => list.entries.push(entry),
                None if line.trim().is_empty() || line.trim_start().starts_with("???") => {}
                None => list.not_read.push((place + 1, line.trim().to_owned())),
            }
        }
    }
    found
}

fn entry(text: &str, line: usize) -> Option<PageEntry> {
    let parts = ENTRY.as_ref()?.captures(text)?;
    let part = |index| parts.get(index).map_or("", |found| found.as_str());
    let (since, until) = versions_in(part(3));
    Some(PageEntry { name: part(1).to_owned(), link: part(2).to_owned(), since, until, line })
}

/// What stands behind an entry's link: ` [since]`, ` [since] - [until]` or ` -  [until]`.
fn versions_in(text: &str) -> (Option<String>, Option<String>) {
    let (since, until) = text.split_once(" - ").unwrap_or((text, ""));
    (version_in(since), version_in(until))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const PAGE: &str = "---\ntitle: T\n---\n# The `X` type\n\n<!-- [FEATURE_TAG](X) -->\n[:octicons-tag-24: v5.7](a)\n<!-- [/FEATURE_TAG] -->\n\nOne [link](b)\nof *two* lines.\n\n```c\n/* a\n   remark */\n```\n\n## Lists\n\n<!-- [PROG_HELPER_FUNC_REF] -->\n??? abstract \"Helpers\"\n    * [`bpf_a`](../bpf_a.md)\n    - [bpf_b](../bpf_b.md) [:octicons-tag-24: v6.11](c)\n    what is this\n<!-- [/PROG_HELPER_FUNC_REF] -->\n";

    fn page() -> Page {
        Page::parse(Path::new("p.md"), PAGE)
    }

    fn place(heading: &str, words: &[&str]) -> Place {
        Place { heading: heading.to_owned(), words: words.iter().map(|&word| word.to_owned()).collect() }
    }

    #[rstest]
    #[case("The X type", &["one link", "of two"], Some(10))]
    #[case("The X type", &["of two lines"], Some(11))]
    #[case("The X type", &["a remark"], Some(14))]
    #[case("elsewhere", &["One", "LINES"], Some(10))]
    #[case("The X type", &["lines", "one"], None)]
    #[case("The X type", &["one", "remark"], None)]
    fn words_are_found_with_their_line(
        #[case] heading: &str,
        #[case] words: &[&str],
        #[case] line: Option<usize>,
    ) {
        assert_eq!(page().find(&place(heading, words)), line);
    }

    #[test]
    fn tags_and_lists_are_read() {
        let page = page();
        assert_eq!(page.tags, [FeatureTag { feature: "X".into(), version: "v5.7".into(), line: 7 }]);
        let found: Vec<_> =
            page.entries(List::Helpers).map(|it| (it.name.as_str(), it.since.as_deref(), it.line)).collect();
        assert_eq!(found, [("bpf_a", None, 22), ("bpf_b", Some("v6.11"), 23)]);
        assert_eq!(page.lists[0].not_read, [(24, "what is this".to_owned())]);
    }

    /// As the documentation's generator writes them.
    #[rstest]
    #[case("", None, None)]
    #[case(" [:octicons-tag-24: v6.0](c-d)", Some("v6.0"), None)]
    #[case(" [:octicons-tag-24: v6.0](c) - ", Some("v6.0"), None)]
    #[case(" [:octicons-tag-24: v6.0](c) -  [:octicons-tag-24: v6.11](d)", Some("v6.0"), Some("v6.11"))]
    #[case(" -  [:octicons-tag-24: v6.11](c)", None, Some("v6.11"))]
    fn since_and_until_are_told_apart(
        #[case] tags: &str,
        #[case] since: Option<&str>,
        #[case] until: Option<&str>,
    ) {
        let found = entry(&format!("    - [`bpf_a`](../bpf_a.md){tags}"), 1).unwrap();
        assert_eq!((found.since.as_deref(), found.until.as_deref()), (since, until));
    }

    #[test]
    fn a_list_whose_end_is_missing_ends_at_the_next_heading() {
        let text = PAGE.replace("<!-- [/PROG_HELPER_FUNC_REF] -->", "## More\n* [`bpf_c`](x)");
        assert_eq!(Page::parse(Path::new("p.md"), &text).entries(List::Helpers).count(), 2);
    }

    #[test]
    fn passages_share_their_heading() {
        let text = format!("# {}\n\n{}", "h".repeat(1000), "a\n\n".repeat(3));
        let page = Page::parse(Path::new("p.md"), &text);
        let [first, .., last] = page.passages.as_slice() else { panic!("three passages") };
        assert!(Arc::ptr_eq(&first.heading, &last.heading));
    }

    #[test]
    fn anything_is_a_page() {
        for text in ["", "---", "<!-- [PROG_KFUNC_REF] -->", "```\nx", "é\n\n# ü `ß`\nİ"] {
            let page = Page::parse(Path::new("p.md"), text);
            assert!(page.find(&place("h", &["nothing of this kind"])).is_none());
        }
    }
}
