//! Kernels from the cache and from paths; nothing here asks a network.

use super::*;
use crate::provision::entry::{BuildFacts, Meta};
use crate::provision::image::fake_image;

fn matrix_row(lsm_and_source: &str) -> Row {
    let text = format!("kernels:\n- {{name: k, {lsm_and_source}, config: {{CONFIG_BPF_LSM: y}}}}\n");
    crate::matrix::Matrix::parse(&text, Path::new("matrix.yaml")).unwrap().rows.remove(0)
}

fn debian_row() -> Row {
    matrix_row(
        "lsm: bpf, debian: {suite: trixie, package: linux-image-6.12.1+deb13-cloud-amd64, version: 6.12.1-1}",
    )
}

fn cache() -> (tempfile::TempDir, Cache) {
    let dir = tempfile::tempdir().unwrap();
    let cache = Cache::open(dir.path()).unwrap();
    (dir, cache)
}

fn put(row: &Row, cache: &Cache, config: &str) -> Entry {
    let temp = cache.temp_dir().unwrap();
    std::fs::write(temp.path().join("vmlinuz"), fake_image(4096)).unwrap();
    std::fs::write(temp.path().join("config"), config).unwrap();
    let meta = Meta { package: "p".into(), substituted: Some("taken instead".into()), ..Meta::default() };
    Entry::publish(cache, &cache_key(row), temp, meta).unwrap()
}

#[test]
fn a_cached_kernel_needs_nothing_else() {
    let (_dir, cache) = cache();
    let row = debian_row();
    assert!(matches!(status(&row, &cache), Status::Absent { .. }));
    let error = ensure(&row, &cache, &Progress::silent(), true).unwrap_err();
    assert_eq!(
        (error.exit_code(), matches!(error, KernelError::Offline { .. })),
        (exit::INFRASTRUCTURE, true)
    );

    put(&row, &cache, "CONFIG_BPF_LSM=y\nCONFIG_LSM=\"bpf\"\nCONFIG_SOUND=y\n");
    let facts = ensure(&row, &cache, &Progress::silent(), true).unwrap();
    assert_eq!(facts.substituted.as_deref(), Some("taken instead"));
    assert_eq!(facts.config.keys().collect::<Vec<_>>(), ["CONFIG_BPF_LSM", "CONFIG_LSM"]);
    assert!(matches!(status(&row, &cache), Status::Cached { .. }));
}

#[test]
fn a_broken_promise_is_refused_and_an_unknown_one_is_not() {
    let (_dir, cache) = cache();
    let row = debian_row();
    put(&row, &cache, "CONFIG_LSM=\"bpf\"\n");
    let error = ensure(&row, &cache, &Progress::silent(), true).unwrap_err();
    assert!(error.to_string().contains("CONFIG_BPF_LSM is n, promised is y"), "{error}");
    put(&row, &cache, "");
    assert!(ensure(&row, &cache, &Progress::silent(), true).unwrap().config.is_empty());
}

#[test]
fn a_damaged_kernel_is_never_used() {
    let (_dir, cache) = cache();
    let row = debian_row();
    let entry = put(&row, &cache, "");
    std::fs::write(entry.image(), &fake_image(4096)[..3000]).unwrap();
    let error = ensure(&row, &cache, &Progress::silent(), true).unwrap_err();
    assert!(matches!(error, KernelError::Damaged { .. }), "{error}");
    let Status::Damaged { why } = status(&row, &cache) else { panic!("damaged") };
    assert!(why.contains("truncated"), "{why}");
}

#[test]
fn an_image_by_path_is_checked_too() {
    let (dir, cache) = cache();
    let path = dir.path().join("bzImage");
    let row = matrix_row(&format!("lsm: bpf, path: {}", path.display()));
    assert!(matches!(status(&row, &cache), Status::Damaged { .. }));
    std::fs::write(&path, fake_image(64)).unwrap();
    let facts = ensure(&row, &cache, &Progress::silent(), true).unwrap();
    assert_eq!((facts.path, facts.sha256.len()), (path.clone(), 64));
    let (sum, other) = (facts.sha256, "0".repeat(64));
    let vouched = |sum: &str| matrix_row(&format!("lsm: bpf, path: {}, sha256: '{sum}'", path.display()));
    assert!(matches!(status(&vouched(&sum), &cache), Status::Local { .. }));
    assert!(matches!(status(&vouched(&other), &cache), Status::Refused { .. }));
    ensure(&vouched(&sum), &cache, &Progress::silent(), true).unwrap();
    let error = ensure(&vouched(&other), &cache, &Progress::silent(), true).unwrap_err();
    assert!(matches!(&error, KernelError::AnotherImage { found, .. } if *found == sum), "{error}");
    std::fs::write(&path, b"\x7fELF").unwrap();
    assert_eq!(inspect(&path).unwrap_err().exit_code(), exit::BAD_INPUT);
}

#[test]
fn a_row_of_sources_says_how_it_is_built() {
    let (_dir, cache) = cache();
    let row = matrix_row(&format!("lsm: bpf, archive: {{url: 'https://h/x', sha256: {}}}", "0".repeat(64)));
    let error = ensure(&row, &cache, &Progress::silent(), false).unwrap_err();
    assert!(matches!(error, KernelError::NotBuilt { .. }));
    assert!(error.to_string().contains("kernels build"), "{error}");
    assert!(matches!(status(&row, &cache), Status::Unavailable { .. }));
}

/// Nothing is fetched in its place, with a network or without.
#[test]
fn a_damaged_build_is_to_be_built_again() {
    let (_dir, cache) = cache();
    let row = matrix_row(&format!("lsm: bpf, archive: {{url: 'https://h/x', sha256: {}}}", "0".repeat(64)));
    std::fs::write(put(&row, &cache, "").image(), "no image").unwrap();
    for offline in [true, false] {
        let error = ensure(&row, &cache, &Progress::silent(), offline).unwrap_err();
        assert!(matches!(error, KernelError::DamagedBuild { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("kernels build k") && !text.contains("offline"), "{text}");
    }
    assert_eq!(unbuilt(&row, &cache), None, "it is not left out without a word");
}

/// What nobody has signed is used when somebody has said which it is.
#[test]
fn a_mainline_build_that_its_row_does_not_vouch_for_is_not_used() {
    let (_dir, cache) = cache();
    let entry = put(&matrix_row("lsm: bpf, upstream: v6.14"), &cache, "");
    let ensured = |more: &str| {
        let row = matrix_row(&format!("lsm: bpf, upstream: v6.14{more}"));
        ensure(&row, &cache, &Progress::silent(), true)
    };
    let error = ensured("").unwrap_err();
    let sum = &entry.meta.image.sha256;
    assert!(error.to_string().ends_with(&format!("sha256: {sum}")), "{error}");
    assert_eq!(error.exit_code(), exit::BAD_INPUT);
    ensured(&format!(", sha256: '{sum}'")).unwrap();
    let error = ensured(&format!(", sha256: '{}'", "0".repeat(64))).unwrap_err();
    assert!(matches!(error, KernelError::AnotherImage { .. }), "{error}");
}

/// An image built from another archive than the row has now is not the row's; a tree that somebody gave is, and is said where
/// it is of another release.
#[test]
fn a_built_image_is_the_rows_archives_or_a_trees_and_says_which_release() {
    let (_dir, cache) = cache();
    let row = |release: &str| {
        let sha256 = "0".repeat(64);
        matrix_row(&format!(
            "lsm: bpf, archive: {{url: 'https://h/linux-{release}.tar.xz', sha256: {sha256}}}"
        ))
    };
    let put = |origin: &str| {
        let temp = cache.temp_dir().unwrap();
        std::fs::write(temp.path().join("vmlinuz"), fake_image(4096)).unwrap();
        std::fs::write(temp.path().join("config"), "CONFIG_BPF_LSM=y\n").unwrap();
        let fragments = crate::provision::build::fragments::Wishes::read(&[]).unwrap().digest();
        let (release, origin) = ("5.15.100".to_owned(), origin.to_owned());
        let built = Some(BuildFacts { release, origin, fragments, ..BuildFacts::default() });
        Entry::publish(&cache, &cache_key(&row("5.15.100")), temp, Meta { built, ..Meta::default() })
            .unwrap();
    };
    let facts = |release: &str| ensure(&row(release), &cache, &Progress::silent(), true);
    put(&format!("https://h/linux-5.15.100.tar.xz sha256:{}", "0".repeat(64)));
    assert_eq!(facts("5.15.100").unwrap().substituted, None);
    assert!(matches!(facts("5.15.209"), Err(KernelError::Outdated { .. })));
    assert!(unbuilt(&row("5.15.209"), &cache).unwrap().contains("another archive"));
    put("a source tree, digest 00");
    assert_eq!(facts("5.15.100").unwrap().substituted, None);
    let said = facts("5.15.209").unwrap().substituted.unwrap();
    assert_eq!(said, "built from sources of 5.15.100, where the snapshots are of 5.15.209");
}
