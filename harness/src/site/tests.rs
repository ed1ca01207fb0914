//! Every internal link leads somewhere, nothing is loaded from elsewhere, and pages say what the records say. What a
//! browser makes of it is tested in `harness/tests/site.rs`.

use super::*;
use crate::claims::Claims;
use crate::facts;
use crate::snapshot::{Ci, Store};
use crate::verbs::project::probe_infos;
use regex::Regex;
use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

static FILES: LazyLock<BTreeMap<String, String>> = LazyLock::new(|| {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let matrix = Matrix::load(&root.join("matrix.yaml")).unwrap();
    let snapshots = Store::new(root.join("snapshots"), Ci::Yes).load_all().unwrap();
    let mut kernels: Vec<String> = matrix.rows.iter().map(|row| row.name.clone()).collect();
    kernels.retain(|kernel| snapshots.values().any(|snapshot| snapshot.of(kernel).is_some()));
    let items = facts::collect(&snapshots, &kernels);
    let claims = Claims::load(&root.join("claims")).unwrap();
    let probes = probe_infos(&snapshots.keys().cloned().collect::<Vec<_>>());
    let program = Program { kernel: "6.1".into(), case: "load".into(), text: "exit & <end>".into() };
    let programs = BTreeMap::from([("program/type".to_owned(), vec![program])]);
    let evidence = Evidence { snapshots: &snapshots, kernels: &kernels, items: &items, claims: &claims };
    let material = Material { matrix: &matrix, evidence, probes: &probes, programs: &programs };
    files(&material).unwrap()
});

static ATTRIBUTE: LazyLock<Regex> = LazyLock::new(|| Regex::new(r#"\s(id|href|src)="([^"]*)""#).unwrap());

fn attributes<'a>(text: &'a str, name: &str) -> Vec<&'a str> {
    let all = ATTRIBUTE.captures_iter(text).map(|found| found.extract::<2>().1);
    all.filter(|[of, _]| *of == name).map(|[_, value]| value).collect()
}

/// The path that a link on a page means, and its fragment.
fn target(page: &str, link: &str) -> (String, String) {
    let (path, fragment) = link.split_once('#').unwrap_or((link, ""));
    if path.is_empty() {
        return (page.to_owned(), fragment.to_owned());
    }
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        if part == ".." {
            parts.pop().expect("the link leaves the site");
        } else {
            parts.push(part);
        }
    }
    (parts.join("/"), fragment.to_owned())
}

#[test]
fn every_link_leads_somewhere_inside() {
    let pages: BTreeMap<&str, BTreeSet<&str>> = FILES
        .iter()
        .map(|(path, text)| (path.as_str(), attributes(text, "id").into_iter().collect()))
        .collect();
    let mut checked = 0;
    for (page, text) in FILES.iter().filter(|(path, _)| path.ends_with(".html")) {
        for link in attributes(text, "href").into_iter().chain(attributes(text, "src")) {
            if link == "data:," {
                continue;
            }
            assert!(!link.contains(':'), "{page} loads or links to {link}");
            let (path, fragment) = target(page, link);
            let ids = pages.get(path.as_str()).unwrap_or_else(|| panic!("{page}: no file {path} ({link})"));
            assert!(fragment.is_empty() || ids.contains(fragment.as_str()), "{page}: no {link}");
            checked += 1;
        }
    }
    assert!(checked > 10_000, "{checked}");
}

#[test]
fn ids_are_unique_on_a_page() {
    for (page, text) in FILES.iter().filter(|(path, _)| path.ends_with(".html")) {
        let ids = attributes(text, "id");
        let unique: BTreeSet<&str> = ids.iter().copied().collect();
        assert_eq!(ids.len(), unique.len(), "{page}");
    }
}

#[test]
fn every_page_can_be_reached_from_the_first() {
    let mut seen = BTreeSet::from(["index.html".to_owned()]);
    let mut open = vec!["index.html".to_owned()];
    while let Some(page) = open.pop() {
        for link in attributes(&FILES[&page], "href").into_iter().filter(|link| *link != "data:,") {
            let (path, _) = target(&page, link);
            if path.ends_with(".html") && seen.insert(path.clone()) {
                open.push(path);
            }
        }
    }
    let pages: BTreeSet<String> = FILES.keys().filter(|path| path.ends_with(".html")).cloned().collect();
    assert_eq!(seen, pages);
}

#[test]
fn style_and_script_load_nothing() {
    for name in ["style.css", "site.js"] {
        for word in ["http", "//cdn", "@import", "url(", "fetch(", "import("] {
            assert!(!FILES[name].contains(word), "{name}: {word}");
        }
    }
}

#[test]
fn an_item_says_what_its_record_says() {
    let page = &FILES["helpers/bpf_get_func_ip.html"];
    for part in
        ["func bpf_get_func_ip#173 not supported", "on no measured kernel", "The record of", "id=\"k-6.1\""]
    {
        assert!(page.contains(part), "{part}");
    }
    assert!(FILES["hooks/file_open.html"].contains("int bpf_lsm_file_open(struct file *file)"));
    assert!(FILES["kfuncs/bpf_task_acquire.html"].contains("misuse-"));
    assert!(FILES["rules/program/type.html"].contains("exit &amp; &lt;end&gt;"));
    assert!(FILES["claims.html"].contains("id=\"target-btf-id\""));
    assert!(FILES["differences/6.18-to-6.19.html"].contains("example/file_mprotect/as-compiled-from-c"));
}

#[test]
fn embedded_data_cannot_end_its_element() {
    let page = &FILES["differences.html"];
    let data = page.split("id=\"table\">").nth(1).unwrap();
    let data = data.split("</script>").next().unwrap();
    let table: serde_json::Value = serde_json::from_str(data).unwrap();
    assert!(!data.contains('<') && table["rows"].as_array().unwrap().len() > 100);
}

#[test]
fn flavours_are_compared_with_their_version_and_with_both_neighbours() {
    let kernels: Vec<String> =
        ["6.0", "6.1", "6.1-fragments", "6.2", "mine", "mine-too"].map(str::to_owned).to_vec();
    let pairs: Vec<String> = differences::neighbours_of(&kernels)
        .into_iter()
        .map(|(before, after)| format!("{} {}", kernels[before], kernels[after]))
        .collect();
    let wanted = [
        "6.0 6.1",
        "6.0 6.1-fragments",
        "6.1 6.1-fragments",
        "6.1 6.2",
        "6.1-fragments 6.2",
        "6.2 mine",
        "mine mine-too",
    ];
    assert_eq!(pairs, wanted);
}

#[test]
fn a_crash_is_an_answer_on_every_page() {
    for page in ["rules/context/null-cred-followed.html", "differences.html", "differences/6.1-to-6.2.html"] {
        assert!(FILES[page].contains("crashed at trigger"), "{page}");
    }
    assert!(!FILES["differences.html"].contains("\"absent at open\""), "what is absent stands beside it");
}

#[test]
fn what_a_build_lacks_is_not_what_a_version_lacks() {
    let of = |answer: &Answer| sign(Some(answer)).class;
    assert_eq!(of(&Answer::Absent { perhaps: None }), "a");
    let build = [Answer::Absent { perhaps: Some("CONFIG_X") }, Answer::BuildLacks { why: String::new() }];
    assert!(build.iter().all(|answer| of(answer) == "b" && answer.known() == facts::Known::Unknown));
    for sign in SIGNS {
        let legend = format!("<span class=\"{}\">{}</span> {}", sign.class, sign.text, sign.means);
        assert!(FILES["index.html"].contains(&legend), "{legend}");
    }
    assert!(FILES["index.html"].contains("<td class=\"b\">"));
    assert!(FILES["kernels/7.2.html"].contains("<summary>not in this build"));
    // What the script takes for not known is what facts take for it.
    let unknown = FILES["site.js"].lines().find(|line| line.contains("show === \"u\"")).unwrap();
    assert!(["\"u\"", "\"b\"", "\"m\""].iter().all(|class| unknown.contains(class)), "{unknown}");
}

#[test]
fn a_kfunc_without_a_probe_of_its_own_has_its_entry_in_the_inventory() {
    let page = &FILES["kfuncs/bbr_init.html"];
    for part in [
        "Answers of <code>kfuncs/inventory",
        "The record of <code>kfuncs/inventory/bbr_init",
        "id=\"c-bbr_init\"",
    ] {
        assert!(page.contains(part), "{part}");
    }
    assert!(!page.contains("bpf_task_acquire") && FILES.contains_key("rules/kfuncs/inventory.html"));
}

/// What sets such a kernel apart may be the probe, also for a reader who compares two kernels.
#[test]
fn differences_know_which_kernels_were_asked_before_the_probe_changed() {
    use crate::snapshot::made_up::{self, done, names, refused};
    let rows = vec![("6.1", vec![refused("x", "no")]), ("6.2", vec![done("x")]), ("6.3", vec![done("x")])];
    let mut snapshot = made_up::snapshot("a/b", rows);
    snapshot.behind = BTreeSet::from(["6.1".to_owned()]);
    let (snapshots, kernels) =
        (BTreeMap::from([("a/b".to_owned(), snapshot)]), names(&["6.1", "6.2", "6.3"]));
    let (items, claims) = (BTreeMap::new(), Claims { files: Vec::new() });
    let evidence = Evidence { snapshots: &snapshots, kernels: &kernels, items: &items, claims: &claims };
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let matrix = Matrix::load(&root.join("matrix.yaml")).unwrap();
    let material = Material { matrix: &matrix, evidence, probes: &[], programs: &BTreeMap::new() };
    let pages = differences::pages(&material, &subjects(&material));
    assert!(pages["differences/6.1-to-6.2.html"].contains("not to be compared"));
    assert!(pages["differences.html"].contains("[\"a/b/x\",\"rules/a/b.html\",[0,1,1],[0]]"));
}
