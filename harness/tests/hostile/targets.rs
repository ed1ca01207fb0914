//! What is done with one hostile input, per kind of input. Both the tests and the campaigns (`harness/fuzz`) call these.
//!
//! A target fails by a panic: of the code that reads, or of an assertion here. It asserts what must hold of every input:
//! an error names the file, nothing is written outside of the folder, what was read is written back as it was.

use super::memory;
use super::region::Shared;
use harness::claims::{Claims, evaluate};
use harness::docs::check::Evidence;
use harness::docs::fix::{self, Data};
use harness::docs::{Page, Report, check, print};
use harness::facts;
use harness::matrix::Matrix;
use harness::normalize::normalize;
use harness::provision::build::{self, fragments::Wishes};
use harness::provision::{apt, deb, debian_version, entry, image, modules, sources};
use harness::snapshot::{self, Ci, Known, Snapshot, Store};
use harness::vmm::machine::first_alarm;
use left::{cache_entry, run, saved_state};
use probes::btf::{Btf, Kind};
use probes::protocol::{FRAME_MAGIC, Message};
use probes::record::{Case, Record};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

mod left;

/// Reads one input.
pub(crate) type Target = fn(&[u8]);

/// Every kind of input, by the name of its corpus.
pub(crate) const TARGETS: &[(&str, Target)] = &[
    ("archive", archive),
    ("btf", btf),
    ("claims", claims),
    ("config", config),
    ("data", data),
    ("entry", cache_entry),
    ("image", kernel_image),
    ("index", index),
    ("matrix", matrix),
    ("package", package),
    ("page", page),
    ("run", run),
    ("snapshot", snapshot_file),
    ("state", saved_state),
    ("stream", stream),
];

/// Gives `input` to a target, and panics also when that takes too much memory.
pub(crate) fn give(target: Target, input: &[u8]) {
    let peak = memory::peak_of(|| target(input));
    assert!(peak <= memory::LIMIT, "{peak} bytes of memory for an input of {} bytes", input.len());
}

/// A folder in memory, where there is such a place: on a disk, writing takes longer than reading what was written. It goes
/// with the value.
pub(crate) fn folder() -> tempfile::TempDir {
    let in_memory = Path::new("/dev/shm");
    let made = tempfile::tempdir_in(in_memory).or_else(|_| tempfile::tempdir());
    made.expect("a temporary folder")
}

/// A file with the input.
fn file(folder: &Path, name: &str, input: &[u8]) -> PathBuf {
    let path = folder.join(name);
    fs::write(&path, input).expect("a temporary file");
    path
}

/// The error and what caused it, in one line, as the program says it.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text += &format!(": {error}");
        cause = error.source();
    }
    text
}

/// An error must say in which file it is.
fn names_the_file(error: &dyn std::error::Error, file: &str) {
    let text = chain(error);
    assert!(text.contains(file), "this error does not name {file}: {text}");
}

/// The names in a folder, sorted.
fn names_in(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).expect("the folder").flatten();
    let mut names: Vec<String> = entries.map(|it| it.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

// The guest.

/// The first byte says how the rest stands in the region: as a ring of bytes whose writer claims what the next eight
/// bytes say, or as lines, each of which becomes a frame that is well made.
fn stream(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    let ring = if kind == b'r' { rest.get(8..).unwrap_or_default().to_vec() } else { frames(rest) };
    let claimed = rest.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
    let head = if kind == b'r' { claimed } else { ring.len() as u64 };
    let mut region = Shared::taken();
    region.put(layout::HEAD, &head.to_le_bytes());
    // The harness writes this one too.
    region.put(layout::TAIL, rest.first_chunk().unwrap_or(&[0; 8]));
    region.put(layout::CRUMB, &rest[..rest.len().min(4096)]);
    // In a ring of bytes the length of the notes is the input's too, and may be a lie.
    let noted = &rest[..rest.len().min(1 << 16)];
    let length = if kind == b'r' {
        Vec::new()
    } else {
        u32::try_from(noted.len()).unwrap_or(0).to_le_bytes().to_vec()
    };
    region.put(layout::NOTES, &[&length, noted].concat());
    region.put(layout::RING, &ring[..ring.len().min(1 << 20)]);
    let mut host = region.host();
    let mut cases: Vec<Case> = host.noted();
    let _ = first_alarm(&host.crumb());
    loop {
        match host.receive() {
            Ok(Some(Message::Case { case, .. })) => cases.push(*case),
            Ok(Some(Message::End { probe, outcome, warnings, micros })) => {
                let record = Record { probe, outcome, cases: std::mem::take(&mut cases), warnings, micros };
                in_a_snapshot("6.1", &record);
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(error) => {
                let text = error.to_string();
                assert!(text.contains("at byte"), "this error does not say where: {text}");
                break;
            }
        }
    }
}

/// Where what lies in the region, see `conform_boot::layout`.
mod layout {
    pub(super) const HEAD: usize = 16;
    pub(super) const TAIL: usize = 24;
    pub(super) const CRUMB: usize = 4096;
    pub(super) const NOTES: usize = 8192;
    pub(super) const RING: usize = 1 << 20;
}

fn frames(lines: &[u8]) -> Vec<u8> {
    let mut ring = Vec::new();
    for line in lines.split(|&byte| byte == b'\n') {
        ring.extend(FRAME_MAGIC.to_le_bytes());
        ring.extend(u32::try_from(line.len()).unwrap_or(u32::MAX).to_le_bytes());
        ring.extend(crc32fast::hash(line).to_le_bytes());
        ring.extend(line);
    }
    ring
}

/// Whatever a guest says of a probe must stand in a snapshot that is read back as it was.
fn in_a_snapshot(kernel: &str, record: &Record) {
    let normal = normalize(record);
    let known = Known::new(&["6.1".to_owned()], [("a/b", "Why?")]);
    let made = snapshot::merge(None, "a/b", &[(kernel.to_owned(), normal)], &known);
    let Ok(text) = snapshot::render(&made) else { return };
    if made.observed.is_empty() {
        return;
    }
    let back = snapshot::parse(Path::new("b.snap"), &text);
    assert!(back.as_ref().is_ok_and(|back| *back == made), "{back:?}\nis not what was written:\n{text}");
}

/// A kernel's BTF, alone and as a module's upon itself, asked everything that probes ask.
fn btf(input: &[u8]) {
    let Ok(base) = Btf::parse(input) else { return };
    ask(&base);
    if let Ok(shared) = Btf::parse_shared(input) {
        assert_eq!(shared.next_id(), base.next_id());
    }
    if let Ok(split) = Btf::parse_split(&base, input) {
        ask(&split);
    }
}

fn ask(btf: &Btf) {
    btf.warm();
    let last = btf.next_id();
    // The first and the last ones: every question of every type would only make this slow.
    for id in (0..last.min(64)).chain(last.saturating_sub(64)..=last) {
        let _ = (btf.kind(id), btf.name(id), btf.type_name(id), btf.type_tags(id), btf.size_of(id));
        let _ = (btf.skip_modifiers(id), btf.pointee(id), btf.prototype(id), btf.members(id));
        let _ = (btf.decl_tags(id), btf.enum_value(Some(id), "A"));
        let _ = (btf.member_of(id, "a"), btf.member_of(id, "a.b"), btf.member_of(id, ""));
    }
    for name in ["a", "b", "", "task_struct"] {
        let found = [btf.find(Kind::Typedef, name), btf.function(name)];
        for id in found.into_iter().flatten() {
            assert!(id < last && btf.name(id).unwrap_or_default() == name, "{id} is no {name:?}");
        }
        let _ = (btf.record(name), btf.enum_value(None, name));
        let _ = (btf.member(name, "a"), btf.functions_tagged(name));
    }
    assert!(btf.functions().count() <= last as usize);
}

// Files that people write.

fn matrix(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match Matrix::parse(&text, Path::new("conf/matrix.yaml")) {
        Ok(matrix) => {
            for row in &matrix.rows {
                assert!(!row.name.contains('/') && !row.name.starts_with('.'), "{:?}", row.name);
                assert!(matrix.row(&row.name).is_ok_and(|found| found == row));
            }
        }
        Err(error) => {
            let text = error.to_string();
            let place = text.strip_prefix("conf/matrix.yaml:").and_then(|rest| rest.split(':').next());
            assert!(place.is_some_and(|line| line.parse::<usize>().is_ok_and(|line| line > 0)), "{text}");
        }
    }
}

fn claims(input: &[u8]) {
    let folder = folder();
    file(folder.path(), "page.yaml", input);
    match Claims::load(folder.path()) {
        Ok(claims) => {
            let kernels = ["6.1".to_owned()];
            for claim in claims.statements() {
                let _ = evaluate(claim, &PROJECT.snapshots, &kernels);
            }
        }
        Err(error) => names_the_file(&error, "page.yaml"),
    }
}

fn snapshot_file(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    match snapshot::parse(Path::new("b.snap"), &text) {
        Ok(read) => {
            let Ok(written) = snapshot::render(&read) else { return };
            let back = snapshot::parse(Path::new("b.snap"), &written);
            assert!(
                back.as_ref().is_ok_and(|back| same(back, &read)),
                "{back:?}\nis not {read:?}\n{written}"
            );
            let kernels: Vec<String> = read.kernels().map(str::to_owned).collect();
            let _ = facts::collect(&BTreeMap::from([(read.probe.clone(), read)]), &kernels);
        }
        Err(error) => {
            let message = error.to_string();
            let place = message.strip_prefix("b.snap:").and_then(|rest| rest.split(':').next());
            let line = place.and_then(|line| line.parse::<usize>().ok());
            // YAML also ends a line at a lone carriage return and at Unicode's separators.
            let lines = text.split(['\n', '\r', '\u{85}', '\u{2028}', '\u{2029}']).count() + 2;
            assert!(line.is_some_and(|line| (1..=lines).contains(&line)), "{message}");
        }
    }
}

/// Whether two snapshots say the same; text compares what floating-point numbers would not.
fn same(one: &Snapshot, other: &Snapshot) -> bool {
    one == other || format!("{one:?}") == format!("{other:?}")
}

/// Kernel configurations and fragments of them.
fn config(input: &[u8]) {
    let folder = folder();
    let path = file(folder.path(), "some.config", input);
    let text = String::from_utf8_lossy(input);
    let _ = entry::parse_config(&text);
    match Wishes::read(&[path]) {
        Ok(wishes) => {
            let again = file(folder.path(), "again.config", wishes.text().as_bytes());
            assert!(Wishes::read(&[again]).is_ok_and(|again| again == wishes), "{text:?}");
            assert!(wishes.not_taken(&wishes.text()).is_empty());
        }
        Err(error) => names_the_file(&error, "some.config"),
    }
}

// The documentation.

/// The project's claims, and a few of its snapshots to judge them by.
struct Project {
    snapshots: BTreeMap<String, Snapshot>,
    kernels: Vec<String>,
    items: BTreeMap<(facts::Kind, String), facts::Item>,
    claims: Claims,
}

static PROJECT: LazyLock<Project> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let root = root.ancestors().find(|it| it.join("matrix.yaml").exists()).expect("the project's folder");
    let store = Store::new(root.join("snapshots"), Ci::Yes);
    let some = ["attach/target-btf-id", "helpers/bpf_d_path", "helpers/bpf_get_func_ip", "kfuncs/inventory"];
    let load = |id: &str| Some((id.to_owned(), store.load(id).expect("a snapshot")?));
    let snapshots: BTreeMap<_, _> = some.iter().filter_map(|id| load(id)).collect();
    let kernels = ["5.10", "6.1", "6.12", "7.3"].map(str::to_owned).to_vec();
    let items = facts::collect(&snapshots, &kernels);
    Project { snapshots, kernels, items, claims: Claims::load(&root.join("claims")).expect("the claims") }
});

fn evidence() -> Evidence<'static> {
    let project = &*PROJECT;
    Evidence {
        snapshots: &project.snapshots,
        kernels: &project.kernels,
        items: &project.items,
        claims: &project.claims,
    }
}

fn page(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    let page = Page::parse(Path::new("page.md"), &text);
    let report = check(&page, &evidence());
    let lines = text.lines().count() + 1;
    assert!(report.findings.iter().all(|it| it.line.is_none_or(|line| (1..=lines).contains(&line))));
    let _ = (print::table(&report, 80), print::markdown(&report), print::github(&report));
    fixed(&page, &report, &[]);
}

/// The data that the page's lists are generated from: the first byte says which file.
fn data(input: &[u8]) {
    const NAMES: [&str; 3] = ["helpers-functions.yaml", "kfuncs.yaml", "feature-versions.yaml"];
    let Some((&first, rest)) = input.split_first() else { return };
    let path = PathBuf::from(NAMES[usize::from(first) % NAMES.len()]);
    let page = Page::parse(Path::new("page.md"), "");
    // The same for every input, and slow.
    static NOTHING: LazyLock<Report> =
        LazyLock::new(|| check(&Page::parse(Path::new("page.md"), ""), &evidence()));
    fixed(&page, &NOTHING, &[Data { path, text: String::from_utf8_lossy(rest).into_owned() }]);
}

fn fixed(page: &Page, report: &Report, data: &[Data]) {
    let found = fix::fix(page, report, data, &evidence());
    let _ = (fix::patch(&found, Path::new("")), fix::evidence_text(&found));
}

// What is downloaded.

/// Neither the image's nor the modules' reader writes anything but its own files, and those within limits.
fn package(input: &[u8]) {
    let folder = folder();
    let deb = file(folder.path(), "some.deb", input);
    let out = folder.path().join("out");
    fs::create_dir(&out).expect("a folder");
    if let Err(error) = deb::unpack(&deb, &out) {
        names_the_file(&error, "some.deb");
    }
    let _ = modules::pack(&deb, &out);
    assert_eq!(names_in(folder.path()), ["out", "some.deb"]);
    for name in names_in(&out) {
        assert!(["config", "vmlinuz", modules::ARCHIVE].contains(&name.as_str()), "{name} was written");
        let facts = fs::symlink_metadata(out.join(&name)).expect("the file");
        assert!(facts.is_file(), "{name} is no file");
    }
}

/// Nothing of an archive of sources leaves its folder.
fn archive(input: &[u8]) {
    let folder = folder();
    let file = file(folder.path(), "archive", input);
    let _ = build::unpack(&file, &folder.path().join("tree"));
    let names = names_in(folder.path());
    assert!(names == ["archive"] || names == ["archive", "tree"], "{names:?}");
    assert_eq!(fs::read(&file).expect("the archive"), input);
    let tree = folder.path().join("tree");
    let everything = walkdir(&tree);
    for (path, facts) in &everything {
        assert!(facts.is_file() || facts.is_dir() || facts.is_symlink(), "{} was made", path.display());
        let more = facts.is_file() && facts.mode() & 0o6000 != 0;
        assert!(!more, "{} would run as somebody else", path.display());
        // A second name of what is in the tree is in the tree.
        let same =
            everything.iter().filter(|(_, other)| (other.dev(), other.ino()) == (facts.dev(), facts.ino()));
        assert!(
            !facts.is_file() || same.count() as u64 == facts.nlink(),
            "{} is elsewhere too",
            path.display()
        );
    }
}

/// Everything below a folder, links not followed; nothing if there is no folder.
fn walkdir(folder: &Path) -> Vec<(PathBuf, fs::Metadata)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let facts = fs::symlink_metadata(entry.path()).expect("what is in the folder");
        if facts.is_dir() {
            found.extend(walkdir(&entry.path()));
        }
        found.push((entry.path(), facts));
    }
    found
}

fn kernel_image(input: &[u8]) {
    let folder = folder();
    let path = file(folder.path(), "vmlinuz", input);
    match image::validate(&path) {
        Ok(size) => assert_eq!(size, input.len() as u64),
        Err(error) => names_the_file(&error, "vmlinuz"),
    }
}

/// apt's answers and its lists of sources, and the order of versions.
fn index(input: &[u8]) {
    let text = String::from_utf8_lossy(input);
    for found in apt::parse_stanzas(&text) {
        assert!(!found.package.full.contains(['/', ' ', '\n']), "{:?}", found.package);
    }
    let mut entries = sources::parse_list(&text);
    entries.extend(sources::parse_deb822(&text));
    for suite in ["trixie", "trixie-security"] {
        let _ = sources::mirror_for(suite, &entries, |_| None);
    }
    let words: Vec<&str> = text.split_whitespace().take(16).collect();
    for (one, other) in words.iter().flat_map(|one| words.iter().map(move |other| (one, other))) {
        let order = debian_version::compare(one, other);
        assert_eq!(order, debian_version::compare(other, one).reverse(), "{one:?} {other:?}");
    }
}
