//! The snapshot files themselves: each can be read, is its probe's, and is written as the suite would write it.
//!
//! This file lies here because `cargo insta` looks for pending snapshots beside the targets of a package.

use harness::snapshot::{Ci, Store, render};
use std::collections::BTreeMap;
use std::path::Path;

#[test]
fn files_are_as_the_suite_writes_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    let store = Store::new(&root, Ci::Yes);
    for (probe, snapshot) in store.load_all().expect("every file is a snapshot") {
        let path = store.path(&probe).expect("the id of a file that was read");
        let text = std::fs::read_to_string(&path).expect("a file that was read before");
        let expected = render(&snapshot).expect("a snapshot that was read");
        assert!(text == expected, "{}: not as the suite writes it; accept {probe} again", path.display());
    }
}

#[test]
fn each_file_asks_the_question_of_its_probe() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../snapshots");
    let snapshots = Store::new(&root, Ci::Yes).load_all().expect("every file is a snapshot");
    let probes = probes::families::all_with(snapshots.keys().map(String::as_str));
    let questions: BTreeMap<String, String> =
        probes.into_iter().map(|probe| (probe.id, probe.question)).collect();
    for (probe, snapshot) in &snapshots {
        assert_eq!(Some(&snapshot.question), questions.get(probe), "{probe}: accept it again");
    }
}
