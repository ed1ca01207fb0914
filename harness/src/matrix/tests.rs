//! What `matrix.yaml` may say and how refusals read.

use super::*;
use rstest::rstest;

const DEFAULTS: &str =
    "defaults: {lsm: 'landlock,bpf', config: {CONFIG_BPF_LSM: y}, fragments: [usual.config]}\n";
const DEB: &str = "debian: {suite: trixie, package: linux-image-6.12.1+deb13-cloud-amd64, version: 6.12.1-1}";

fn parse(text: &str) -> Result<Matrix, String> {
    Matrix::parse(text, Path::new("conf/matrix.yaml")).map_err(|error| error.to_string())
}

/// A file of `DEFAULTS` (line 1), `kernels:` (line 2) and `rows` from line 3 on.
fn with_rows(rows: &str) -> Result<Matrix, String> {
    parse(&format!("{DEFAULTS}kernels:\n{rows}\n"))
}

#[test]
fn the_projects_own_matrix_is_valid() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../matrix.yaml");
    let matrix = Matrix::load(&path).unwrap();
    let names: Vec<_> = matrix.rows.iter().map(|row| row.name.as_str()).collect();
    // Reports and snapshots show them in this order: a flavour directly after its twin.
    let mut sorted = names.clone();
    let numbers = |name: &str| {
        let series = name.split('-').next().unwrap_or_default();
        (series.split('.').map(|part| part.parse::<u32>().unwrap()).collect::<Vec<_>>(), name.len())
    };
    sorted.sort_by_key(|name| numbers(name));
    assert_eq!(names, sorted);
    assert!(names.contains(&"6.12"));
    assert!(matrix.rows.iter().all(|row| row.lsm.ends_with(",bpf")));
}

#[test]
fn all_sources_defaults_and_overrides() {
    let sha = "AB".repeat(32);
    let matrix = with_rows(&format!(
        "- {{name: 5.10, upstream: v5.10, lsm: bpf, config: {{CONFIG_IMA: n}}}}\n\
         - {{name: src, archive: {{url: 'https://h/x.tar.xz', sha256: {sha}, fragments: [a.config]}}}}\n\
         - {{name: usual, archive: {{url: 'https://h/y.tar.xz', sha256: {sha}}}}}\n\
         - {{name: mine, path: boot/bzImage}}"
    ))
    .unwrap();
    let [upstream, archive, usual, path] = matrix.rows.as_slice() else { panic!("four rows") };
    assert_eq!((upstream.name.as_str(), upstream.lsm.as_str()), ("5.10", "bpf"));
    assert_eq!(upstream.config.len(), 2);
    let Source::Archive(source) = &archive.source else { panic!("an archive") };
    assert_eq!(source.origin, Origin::Tarball { url: "https://h/x.tar.xz".into(), sha256: "ab".repeat(32) });
    assert_eq!(source.fragments, [PathBuf::from("conf/a.config")]);
    let Source::Archive(source) = &usual.source else { panic!("an archive") };
    assert_eq!(source.fragments, [PathBuf::from("conf/usual.config")]);
    assert_eq!(path.source, Source::Path("conf/boot/bzImage".into()));
    assert_eq!(path.lsm, "landlock,bpf");
}

#[rstest]
#[case::plain("trixie", "linux-source-6.12", "6.12.117-1", "6.12.117")]
#[case::backport("trixie-backports", "linux-source-7.3", "7.3.4-1~bpo13+1", "7.3.4")]
#[case::candidate("experimental", "linux-source-7.4", "1:7.4~rc2-1~exp1", "7.4")]
fn sources_may_be_a_debian_package(
    #[case] suite: &str,
    #[case] package: &str,
    #[case] version: &str,
    #[case] release: &str,
) {
    let row = format!("- {{name: a, archive: {{suite: {suite}, package: {package}, version: '{version}'}}}}");
    let matrix = with_rows(&row).unwrap();
    let Source::Archive(archive) = &matrix.rows[0].source else { panic!("an archive") };
    let Origin::Debian(debian) = &archive.origin else { panic!("a package") };
    assert_eq!(
        (debian.suites.as_slice(), debian.package.full.as_str()),
        ([suite.to_owned()].as_slice(), package)
    );
    assert_eq!(archive.fragments, [PathBuf::from("conf/usual.config")]);
    assert_eq!(archive.release(), release);
    assert_eq!(archive.origin.to_string(), format!("{package} {version}"));
}

#[rstest]
#[case::key("- name: a\n  debain: {}", "4:3", "did you mean \"debian\"")]
#[case::nested_key("- name: a\n  debian: {suite: trixie, pakage: x}", "4:27", "did you mean \"package\"")]
#[case::two_sources(
    "- name: b\n  path: x\n- name: a\n  path: x\n  upstream: v6.1",
    "5:3",
    "2 sources (upstream, path)"
)]
#[case::no_source("- name: a", "3:3", "no source")]
#[case::other_version(
    "- {name: a, path: x}\n- {name: '6.2', upstream: v6.1.4}",
    "4:1",
    "its source is one of 6.1"
)]
#[case::other_package(
    "- name: 6.2-word\n  debian: {suite: trixie, package: linux-image-6.1.0-50-cloud-amd64, version: 6.1.176-1}",
    "3:1",
    "its source is one of 6.1"
)]
#[case::other_archive(
    "- name: \"6.1\"\n  archive: {url: 'https://h/linux-6.2.tar.xz', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}",
    "3:1",
    "its source is one of 6.2"
)]
#[case::unmerged(
    "<<<<<<< HEAD\n- {name: a, path: x}\n=======\n>>>>>>> other",
    "3:1",
    "a merge was not finished"
)]
#[case::twice("- {name: a, path: x}\n- {name: a, path: y}", "4:3", "earlier row of the same name")]
#[case::suite("- name: a\n  debian:\n    suite: trixy", "5:12", "did you mean \"trixie\"")]
#[case::suites("- name: a\n  debian:\n    suite: [trixie, bookwurm]", "5:21", "did you mean \"bookworm\"")]
#[case::package("- name: a\n  debian: {package: linux-image-cloud-amd64}", "4:21", "names no kernel version")]
#[case::sha("- name: a\n  archive: {sha256: abc}", "4:21", "64 hexadecimal digits")]
#[case::vouched_twice(
    "- {name: a, sha256: '0000000000000000000000000000000000000000000000000000000000000000', archive: {url: 'https://h/x', sha256: '0000000000000000000000000000000000000000000000000000000000000000'}}",
    "3:3",
    "for `upstream` and `path`"
)]
#[case::archive_key("- name: a\n  archive: {pakage: x}", "4:13", "did you mean \"package\"")]
#[case::half_an_archive("- name: a\n  archive: {url: 'https://h/x'}", "4:12", "here is url")]
#[case::no_archive("- name: a\n  archive: {}", "4:12", "here is neither")]
#[case::two_origins(
    "- name: a\n  archive: {url: 'https://h/x', suite: sid, package: linux-source-6.1, version: 6.1.2-1}",
    "4:12",
    "here is url, suite, package, version"
)]
#[case::half_a_package(
    "- name: a\n  archive: {suite: sid, version: 6.1.2-1}",
    "4:12",
    "here is suite, version"
)]
#[case::archive_suite("- name: a\n  archive: {suite: trixy}", "4:20", "did you mean \"trixie\"")]
#[case::no_sources(
    "- name: a\n  archive: {package: linux-image-6.1.2-amd64}",
    "4:22",
    "holds no kernel sources"
)]
#[case::source_of_other_series(
    "- name: a\n  archive: {suite: sid, package: linux-source-6.12, version: 6.1.2-1}",
    "4:12",
    "not of the package's series 6.12"
)]
#[case::sources_as_image(
    "- name: a\n  debian: {package: linux-source-6.12}",
    "4:21",
    "belongs below `archive`"
)]
#[case::url("- name: a\n  archive: {url: gopher}", "4:18", "begin with https://")]
#[case::upstream("- name: a\n  upstream: 6.14", "4:13", "did you mean \"v6.14\"")]
#[case::lsm("- name: a\n  lsm: landlock", "4:8", "lacks bpf")]
#[case::lsm_twice("- name: a\n  lsm: bpf,bpf", "4:8", "names bpf twice")]
#[case::promise("- name: a\n  config: {BPF_LSM: y}", "4:12", "did you mean \"CONFIG_BPF_LSM\"")]
#[case::promised("- name: a\n  config: {CONFIG_BPF_LSM: true}", "4:28", "did you mean \"y\"")]
#[case::name("- name: a/b", "3:9", "cannot name a kernel")]
#[case::missing("- path: x", "3:3", "missing field `name`")]
#[case::series(
    "- name: a\n  debian: {suite: sid, package: linux-image-6.12.1+deb13-amd64, version: 6.1.2-1}",
    "3:3",
    "not of the package's series 6.12"
)]
fn refusals_tell_where_and_what(#[case] rows: &str, #[case] position: &str, #[case] wanted: &str) {
    let error = with_rows(rows).unwrap_err();
    assert!(error.starts_with(&format!("conf/matrix.yaml:{position}: ")), "{error}");
    assert!(error.contains(wanted), "{error}");
}

#[rstest]
#[case::nothing("", "no row below")]
#[case::empty("kernels:\n", "no row below")]
#[case::top_level("kernel: []\n", "did you mean \"kernels\"")]
#[case::no_lsm("kernels:\n- {name: a, path: x}\n", "kernel \"a\" has no `lsm`")]
#[case::syntax("kernels: [\n", "matrix.yaml:2:1")]
fn a_bad_file_as_a_whole(#[case] text: &str, #[case] wanted: &str) {
    let error = parse(text).unwrap_err();
    assert!(error.contains(wanted), "{error}");
}

#[rstest]
#[case("linux-image-5.10.0-32-cloud-amd64-unsigned", "linux-image-", "5.10", "-cloud-amd64-unsigned")]
#[case("linux-image-6.1.0-0.deb11.50-cloud-amd64", "linux-image-", "6.1", "-cloud-amd64")]
#[case("linux-source-7.3", "linux-source-", "7.3", "")]
#[case("linux-binary-7.3.4+deb13-cloud-amd64", "linux-binary-", "7.3", "-cloud-amd64")]
#[case("linux-binary-unsigned-7.3.4+deb13-rt-amd64", "linux-binary-unsigned-", "7.3", "-rt-amd64")]
fn package_names_come_apart(
    #[case] name: &str,
    #[case] head: &str,
    #[case] series: &str,
    #[case] flavour: &str,
) {
    let parts = series_of_package(name).unwrap();
    assert_eq!((parts.head.as_str(), parts.series.as_str(), parts.flavour.as_str()), (head, series, flavour));
}

#[test]
fn an_unknown_kernel_is_answered_with_the_known_ones() {
    let error = with_rows(&format!("- name: '6.12'\n  {DEB}")).unwrap().row("6.21").unwrap_err();
    assert!(error.to_string().contains("did you mean \"6.12\"?"), "{error}");
    assert_eq!(error.exit_code(), exit::BAD_INPUT);
}
