//! From YAML to claims, keeping positions.
//!
//! `serde_yaml` tells the position of an error that is raised while a mapping is visited; [`Checked`] therefore turns the
//! raw mapping into the real thing inside its visitor.

use super::condition::{CaseIs, Ending, fact_text};
use super::{Claim, Claims, ClaimsError, Condition, Decision, Entry, File, List, Place, Unless};
use crate::text;
use crate::version::Version;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, Error as _, MapAccess, Visitor};
use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::{Path, PathBuf};

/// Reads the texts of these files.
pub(super) fn files(texts: &[(PathBuf, String)]) -> Result<Claims, ClaimsError> {
    let mut claims = Claims::default();
    let mut ids: BTreeMap<String, PathBuf> = BTreeMap::new();
    for (path, text) in texts {
        let file = file(path, text)?;
        let entries = file.lists.iter().flat_map(|(list, entries)| {
            entries.iter().map(|entry| format!("{}/{}", list.name(), entry.name))
        });
        for id in file.claims.iter().map(|claim| claim.id.clone()).chain(entries) {
            if let Some(other) = ids.insert(id.clone(), path.clone()) {
                let place = format!("{id} is also in {}; an id stands once", other.display());
                return Err(invalid(path, line_of(text, &id), place));
            }
        }
        claims.files.push(file);
    }
    Ok(claims)
}

fn invalid(path: &Path, line: usize, message: String) -> ClaimsError {
    ClaimsError::Invalid { path: path.to_owned(), line, message }
}

/// The last line that names an id or a list's entry: of two, the second is one too many.
fn line_of(text: &str, id: &str) -> usize {
    let name = id.rsplit('/').next().unwrap_or(id);
    let words = |line: &str| {
        line.split(|c: char| !(c.is_alphanumeric() || "-_".contains(c))).any(|word| word == name)
    };
    text.lines().enumerate().filter(|(_, line)| words(line)).last().map_or(1, |(place, _)| place + 1)
}

fn file(path: &Path, text: &str) -> Result<File, ClaimsError> {
    if let Some(line) = text::unmerged(text) {
        return Err(invalid(path, line, text::UNMERGED.to_owned()));
    }
    let raw: RawFile = serde_yaml::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |place| place.line());
        let message = error.to_string();
        let bare = message.rsplit_once(" at line ").map_or(message.as_str(), |(text, _)| text);
        invalid(path, line, bare.to_owned())
    })?;
    let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let lists = raw.lists.into_iter().map(|list| (list.0.list.into(), list.0.entries)).collect();
    Ok(File { name, claims: raw.statements.into_iter().map(|claim| claim.0).collect(), lists })
}

/// A file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawFile {
    #[serde(default)]
    statements: Vec<Checked<Claim>>,
    #[serde(default)]
    lists: Vec<Checked<RawList>>,
}

/// A value that is checked while its mapping is visited.
#[derive(Clone)]
struct Checked<T>(T);

/// How a raw mapping becomes the real thing.
trait FromRaw: Sized {
    /// What serde reads.
    type Raw: for<'de> Deserialize<'de>;
    /// What belongs here, for the message about something that is no mapping.
    const WHAT: &'static str;
    /// The real thing, or what is wrong.
    fn from_raw(raw: Self::Raw) -> Result<Self, String>;
}

impl<'de, T: FromRaw> Deserialize<'de> for Checked<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Mapping<T>(PhantomData<T>);
        impl<'de, T: FromRaw> Visitor<'de> for Mapping<T> {
            type Value = Checked<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(T::WHAT)
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Checked<T>, A::Error> {
                let raw = T::Raw::deserialize(MapAccessDeserializer::new(map))?;
                T::from_raw(raw).map(Checked).map_err(A::Error::custom)
            }
        }
        deserializer.deserialize_map(Mapping(PhantomData))
    }
}

/// A statement as written.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawClaim {
    id: String,
    says: String,
    #[serde(default)]
    inferred: bool,
    at: RawPlace,
    applies: Option<Checked<Condition>>,
    holds: Option<Checked<Condition>>,
    tag: Option<RawTag>,
    complete: Option<RawListName>,
    undecided: Option<String>,
    unless: Option<RawUnless>,
    because: Option<String>,
    instead: Option<String>,
    #[serde(default)]
    source: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawPlace {
    heading: String,
    words: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTag {
    feature: String,
    version: String,
    exists: Checked<Condition>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawUnless {
    when: Checked<Condition>,
    then: String,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawListName {
    Helpers,
    Kfuncs,
}

impl From<RawListName> for List {
    fn from(name: RawListName) -> Self {
        match name {
            RawListName::Helpers => Self::Helpers,
            RawListName::Kfuncs => Self::Kfuncs,
        }
    }
}

impl FromRaw for Claim {
    type Raw = RawClaim;
    const WHAT: &'static str = "a statement: id, says, at and one of holds, tag, complete, undecided";

    fn from_raw(raw: RawClaim) -> Result<Self, String> {
        let id = raw.id;
        let wrong = |what: &str| Err(format!("statement {id:?}: {what}"));
        if id.is_empty() || !id.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') {
            return wrong("an id is made of a-z, 0-9 and '-'");
        }
        if raw.at.words.iter().all(|words| words.trim().is_empty()) {
            return wrong("`at` needs words by which the statement is found");
        }
        let decisions: Vec<Decision> = [
            raw.holds.map(|condition| Decision::Holds(condition.0)),
            raw.tag.as_ref().map(|tag| Decision::Tag {
                feature: tag.feature.clone(),
                version: tag.version.clone(),
                exists: tag.exists.0.clone(),
            }),
            raw.complete.map(|list| Decision::Complete(list.into())),
            raw.undecided.map(Decision::Undecided),
        ]
        .into_iter()
        .flatten()
        .collect();
        let decision = match <[Decision; 1]>::try_from(decisions) {
            Ok([decision]) => decision,
            Err(_) => return wrong("give exactly one of holds, tag, complete, undecided"),
        };
        if let Decision::Tag { version, .. } = &decision
            && Version::parse(version).is_none()
        {
            return wrong(&format!("{version:?} is no version such as v5.7"));
        }
        if raw.source.is_empty() && !matches!(decision, Decision::Undecided(_)) {
            return wrong("what is decided names the kernel source behind it");
        }
        Ok(Self {
            says: raw.says,
            inferred: raw.inferred,
            at: Place { heading: raw.at.heading, words: raw.at.words },
            applies: raw.applies.map(|condition| condition.0),
            decision,
            unless: raw.unless.map(|unless| Unless { when: unless.when.0, then: unless.then }),
            because: raw.because,
            instead: raw.instead,
            source: raw.source,
            id,
        })
    }
}

/// A condition as written: one of a case, all, any, not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawCondition {
    all: Option<Vec<Checked<Condition>>>,
    any: Option<Vec<Checked<Condition>>>,
    not: Option<Box<Checked<Condition>>>,
    probe: Option<String>,
    case: Option<String>,
    is: Option<RawEnding>,
    with: Option<String>,
    at: Option<String>,
    accepted: Option<bool>,
    fired: Option<bool>,
    denied: Option<bool>,
    reason: Option<String>,
    #[serde(default)]
    seen: BTreeMap<String, serde_json::Value>,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
enum RawEnding {
    Done,
    Refused,
    Absent,
}

impl From<RawEnding> for Ending {
    fn from(ending: RawEnding) -> Self {
        match ending {
            RawEnding::Done => Self::Done,
            RawEnding::Refused => Self::Refused,
            RawEnding::Absent => Self::Absent,
        }
    }
}

impl FromRaw for Condition {
    type Raw = RawCondition;
    const WHAT: &'static str = "a condition: a probe's case and what it is, or all, any, not";

    fn from_raw(raw: RawCondition) -> Result<Self, String> {
        let bare = |conditions: Vec<Checked<Self>>| conditions.into_iter().map(|it| it.0).collect::<Vec<_>>();
        match (raw.all, raw.any, raw.not, raw.probe, raw.case) {
            (Some(all), None, None, None, None) if !all.is_empty() => Ok(Self::All(bare(all))),
            (None, Some(any), None, None, None) if !any.is_empty() => Ok(Self::Any(bare(any))),
            (None, None, Some(not), None, None) => Ok(Self::Not(Box::new(not.0))),
            (None, None, None, Some(probe), Some(case)) => {
                let seen: Vec<_> =
                    raw.seen.into_iter().map(|(key, value)| (key, fact_text(&value))).collect();
                let case = CaseIs {
                    probe,
                    case,
                    is: raw.is.map(Into::into),
                    with: raw.with,
                    at: raw.at,
                    accepted: raw.accepted,
                    fired: raw.fired,
                    denied: raw.denied,
                    reason: raw.reason,
                    seen,
                };
                let says_nothing =
                    CaseIs { probe: case.probe.clone(), case: case.case.clone(), ..CaseIs::default() };
                if case == says_nothing {
                    return Err(format!(
                        "{}/{}: say what the case must be like (is, seen, ..)",
                        case.probe, case.case
                    ));
                }
                Ok(Self::Case(Box::new(case)))
            }
            _ => Err("a condition is one of probe with case, all, any, not".to_owned()),
        }
    }
}

/// A list as written.
#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawList {
    list: RawListName,
    entries: Vec<Entry>,
}

impl FromRaw for RawList {
    type Raw = Self;
    const WHAT: &'static str = "a list: helpers or kfuncs, and its entries";

    fn from_raw(raw: Self) -> Result<Self, String> {
        for (place, entry) in raw.entries.iter().enumerate() {
            if raw.entries[..place].iter().any(|other| other.name == entry.name) {
                return Err(format!("{} is listed twice", entry.name));
            }
            let mut versions = entry.since.iter().chain(&entry.until);
            if versions.any(|version| Version::parse(version).is_none()) {
                return Err(format!("{}: the tag is no version such as v6.0", entry.name));
            }
        }
        Ok(raw)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Tagged {
            name: String,
            since: Option<String>,
            until: Option<String>,
        }
        struct NameOrTagged;
        impl<'de> Visitor<'de> for NameOrTagged {
            type Value = Entry;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or {name: .., since: v6.0, until: v6.11}")
            }

            fn visit_str<E: serde::de::Error>(self, name: &str) -> Result<Entry, E> {
                Ok(Entry { name: name.to_owned(), since: None, until: None })
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Entry, A::Error> {
                let tagged = Tagged::deserialize(MapAccessDeserializer::new(map))?;
                Ok(Entry { name: tagged.name, since: tagged.since, until: tagged.until })
            }
        }
        deserializer.deserialize_any(NameOrTagged)
    }
}
