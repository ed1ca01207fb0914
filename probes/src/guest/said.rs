//! What a probe's process says to PID 1 through its pipe: lines, of a letter and JSON.
//!
//! A case is written once, by the process that found it. PID 1 looks whether it is one and passes its bytes on, because
//! to read it and to write it anew took a machine without KVM a tenth of a run.

use crate::record::{Case, Outcome, Phase};
use crate::session::Sink;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use std::borrow::Cow;
use std::io::Write;
use std::os::fd::RawFd;

/// The letter of a line that holds a case.
const CASE: u8 = b'c';
/// The letter of the last line.
const RETURNED: u8 = b'r';

/// What a probe's process says.
pub(crate) enum Said {
    /// A case has ended.
    Case(Box<Case>),
    /// The probe's function has returned.
    Returned {
        /// How the probe ended.
        outcome: Outcome,
        /// The descriptors that were links when they were made.
        links: Vec<RawFd>,
    },
}

/// The JSON of [`Said::Returned`].
#[derive(Serialize, Deserialize)]
struct Last {
    outcome: Outcome,
    links: Vec<RawFd>,
}

/// What PID 1 has heard.
pub(super) enum Heard<'a> {
    /// The JSON of a case.
    Case(&'a [u8]),
    /// As [`Said::Returned`].
    Returned {
        /// How the probe ended.
        outcome: Outcome,
        /// Descriptors of the process that may be links.
        links: Vec<RawFd>,
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
                line = vec![CASE];
                serde_json::to_writer(&mut line, case)?;
            }
            Self::Returned { outcome, links } => {
                line = vec![RETURNED];
                serde_json::to_writer(&mut line, &Last { outcome: outcome.clone(), links: links.clone() })?;
            }
        }
        line.push(b'\n');
        Ok(line)
    }
}

impl<'a> Heard<'a> {
    /// Reads a line.
    ///
    /// # Errors
    /// Why it is none that [`Said`] makes.
    pub(super) fn read(line: &'a [u8]) -> Result<Self, String> {
        match line.split_first() {
            Some((&CASE, case)) => {
                serde_json::from_slice::<Shape<'_>>(case).map_err(|error| error.to_string())?;
                Ok(Heard::Case(case.trim_ascii_end()))
            }
            Some((&RETURNED, last)) => {
                let Last { outcome, links } =
                    serde_json::from_slice(last).map_err(|error| error.to_string())?;
                Ok(Heard::Returned { outcome, links })
            }
            Some(_) | None => Err("neither a case nor the end".to_owned()),
        }
    }
}

impl Sink {
    /// Sends one message to PID 1 and waits until it has been taken: a case is safe when this returns, and a process
    /// that has said its last word keeps its descriptors until PID 1 has looked at them.
    pub(crate) fn say(&mut self, said: &Said) -> std::io::Result<()> {
        self.keep(said)?;
        let (lines, count) = self.take_kept();
        self.pipe().write_all(&lines)?;
        self.wait_until_taken(count)
    }

    /// Keeps a message, to be sent with the next that is said.
    pub(crate) fn keep(&mut self, said: &Said) -> std::io::Result<()> {
        self.add_kept(&said.line()?);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[test]
    fn a_case_is_heard_as_it_was_said() {
        let text = r#"{"name":"fire \"x\"","phase":"trigger","end":"refused","errno":"EPERM","seen":{"runs":3}}"#;
        let case: Case = serde_json::from_str(text).unwrap();
        let line = Said::Case(Box::new(case)).line().unwrap();
        let Ok(Heard::Case(heard)) = Heard::read(&line) else { panic!("no case: {line:?}") };
        assert_eq!(std::str::from_utf8(heard).unwrap(), text);
    }

    #[test]
    fn the_end_is_heard() {
        let said = Said::Returned { outcome: Outcome::Observed, links: vec![3, 9] };
        let line = said.line().unwrap();
        let heard = Heard::read(&line);
        assert!(matches!(heard, Ok(Heard::Returned { outcome: Outcome::Observed, links }) if links == [3, 9]));
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
