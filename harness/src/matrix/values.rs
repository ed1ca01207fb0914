//! The small values of a row, each with its own check: names, suites, packages, hashes, LSM orders.
//!
//! Every check returns the sentence that the user reads; the parser adds the position.

use regex::Regex;
use std::sync::LazyLock;

/// Debian's release names that a suite may start with. A new release needs one word here.
const RELEASES: &[&str] = &["bullseye", "bookworm", "trixie", "forky", "duke", "sid", "experimental"];
/// What may follow the release name.
const POCKETS: &[&str] = &["", "-security", "-updates", "-backports", "-proposed-updates"];

/// The known name that is most like `name`, if any is like it at all.
pub fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    known
        .map(|candidate| (strsim::jaro_winkler(name, candidate), candidate))
        .filter(|(likeness, _)| *likeness > 0.7)
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .map(|(_, candidate)| candidate)
}

/// `, did you mean "X"?` or nothing.
fn hint<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    super::did_you_mean(closest(name, known))
}

/// The parts of a kernel package's name that stay the same from one version to the next.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackageName {
    /// The name as it is.
    pub full: String,
    /// Everything before the kernel's version, such as `linux-image-`.
    pub head: String,
    /// The kernel's series, such as `6.12`.
    pub series: String,
    /// Everything behind the kernel's version and ABI, such as `-cloud-amd64`.
    pub flavour: String,
}

impl PackageName {
    /// What follows the head: the name under which Debian files the kernel's other parts.
    #[must_use]
    pub fn release(&self) -> &str {
        &self.full[self.head.len()..]
    }

    /// Whether `other` is a package of the same series and flavour.
    #[must_use]
    pub fn is_kin(&self, other: &Self) -> bool {
        (&self.head, &self.series, &self.flavour) == (&other.head, &other.series, &other.flavour)
    }
}

/// Takes a kernel package's name apart, or `None` when it names no series (such as a metapackage's).
#[must_use]
pub fn series_of_package(name: &str) -> Option<PackageName> {
    // The ABI part may itself hold hyphens (`.0-0.deb11.50`), but only before digits; the flavour begins with a letter.
    static NAME: LazyLock<Option<Regex>> = LazyLock::new(|| {
        Regex::new(r"^(linux-(?:[a-z]+-)+)(\d+\.\d+)((?:[.+~]|-\d)[a-z0-9.+~]*)*((?:-[a-z][a-z0-9]*)*)$").ok()
    });
    let parts = NAME.as_ref()?.captures(name)?;
    let part = |index| parts.get(index).map_or("", |m| m.as_str()).to_owned();
    Some(PackageName { full: name.to_owned(), head: part(1), series: part(2), flavour: part(4) })
}

/// A row's name.
pub(super) fn row_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._+-".contains(c);
    if text.is_empty() || !text.starts_with(|c: char| c.is_ascii_alphanumeric()) || !text.chars().all(allowed)
    {
        return Err(format!(
            "{text:?} cannot name a kernel: use letters, digits, '.', '_', '+' and '-', beginning with a letter or \
             digit (the name becomes part of file names)"
        ));
    }
    Ok(text.to_owned())
}

/// A Debian suite.
pub(super) fn suite(text: &str) -> Result<String, String> {
    let known: Vec<String> = RELEASES
        .iter()
        .flat_map(|release| POCKETS.iter().map(move |pocket| format!("{release}{pocket}")))
        .collect();
    if known.iter().any(|name| name == text) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "unknown Debian suite {text:?}{}; known are {}, each with {}",
        hint(text, known.iter().map(String::as_str)),
        RELEASES.join(", "),
        POCKETS[1..].join(", ")
    ))
}

/// A kernel package's name.
pub(super) fn package(text: &str) -> Result<PackageName, String> {
    if sources(text).is_ok() {
        return Err(format!("package {text:?} holds sources, which are built: it belongs below `archive`"));
    }
    series_of_package(text).ok_or_else(|| {
        format!(
            "package {text:?} names no kernel version; give a package such as linux-image-6.12.1+deb13-cloud-amd64, \
             not a metapackage"
        )
    })
}

/// The name of a package of kernel sources, which is built from.
pub(super) fn sources(text: &str) -> Result<PackageName, String> {
    series_of_package(text).filter(|name| name.head == "linux-source-" && name.flavour.is_empty()).ok_or_else(
        || format!("package {text:?} holds no kernel sources; give a package such as linux-source-6.12"),
    )
}

/// A Debian version.
pub(super) fn version(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".+~:-".contains(c);
    if text.starts_with(|c: char| c.is_ascii_digit()) && text.chars().all(allowed) {
        return Ok(text.to_owned());
    }
    Err(format!("{text:?} is not a Debian package version such as 6.12.1-1"))
}

/// A mainline version.
pub(super) fn upstream(text: &str) -> Result<String, String> {
    static VERSION: LazyLock<Option<Regex>> =
        LazyLock::new(|| Regex::new(r"^v\d+\.\d+(\.\d+)?(-rc\d+)?$").ok());
    if VERSION.as_ref().is_some_and(|version| version.is_match(text)) {
        return Ok(text.to_owned());
    }
    let with_v = format!("v{text}");
    let meant = VERSION.as_ref().is_some_and(|version| version.is_match(&with_v)).then_some(with_v.as_str());
    Err(format!(
        "{text:?} is not a mainline version such as v6.14 or v6.15-rc3{}",
        super::did_you_mean(meant)
    ))
}

/// A SHA-256 in hexadecimal; kept in lower case.
pub(super) fn sha256(text: &str) -> Result<String, String> {
    if text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Ok(text.to_ascii_lowercase());
    }
    Err(format!(
        "{text:?} is not a SHA-256: 64 hexadecimal digits are needed, these are {} characters",
        text.chars().count()
    ))
}

/// An archive's address.
pub(super) fn url(text: &str) -> Result<String, String> {
    let schemes = ["https://", "http://", "file://"];
    if schemes.iter().any(|scheme| text.len() > scheme.len() && text.starts_with(scheme)) {
        return Ok(text.to_owned());
    }
    Err(format!(
        "{text:?} is not an address that can be fetched: it has to begin with {}",
        schemes.join(" or ")
    ))
}

/// A path; `~/` is left to the parser.
pub(super) fn path(text: &str) -> Result<String, String> {
    if text.is_empty() { Err("an empty path".to_owned()) } else { Ok(text.to_owned()) }
}

/// The value of `lsm=`.
pub(super) fn lsm(text: &str) -> Result<String, String> {
    let mut seen = Vec::new();
    for name in text.split(',') {
        if name.is_empty() || !name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        {
            return Err(format!("lsm order {text:?}: {name:?} is no name of a security module; write a,b,c"));
        }
        if seen.contains(&name) {
            return Err(format!("lsm order {text:?} names {name} twice"));
        }
        seen.push(name);
    }
    if seen.contains(&"bpf") {
        return Ok(text.to_owned());
    }
    Err(format!("lsm order {text:?} lacks bpf, so that no BPF LSM program would ever run; append ,bpf"))
}

/// The name of a configuration promise.
pub(super) fn config_name(text: &str) -> Result<String, String> {
    let rest = text.strip_prefix("CONFIG_").unwrap_or_default();
    if !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
        return Ok(text.to_owned());
    }
    let meant = format!("CONFIG_{text}");
    let meant = (!text.starts_with("CONFIG")).then_some(meant.as_str());
    Err(format!("{text:?} is no configuration option{}", super::did_you_mean(meant)))
}

/// The value of a configuration promise.
pub(super) fn config_value(text: &str) -> Result<String, String> {
    match text {
        "" => Err("a promise needs a value: y, m, n or the value itself".to_owned()),
        "true" | "yes" | "on" => Err(format!("{text:?} is no configuration value, did you mean \"y\"?")),
        "false" | "no" | "off" => Err(format!("{text:?} is no configuration value, did you mean \"n\"?")),
        value => Ok(value.to_owned()),
    }
}
