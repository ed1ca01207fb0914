//! What a probe's process says to PID 1: lines, of a letter and JSON.
//!
//! A case is written once, by the process that found it, and goes among the notes of the channel, where it is safe. PID 1
//! looks whether it is one and passes its bytes on when the probe is over: to read each and to write it anew, and to be
//! woken for it, took a machine without KVM a sixth of a run. What does not fit goes through a pipe, as does the end of a
//! probe whose links PID 1 is to take over before its process ends.

use crate::channel::Notes;
use crate::protocol::{CASE_LINE, FRAME_MAX};
use crate::record::{Case, End, Outcome, Phase};
use crate::session::Sink;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::io::Write;
use std::os::fd::RawFd;

/// The letter of the last line.
const RETURNED: u8 = b'r';
/// The line that says: the notes are full.
const TAKE: &[u8] = b"t\n";

/// The most that a case's line may have, in bytes: with its probe's id it must fit into a frame.
const CASE_MAX: usize = FRAME_MAX - (64 << 10);
/// What is left of a log in a case that is larger, in bytes; a verifier's log may have 16 MiB.
const LOG_LEFT: usize = 512 << 10;
/// What is left of any other text in it, in bytes.
const TEXT_LEFT: usize = 16 << 10;

/// What a probe's process says.
pub(crate) enum Said {
    /// A case has ended.
    Case(Box<Case>),
    /// The probe's function has returned.
    Returned {
        /// How the probe ended.
        outcome: Outcome,
        /// The links that PID 1 is to take over.
        links: Vec<RawFd>,
        /// The process.
        pid: i32,
    },
}

/// The JSON of [`Said::Returned`].
#[derive(Serialize, Deserialize)]
struct Last {
    outcome: Outcome,
    links: Vec<RawFd>,
    pid: i32,
}

/// What PID 1 has heard.
pub(super) enum Heard<'a> {
    /// The JSON of a case.
    Case(&'a [u8]),
    /// The notes are to be taken.
    Full,
    /// As [`Said::Returned`].
    Returned {
        /// How the probe ended.
        outcome: Outcome,
        /// Descriptors of the process that may be links.
        links: Vec<RawFd>,
        /// The process, as it says.
        pid: i32,
    },
}

/// As much of a [`Case`] as tells it from anything else; the harness reads the rest.
#[derive(Deserialize)]
#[expect(dead_code, reason = "only whether it can be read matters")]
struct Shape<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    phase: Phase,
    #[serde(borrow)]
    end: Cow<'a, str>,
    #[serde(default)]
    seen: IgnoredAny,
}

impl Said {
    /// The line, with its end.
    fn line(&self) -> serde_json::Result<Vec<u8>> {
        let mut line;
        match self {
            Self::Case(case) => {
                line = vec![CASE_LINE];
                serde_json::to_writer(&mut line, case)?;
                if line.len() > CASE_MAX {
                    line.truncate(1);
                    serde_json::to_writer(&mut line, &shortened(case))?;
                }
            }
            Self::Returned { outcome, links, pid } => {
                line = vec![RETURNED];
                let last = Last { outcome: outcome.clone(), links: links.clone(), pid: *pid };
                serde_json::to_writer(&mut line, &last)?;
            }
        }
        line.push(b'\n');
        Ok(line)
    }
}

/// A case that fits: of long texts their beginnings and ends are left, then no programs, and if all that is not enough
/// only that there was too much.
fn shortened(case: &Case) -> Case {
    let mut case = case.clone();
    cut(&mut case.log, LOG_LEFT);
    case.seen.values_mut().for_each(cut_all);
    let too_large = |case: &Case| serde_json::to_vec(case).map_or(usize::MAX, |text| text.len()) >= CASE_MAX;
    if too_large(&case) {
        case.programs.clear();
    }
    if too_large(&case) {
        case.seen.clear();
        case.end = End::CouldNotTell { why: "what was seen is more than fits into a record".to_owned() };
    }
    case
}

/// Cuts every text in a value.
fn cut_all(value: &mut Value) {
    match value {
        Value::String(text) => cut(text, TEXT_LEFT),
        Value::Array(values) => values.iter_mut().for_each(cut_all),
        Value::Object(fields) => fields.values_mut().for_each(cut_all),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Leaves half of `left` bytes at either end of a text that has more, with a mark in between. A log's reason is at its end.
fn cut(text: &mut String, left: usize) {
    if text.len() <= left {
        return;
    }
    let (head, tail) = (text.floor_char_boundary(left / 2), text.ceil_char_boundary(text.len() - left / 2));
    let mark = format!("\n[.. {} bytes are left out here ..]\n", tail - head);
    text.replace_range(head..tail, &mark);
}

impl<'a> Heard<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// Why it is none that [`Said`] makes.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, String> {
        match line.split_first() {
            Some((&CASE_LINE, case)) => {
                serde_json::from_slice::<Shape<'_>>(case).map_err(|error| error.to_string())?;
                Ok(Heard::Case(case.trim_ascii_end()))
            }
            Some((&RETURNED, last)) => {
                let Last { outcome, links, pid } =
                    serde_json::from_slice(last).map_err(|error| error.to_string())?;
                Ok(Heard::Returned { outcome, links, pid })
            }
            Some(_) if line == TAKE => Ok(Heard::Full),
            Some(_) | None => Err("neither a case nor the end".to_owned()),
        }
    }
}

impl Sink {
    /// Says one thing to PID 1. A case is safe when this returns, and so is the end of a probe without links; a process
    /// that has links keeps its descriptors until PID 1 has looked at them.
    pub(crate) fn say(&mut self, said: &Said) -> std::io::Result<()> {
        let line = said.line()?;
        let has_links = matches!(said, Said::Returned { links, .. } if !links.is_empty());
        if !has_links && self.note(&line)? {
            return Ok(());
        }
        self.pipe().write_all(&line)?;
        self.wait_until_taken()
    }

    /// Adds a line to the notes; `false` when they could not hold it even if they were empty.
    fn note(&mut self, line: &[u8]) -> std::io::Result<bool> {
        if line.len() > Notes::CAPACITY || self.notes().write(line) {
            return Ok(line.len() <= Notes::CAPACITY);
        }
        self.pipe().write_all(TAKE)?;
        self.wait_until_taken()?;
        Ok(self.notes().write(line))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol;
    use rstest::rstest;

    #[test]
    fn a_case_is_heard_as_it_was_said() {
        let text =
            r#"{"name":"fire \"x\"","phase":"trigger","end":"refused","errno":"EPERM","seen":{"runs":3}}"#;
        let case: Case = serde_json::from_str(text).unwrap();
        let line = Said::Case(Box::new(case)).line().unwrap();
        let Ok(Heard::Case(heard)) = Heard::read(&line) else { panic!("no case: {line:?}") };
        assert_eq!(std::str::from_utf8(heard).unwrap(), text);
        assert_eq!(protocol::case_in(line.trim_ascii_end()).unwrap().name, "fire \"x\"");
        assert!(protocol::case_in(b"r{}").is_none() && protocol::case_in(b"").is_none());
    }

    /// A case of the name `a`, with so many bytes of log, so many texts of 20 KiB and so long a program.
    fn large(log: usize, texts: usize, program: usize) -> Case {
        let mut case: Case = serde_json::from_str(r#"{"name":"a","phase":"load","end":"done"}"#).unwrap();
        case.log = "x\n".repeat(log / 2) + "R1 invalid mem access";
        for text in 0..texts {
            case.seen.insert(text.to_string(), "y".repeat(20 << 10).into());
        }
        let (name, submitted) = (String::new(), "z".repeat(program));
        case.programs.push(crate::record::ProgramDump { name, submitted, translated: String::new() });
        case
    }

    #[rstest]
    #[case::small(large(1 << 20, 1, 1 << 20), |case: &Case| case.log.len() > 1 << 20 && case.programs.len() == 1)]
    #[case::log(large(16 << 20, 1, 9), |case: &Case| {
        let marked = case.log.contains("bytes are left out here");
        marked && case.log.ends_with("R1 invalid mem access") && case.end == End::Done && case.programs.len() == 1
    })]
    #[case::texts(large(9, 450, 9), |case: &Case| case.seen.len() == 450 && case.end == End::Done)]
    #[case::program(large(9, 0, 9 << 20), |case: &Case| case.programs.is_empty() && case.end == End::Done)]
    #[case::all(large(9, 1000, 9), |case: &Case| matches!(case.end, End::CouldNotTell { .. }))]
    fn a_case_that_is_too_large_is_cut(#[case] case: Case, #[case] is_as_it_should: fn(&Case) -> bool) {
        let line = Said::Case(Box::new(case)).line().unwrap();
        assert!(line.len() <= CASE_MAX + 1, "{}", line.len());
        assert!(matches!(Heard::read(&line), Ok(Heard::Case(_))));
        assert!(is_as_it_should(&protocol::case_in(line.trim_ascii_end()).unwrap()));
    }

    #[test]
    fn the_end_is_heard() {
        let said = Said::Returned { outcome: Outcome::Observed, links: vec![3, 9], pid: 300 };
        let line = said.line().unwrap();
        let heard = Heard::read(&line);
        assert!(
            matches!(heard, Ok(Heard::Returned { outcome: Outcome::Observed, links, pid: 300 }) if links == [3, 9])
        );
    }

    #[rstest]
    #[case(b"")]
    #[case(b"c")]
    #[case(b"c{}")]
    #[case(b"c{\"name\":\"a\",\"phase\":\"nowhere\",\"end\":\"done\"}")]
    #[case(b"c{\"name\":\"a\",\"phase\":\"load\",\"end\":\"done\"} and more")]
    #[case(b"r{\"outcome\":\"fine\"}")]
    #[case(b"{\"case\": \"not one\"}")]
    fn anything_else_is_nonsense(#[case] line: &[u8]) {
        assert!(Heard::read(line).is_err());
    }
}
