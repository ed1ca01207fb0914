//! Where this machine gets Debian's packages from, read from apt's own configuration.
//!
//! The suite names no server: the mirror is whichever the machine (or its owner, by environment variable) uses.

use std::path::{Path, PathBuf};

/// Overrides the mirror of all suites but the security ones.
pub const MIRROR_VARIABLE: &str = "CONFORM_DEBIAN_MIRROR";
/// Overrides the mirror of the security suites.
pub const SECURITY_VARIABLE: &str = "CONFORM_DEBIAN_SECURITY_MIRROR";
/// Where Debian installs the public keys of its archive, in the order of preference.
const KEYRINGS: &[&str] =
    &["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// One enabled binary source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// The mirror's address as apt takes it.
    pub uri: String,
    /// The suite.
    pub suite: String,
    /// The components.
    pub components: Vec<String>,
    /// A keyring file, when the source names one.
    pub signed_by: Option<PathBuf>,
}

/// A mirror and the keys that its content is signed with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mirror {
    /// The address.
    pub uri: String,
    /// The keyring; `None` leaves the choice to apt's trusted keys.
    pub keyring: Option<PathBuf>,
}

/// Reads the one-line format (`sources.list`, `*.list`).
#[must_use]
pub fn parse_list(text: &str) -> Vec<Entry> {
    text.lines().filter_map(parse_line).collect()
}

fn parse_line(line: &str) -> Option<Entry> {
    let line = line.split('#').next().unwrap_or_default().trim();
    let mut rest = line.strip_prefix("deb")?;
    if !rest.starts_with([' ', '\t', '[']) {
        return None;
    }
    rest = rest.trim_start();
    let mut signed_by = None;
    if let Some(options) = rest.strip_prefix('[') {
        let (options, after) = options.split_once(']')?;
        signed_by = options
            .split_whitespace()
            .find_map(|option| option.strip_prefix("signed-by="))
            .map(PathBuf::from);
        rest = after;
    }
    let mut words = rest.split_whitespace();
    let (uri, suite) = (words.next()?.to_owned(), words.next()?.to_owned());
    Some(Entry { uri, suite, components: words.map(str::to_owned).collect(), signed_by })
}

/// Reads the deb822 format (`*.sources`).
#[must_use]
pub fn parse_deb822(text: &str) -> Vec<Entry> {
    let mut entries = Vec::new();
    let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
    for stanza in lines.split(|line| line.trim().is_empty()) {
        let field = |name: &str| stanza_field(stanza, name);
        let no = field("Enabled").is_some_and(|value| ["no", "false", "0"].contains(&value.trim()));
        if no || !field("Types").unwrap_or_default().split_whitespace().any(|kind| kind == "deb") {
            continue;
        }
        // A key may also be written out in the stanza; then it is not a path.
        let signed_by =
            field("Signed-By").map(|value| value.trim().to_owned()).filter(|value| value.starts_with('/'));
        let components: Vec<String> =
            field("Components").unwrap_or_default().split_whitespace().map(str::to_owned).collect();
        for uri in field("URIs").unwrap_or_default().split_whitespace() {
            for suite in field("Suites").unwrap_or_default().split_whitespace() {
                entries.push(Entry {
                    uri: uri.to_owned(),
                    suite: suite.to_owned(),
                    components: components.clone(),
                    signed_by: signed_by.clone().map(PathBuf::from),
                });
            }
        }
    }
    entries
}

/// A field's value with its continuation lines.
fn stanza_field(stanza: &[&str], name: &str) -> Option<String> {
    let mut lines = stanza
        .iter()
        .skip_while(|line| line.split_once(':').is_none_or(|(key, _)| !key.eq_ignore_ascii_case(name)));
    let mut value = lines.next()?.split_once(':')?.1.to_owned();
    for line in lines.take_while(|line| line.starts_with([' ', '\t'])) {
        value.push('\n');
        value.push_str(line.trim());
    }
    Some(value)
}

/// All enabled sources of the machine, in apt's order; files that cannot be read are passed over.
#[must_use]
pub fn read_system(etc_apt: &Path) -> Vec<Entry> {
    let mut entries =
        std::fs::read_to_string(etc_apt.join("sources.list")).map(|t| parse_list(&t)).unwrap_or_default();
    let parts = std::fs::read_dir(etc_apt.join("sources.list.d"));
    let mut files: Vec<PathBuf> = parts.into_iter().flatten().flatten().map(|part| part.path()).collect();
    files.sort();
    for file in files {
        let Ok(text) = std::fs::read_to_string(&file) else { continue };
        match file.extension().and_then(std::ffi::OsStr::to_str) {
            Some("list") => entries.extend(parse_list(&text)),
            Some("sources") => entries.extend(parse_deb822(&text)),
            _ => {}
        }
    }
    entries
}

/// The mirror for `suite`: the environment's, else the machine's own; `None` when the machine has none.
#[must_use]
pub fn mirror_for(
    suite: &str,
    entries: &[Entry],
    variable: impl Fn(&str) -> Option<String>,
) -> Option<Mirror> {
    let security = is_security(suite);
    let name = if security { SECURITY_VARIABLE } else { MIRROR_VARIABLE };
    if let Some(uri) = variable(name).filter(|uri| !uri.is_empty()) {
        return Some(Mirror { uri, keyring: debian_keyring() });
    }
    let best = entries
        .iter()
        .filter(|entry| is_security(&entry.suite) == security && is_debian(entry))
        .max_by_key(|entry| likelihood(entry))?;
    // The archive's full keyring also has the keys of releases other than the machine's.
    let own = best.signed_by.clone().filter(|path| !path.to_string_lossy().contains("debian-archive"));
    Some(Mirror { uri: best.uri.clone(), keyring: own.or_else(debian_keyring) })
}

fn debian_keyring() -> Option<PathBuf> {
    KEYRINGS.iter().map(PathBuf::from).find(|path| path.exists())
}

fn is_security(suite: &str) -> bool {
    suite.ends_with("-security") || suite.ends_with("/updates")
}

/// Whether the entry can be of Debian's own archive: others also use Debian's suite names.
fn is_debian(entry: &Entry) -> bool {
    const SUITES: &[&str] = &[
        "bullseye",
        "bookworm",
        "trixie",
        "forky",
        "duke",
        "sid",
        "unstable",
        "testing",
        "stable",
        "oldstable",
        "oldoldstable",
    ];
    let release = entry.suite.split(['-', '/']).next().unwrap_or_default();
    SUITES.contains(&release)
        && entry.components.iter().any(|component| component == "main")
        && !entry.uri.starts_with("cdrom:")
}

/// The later of equally likely entries is taken by `max_by_key`, which is of no consequence.
fn likelihood(entry: &Entry) -> u8 {
    let signed =
        entry.signed_by.as_ref().is_some_and(|path| path.to_string_lossy().contains("debian-archive"));
    let last = entry.uri.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    u8::from(signed) * 2 + u8::from(last.starts_with("debian"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &str = "# comment\n\
        deb [arch=amd64 signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror.test/debian bookworm main contrib # end\n\
        deb-src http://mirror.test/debian bookworm main\n\
        deb https://vendor.test/linux/debian bookworm stable\n\
        deb http://mirror.test/sec/ bookworm-security main\n\
        debian is no source\n";

    const DEB822: &str = "# comment\n\
        Types: deb deb-src\n\
        URIs: mirror+file:/etc/apt/mirrors/debian.list\n\
        Suites: trixie\n trixie-updates\n\
        Components: main\n\
        Signed-By:\n -----BEGIN PGP PUBLIC KEY BLOCK-----\n .\n x\n\
        \n\
        Enabled: no\nTypes: deb\nURIs: http://off.test/debian\nSuites: trixie\nComponents: main\n";

    fn no_variable(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn the_one_line_format() {
        let entries = parse_list(LIST);
        assert_eq!(entries.len(), 3);
        assert_eq!(entries[0].components, ["main", "contrib"]);
        assert!(entries[0].signed_by.is_some());
        assert_eq!(
            mirror_for("trixie-backports", &entries, no_variable).unwrap().uri,
            "http://mirror.test/debian"
        );
        assert_eq!(
            mirror_for("bullseye-security", &entries, no_variable).unwrap().uri,
            "http://mirror.test/sec/"
        );
    }

    #[test]
    fn the_deb822_format() {
        let entries = parse_deb822(DEB822);
        let suites: Vec<_> = entries.iter().map(|entry| entry.suite.as_str()).collect();
        assert_eq!(suites, ["trixie", "trixie-updates"]);
        assert_eq!(entries[0].signed_by, None);
        assert!(mirror_for("bookworm", &entries, no_variable).unwrap().uri.starts_with("mirror+file:"));
        assert_eq!(mirror_for("bookworm-security", &entries, no_variable), None);
    }

    #[test]
    fn the_environment_comes_first() {
        let variable = |name: &str| (name == SECURITY_VARIABLE).then(|| "http://mine.test/s".to_owned());
        assert_eq!(mirror_for("trixie-security", &[], variable).unwrap().uri, "http://mine.test/s");
        assert_eq!(mirror_for("trixie", &[], variable), None);
    }

    #[test]
    fn both_formats_are_read_from_a_folder() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sources.list.d")).unwrap();
        std::fs::write(dir.path().join("sources.list"), LIST).unwrap();
        std::fs::write(dir.path().join("sources.list.d/a.sources"), DEB822).unwrap();
        std::fs::write(dir.path().join("sources.list.d/b.sources.save"), DEB822).unwrap();
        assert_eq!(read_system(dir.path()).len(), 5);
        assert!(read_system(&dir.path().join("absent")).is_empty());
    }
}
