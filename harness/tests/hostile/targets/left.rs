//! What earlier runs have left: a run folder, a cache, saved machines.

use super::{chain, file, folder, in_a_snapshot, names_in, names_the_file};
use harness::provision::entry;
use harness::report::{Material, junit, runs, table};
use harness::snapshot::{Ci, Known, Store, Verdict, compare};
use harness::vmm::state;
use sha2::{Digest, Sha256};
use std::fs;

/// A kernel's run as other machines bring it: read, compared, proposed and reported.
pub(super) fn run(input: &[u8]) {
    let folder = folder();
    let path = file(folder.path(), runs::FILE, input);
    let read = match runs::read(&path) {
        Ok(read) => read,
        Err(error) => return names_the_file(&error, runs::FILE),
    };
    for record in &read.records {
        in_a_snapshot(&read.kernel, record);
    }
    let known = Known::new(&["6.1".to_owned()], [("hooks/file_open", "Why?"), ("a/b", "Why?")]);
    let runs = [read];
    let store = Store::new(folder.path().join("snapshots"), Ci::No);
    let accepted = store.accept_runs(&runs, &known, true, |_, _| true);
    let comparison = compare(&store, &runs, &known).unwrap_or_default();
    if accepted.is_ok() {
        for cell in &comparison.cells {
            let known = !matches!(cell.verdict, Verdict::Different { .. } | Verdict::Missing);
            assert!(known, "what was accepted is another: {cell:?}");
        }
    }
    let material = Material { runs: &runs, comparison: &comparison, matrix: &known.matrix, probes: &[] };
    let _ = (table::render(material, table::Look::default()), junit::render(material));
    if let Ok(written) = runs::write(folder.path(), &runs[0]) {
        let back = runs::read(&written).expect("what was written");
        assert!(format!("{back:?}") == format!("{:?}", runs[0]), "{back:?}");
    }
    let names = names_in(folder.path());
    assert!(names.contains(&runs::FILE.to_owned()), "{names:?}");
    let plain = [runs::FILE, "snapshots", runs[0].kernel.as_str()];
    assert!(names.iter().all(|name| plain.contains(&name.as_str())), "{names:?}");
}

/// What the cache says of a kernel.
pub(super) fn cache_entry(input: &[u8]) {
    let folder = folder();
    let cache = harness::cache::Cache::open(folder.path()).expect("a cache");
    let dir = cache.kernel_dir("k");
    fs::create_dir_all(&dir).expect("a folder");
    file(&dir, "entry.json", input);
    match entry::Entry::load(&cache, "k") {
        Ok(Some(found)) => {
            let within = found.deb().is_none_or(|deb| deb.parent() == Some(&dir));
            assert!(within, "the package {:?} is not in the entry", found.deb());
        }
        Ok(None) => panic!("the entry is there"),
        Err(error) => {
            let text = chain(&error);
            assert!(text.contains("entry.json") || text.contains("vmlinuz"), "{text}");
        }
    }
}

/// After this the first line gets its checksum, which a mutated head would not pass.
const SUMMED: &[u8] = b"sum:";

fn summed(input: &[u8]) -> Vec<u8> {
    let Some(text) = input.strip_prefix(SUMMED) else { return input.to_vec() };
    let line = text.split(|&byte| byte == b'\n').next().unwrap_or_default();
    let mut whole = format!("{:x} ", Sha256::digest(line)).into_bytes();
    whole.extend(text);
    whole
}

/// A saved machine under the name of the one that is looked for.
pub(super) fn saved_state(input: &[u8]) {
    let folder = folder();
    let store = state::Store::open(folder.path().join("states")).expect("a store");
    let mut key = state::Key::new("i", "f", "q", vec!["qemu".into()]);
    key.processor = "p".into();
    let writer = store.create(&state::Head { key: key.clone(), qemu: Vec::new() }).expect("a writer");
    store.publish(writer).expect("a state");
    let name = names_in(&folder.path().join("states")).pop().expect("a state");
    file(&folder.path().join("states"), &name, &summed(input));
    match store.find(&key) {
        Ok(Some(mut found)) => {
            assert!(found.head.key == key);
            let _ = std::io::copy(&mut found, &mut std::io::sink());
        }
        Ok(None) => panic!("the state is there"),
        Err(error) => names_the_file(&error, &name),
    }
}
