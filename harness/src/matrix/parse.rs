//! From YAML to rows, keeping positions.
//!
//! `serde_yaml` tells the position of an error that is raised *while* a value is visited. All checks therefore run
//! inside visitors: scalars through [`Checked`], whole rows through [`RowSeed`], which also sees the rows before.

use super::values;
use super::{Archive, Debian, Matrix, MatrixError, Origin, PackageName, Row, Source};
use crate::text;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// Reads `text`, the content of `path`.
pub(super) fn matrix(text: &str, path: &Path) -> Result<Matrix, MatrixError> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let refuse = |message: &str, position: Option<(usize, usize)>| {
        let (line, column) = position.unwrap_or((1, 1));
        MatrixError::Invalid { path: path.to_owned(), line, column, message: message.to_owned() }
    };
    if let Some(line) = text::unmerged(text) {
        return Err(refuse(text::UNMERGED, Some((line, 1))));
    }
    let file: File = serde_yaml::from_str(text).map_err(|error| {
        let position = error.location().map(|place| (place.line(), place.column()));
        refuse(&explain(&error.to_string()), position)
    })?;
    let defaults = file.defaults.unwrap_or_default();
    let Some(raw_rows) = file.kernels.map(|rows| rows.0).filter(|rows| !rows.is_empty()) else {
        return Err(refuse("there is no row below `kernels:`", None));
    };
    let names: Vec<String> = raw_rows.iter().map(|raw| raw.name.0.clone()).collect();
    let mut rows = Vec::new();
    for (raw, name) in raw_rows.into_iter().zip(names) {
        let position = Some((line_of(text, &name), 1));
        let row = finished(raw, &defaults, folder).ok_or_else(|| {
            let complaint =
                "has no `lsm`, and neither has `defaults`; give one of them, such as landlock,bpf";
            refuse(&format!("kernel {name:?} {complaint}"), position)
        })?;
        if let Some(series) = row.other_series() {
            let complaint =
                format!("is named after a version and its source is one of {series}; mend one of them");
            return Err(refuse(&format!("kernel {name:?} {complaint}"), position));
        }
        rows.push(row);
    }
    Ok(Matrix { rows })
}

/// The row that `raw` and what holds for all rows make, with its paths beginning at `folder`. Without an order of LSMs there is
/// none.
fn finished(raw: RawRow, defaults: &Defaults, folder: &Path) -> Option<Row> {
    let mut config = pairs(defaults.config.clone());
    config.extend(pairs(raw.config));
    let lsm = raw.lsm.or_else(|| defaults.lsm.clone())?.0;
    let source = match (raw.debian, raw.upstream, raw.archive, raw.path) {
        (Some(debian), ..) => Source::Debian(Debian {
            suites: debian.suite.0,
            package: debian.package.0,
            version: debian.version.0,
        }),
        (_, Some(version), ..) => Source::Upstream(version.0),
        (_, _, Some(archive), _) => Source::Archive(Archive {
            origin: archive.origin,
            measured: archive.measured,
            fragments: archive
                .fragments
                .as_ref()
                .unwrap_or(&defaults.fragments)
                .iter()
                .map(|file| resolve(folder, &file.0))
                .collect(),
        }),
        (.., image) => Source::Path(resolve(folder, &image?.0)),
    };
    let sha256 = raw.sha256.map(|sum| sum.0);
    Some(Row { name: raw.name.0, source, sha256, lsm, config })
}

/// The line of the row `name`, counted from 1; 1 when it is written in a way that this does not find.
fn line_of(text: &str, name: &str) -> usize {
    let is_row = |line: &str| {
        let key = line.trim_start().trim_start_matches("- ").trim_start_matches('{').trim_start();
        let value = key.strip_prefix("name:").map(|value| value.trim_start().trim_start_matches(['"', '\'']));
        value.is_some_and(|value| value.split(['"', '\'', ',', '}', '#', ' ']).next() == Some(name))
    };
    text.lines().position(is_row).map_or(1, |at| at + 1)
}

/// A path of the file: `~/` is the user's home, anything relative starts at the file's folder.
fn resolve(folder: &Path, text: &str) -> PathBuf {
    match (text.strip_prefix("~/"), std::env::var_os("HOME")) {
        (Some(rest), Some(home)) => Path::new(&home).join(rest),
        _ => folder.join(text),
    }
}

/// The message without its position (it is printed in front), and with a suggestion where a key was mistyped.
fn explain(message: &str) -> String {
    let text = message.rsplit_once(" at line ").map_or(message, |(text, _)| text);
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let Some((_, unknown)) = text.split_once("unknown field ") else {
        return text.to_owned();
    };
    let mut names = quoted(unknown).into_iter();
    let given = names.next().unwrap_or_default();
    let known: Vec<String> = names.collect();
    let meant = values::closest(&given, known.iter().map(String::as_str));
    format!("{text}{}", super::did_you_mean(meant))
}

/// A scalar that is checked at its own position.
trait Check: Sized {
    /// What belongs here, for the message about something that is no scalar.
    const WHAT: &'static str;
    /// The checked value, or what is wrong with `text`.
    fn check(text: &str) -> Result<Self, String>;
}

/// Declares scalar types and their checks.
macro_rules! scalars {
    ($($(#[$doc:meta])* $name:ident($value:ty) = $check:path, $what:literal;)*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
        struct $name($value);

        impl Check for $name {
            const WHAT: &'static str = $what;
            fn check(text: &str) -> Result<Self, String> {
                $check(text).map(Self)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                deserializer.deserialize_str(Checked(PhantomData))
            }
        }
    )*};
}

scalars! {
    /// A row's name.
    Name(String) = values::row_name, "the kernel's name, a string";
    /// A Debian suite.
    Suite(String) = values::suite, "the name of a Debian suite";
    /// A kernel package's name.
    Package(PackageName) = values::package, "the name of a kernel package";
    /// A package of kernel sources' name.
    Sources(PackageName) = values::sources, "the name of a package of kernel sources";
    /// A package's version.
    Version(String) = values::version, "a package version";
    /// A mainline version.
    Upstream(String) = values::upstream, "a mainline version such as v6.14";
    /// A SHA-256.
    Sha256(String) = values::sha256, "a SHA-256";
    /// An archive's address.
    Url(String) = values::url, "an address";
    /// A path.
    File_(String) = values::path, "a path";
    /// An `lsm=` order.
    Lsm(String) = values::lsm, "an lsm order such as landlock,bpf";
    /// A promise's option.
    ConfigName(String) = values::config_name, "the name of a configuration option";
    /// A promise's value.
    ConfigValue(String) = values::config_value, "y, m, n or a value";
}

/// Visits the scalar of a [`Check`] type.
struct Checked<T>(PhantomData<T>);

impl<T: Check> Visitor<'_> for Checked<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::WHAT)
    }

    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<T, E> {
        T::check(text).map_err(E::custom)
    }
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    defaults: Option<Defaults>,
    kernels: Option<RawRows>,
}

/// What rows without a say of their own get.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Defaults {
    lsm: Option<Lsm>,
    #[serde(default)]
    config: BTreeMap<ConfigName, ConfigValue>,
    #[serde(default)]
    fragments: Vec<File_>,
}

/// The promises as plain strings.
fn pairs(config: BTreeMap<ConfigName, ConfigValue>) -> BTreeMap<String, String> {
    config.into_iter().map(|(name, value)| (name.0, value.0)).collect()
}

/// A row before its source is settled.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawRow {
    name: Name,
    debian: Option<RawDebian>,
    upstream: Option<Upstream>,
    archive: Option<RawArchive>,
    path: Option<File_>,
    sha256: Option<Sha256>,
    lsm: Option<Lsm>,
    #[serde(default)]
    config: BTreeMap<ConfigName, ConfigValue>,
}

/// A Debian source.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawDebian {
    suite: Suites,
    package: Package,
    version: Version,
}

/// An archive source: sources of one of two origins.
struct RawArchive {
    origin: Origin,
    fragments: Option<Vec<File_>>,
    measured: Option<String>,
}

/// An archive source as it is written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ArchiveKeys {
    url: Option<Url>,
    sha256: Option<Sha256>,
    suite: Option<Suites>,
    package: Option<Sources>,
    version: Option<Version>,
    fragments: Option<Vec<File_>>,
    measured: Option<Version>,
}

impl ArchiveKeys {
    /// The origin, or what is wrong: all keys of one of the two, none of the other.
    fn checked(self) -> Result<RawArchive, String> {
        let fragments = self.fragments;
        let measured = self.measured.map(|release| release.0);
        if measured.is_some() && self.url.is_none() {
            return Err(
                "`measured` is for an archive with url and sha256: a package is built from nothing else"
                    .to_owned(),
            );
        }
        let origin = match (self.url, self.sha256, self.suite, self.package, self.version) {
            (Some(url), Some(sha256), None, None, None) => Origin::Tarball { url: url.0, sha256: sha256.0 },
            (None, None, Some(suite), Some(package), Some(version)) => {
                in_series(&package.0, &version.0)?;
                Origin::Debian(Debian { suites: suite.0, package: package.0, version: version.0 })
            }
            (url, sha256, suite, package, version) => {
                let keys = [
                    ("url", url.is_some()),
                    ("sha256", sha256.is_some()),
                    ("suite", suite.is_some()),
                    ("package", package.is_some()),
                    ("version", version.is_some()),
                ];
                let given: Vec<_> = keys.iter().filter(|(_, given)| *given).map(|(name, _)| *name).collect();
                let given = if given.is_empty() { "neither".to_owned() } else { given.join(", ") };
                return Err(format!(
                    "an archive is either url and sha256, or suite, package and version of a Debian package; here is \
                     {given}"
                ));
            }
        };
        Ok(RawArchive { origin, fragments, measured })
    }
}

impl<'de> Deserialize<'de> for RawArchive {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Keys;
        impl<'de> Visitor<'de> for Keys {
            type Value = RawArchive;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("url and sha256, or suite, package and version")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawArchive, A::Error> {
                // Checked in here, so that the message gets the position.
                let keys = ArchiveKeys::deserialize(MapAccessDeserializer::new(map))?;
                keys.checked().map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Keys)
    }
}

/// One suite or a list of them.
struct Suites(Vec<String>);

impl<'de> Deserialize<'de> for Suites {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMore;
        impl<'de> Visitor<'de> for OneOrMore {
            type Value = Suites;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name of a Debian suite or a list of them")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Suites, E> {
                values::suite(text).map(|suite| Suites(vec![suite])).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Suites, A::Error> {
                let mut suites = Vec::new();
                while let Some(Suite(suite)) = seq.next_element()? {
                    if suites.contains(&suite) {
                        return Err(A::Error::custom(format!("suite {suite} is listed twice")));
                    }
                    suites.push(suite);
                }
                if suites.is_empty() {
                    Err(A::Error::custom("an empty list of suites"))
                } else {
                    Ok(Suites(suites))
                }
            }
        }
        deserializer.deserialize_any(OneOrMore)
    }
}

/// All rows.
struct RawRows(Vec<RawRow>);

impl<'de> Deserialize<'de> for RawRows {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Rows;
        impl<'de> Visitor<'de> for Rows {
            type Value = RawRows;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of kernels")
            }

            fn visit_unit<E>(self) -> Result<RawRows, E> {
                Ok(RawRows(Vec::new()))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawRows, A::Error> {
                let mut rows: Vec<RawRow> = Vec::new();
                while let Some(row) = seq.next_element_seed(RowSeed { before: &rows })? {
                    rows.push(row);
                }
                Ok(RawRows(rows))
            }
        }
        deserializer.deserialize_any(Rows)
    }
}

/// Reads one row, knowing the rows before it.
struct RowSeed<'a> {
    before: &'a [RawRow],
}

impl<'de> DeserializeSeed<'de> for RowSeed<'_> {
    type Value = RawRow;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<RawRow, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for RowSeed<'_> {
    type Value = RawRow;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a kernel: a name and one of debian, upstream, archive, path")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<RawRow, A::Error> {
        let row = RawRow::deserialize(MapAccessDeserializer::new(map))?;
        let complaint = if self.before.iter().any(|other| other.name == row.name) {
            Some("there is an earlier row of the same name".to_owned())
        } else {
            one_source(&row).or_else(|| same_series(&row)).or_else(|| vouched_for(&row))
        };
        match complaint {
            Some(complaint) => Err(A::Error::custom(format!("kernel {:?}: {complaint}", row.name.0))),
            None => Ok(row),
        }
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<RawRow, A::Error> {
        // Only to leave the parser in a state from which it can tell the position.
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Err(A::Error::custom("a kernel is a mapping, not a list"))
    }
}

/// A row has exactly one source.
fn one_source(row: &RawRow) -> Option<String> {
    let sources = [
        ("debian", row.debian.is_some()),
        ("upstream", row.upstream.is_some()),
        ("archive", row.archive.is_some()),
        ("path", row.path.is_some()),
    ];
    let given: Vec<_> = sources.iter().filter(|(_, is_given)| *is_given).map(|(name, _)| *name).collect();
    match given.as_slice() {
        [_one] => None,
        [] => Some("no source; add one of debian, upstream, archive, path".to_owned()),
        several => Some(format!("{} sources ({}); keep one", several.len(), several.join(", "))),
    }
}

/// A package and an archive have a hash of their own.
fn vouched_for(row: &RawRow) -> Option<String> {
    let vouched = row.sha256.is_some() && row.upstream.is_none() && row.path.is_none();
    vouched.then(|| {
        "`sha256` is that of an image, for `upstream` and `path`; the others have their own".to_owned()
    })
}

/// A pinned version belongs to the series that the package names.
fn same_series(row: &RawRow) -> Option<String> {
    let debian = row.debian.as_ref()?;
    in_series(&debian.package.0, &debian.version.0).err()
}

/// Whether `version` is one of the series that `package` names; else what is wrong.
fn in_series(package: &PackageName, version: &str) -> Result<(), String> {
    let upstream = version.split_once(':').map_or(version, |(_epoch, rest)| rest);
    match upstream.strip_prefix(package.series.as_str()) {
        Some(rest) if !rest.starts_with(|c: char| c.is_ascii_digit()) => Ok(()),
        _ => Err(format!("version {version} is not of the package's series {}", package.series)),
    }
}
