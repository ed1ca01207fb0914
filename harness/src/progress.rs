//! Saying what goes on: bars on a terminal, plain lines elsewhere, always on standard error.
//!
//! Standard output belongs to results. A plain line reads `[fetch 6.12] downloading`, so that a log of several
//! kernels at once can be searched by kernel.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::{IsTerminal, Write};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// A plain log repeats the position of a long download no more often than this.
const PLAIN_INTERVAL: Duration = Duration::from_secs(5);

/// Where lines go when they are not drawn.
type Sink = Arc<dyn Fn(&str) + Send + Sync>;

/// The place to which all parts of a run report. Cheap to clone; clones share the screen.
#[derive(Clone)]
pub struct Progress {
    mode: Mode,
}

#[derive(Clone)]
enum Mode {
    /// Bars, redrawn in place.
    Bars(MultiProgress),
    /// One line per event.
    Lines(Sink),
}

impl Progress {
    /// Bars when standard error is a terminal, plain lines otherwise.
    #[must_use]
    pub fn stderr() -> Self {
        if std::io::stderr().is_terminal() {
            return Self { mode: Mode::Bars(MultiProgress::with_draw_target(ProgressDrawTarget::stderr())) };
        }
        Self::lines(|line| {
            // A closed standard error is no reason to stop working.
            let _ = writeln!(std::io::stderr().lock(), "{line}");
        })
    }

    /// Hands every line to `sink`: for tests and for callers that keep a log of their own.
    pub fn lines(sink: impl Fn(&str) + Send + Sync + 'static) -> Self {
        Self { mode: Mode::Lines(Arc::new(sink)) }
    }

    /// Says nothing.
    #[must_use]
    pub fn silent() -> Self {
        Self::lines(|_| {})
    }

    /// Collects the lines; the second part is read after the work.
    #[must_use]
    pub fn collected() -> (Self, Arc<Mutex<Vec<String>>>) {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&lines);
        let progress = Self::lines(move |line| {
            kept.lock().unwrap_or_else(PoisonError::into_inner).push(line.to_owned());
        });
        (progress, lines)
    }

    /// Says one sentence about `label` that stays on the screen.
    pub fn say(&self, label: &str, message: &str) {
        let line = format!("[{label}] {message}");
        match &self.mode {
            // Fails only when standard error is gone, which is no reason to stop working.
            Mode::Bars(bars) => drop(bars.println(&line)),
            Mode::Lines(sink) => sink(&line),
        }
    }

    /// Begins something that takes time. The returned task disappears from the screen when dropped.
    #[must_use]
    pub fn task(&self, label: &str, message: &str) -> Task {
        let bar = match &self.mode {
            Mode::Bars(bars) => {
                let bar = bars.add(ProgressBar::new_spinner());
                bar.set_style(style(SPINNER));
                bar.set_prefix(label.to_owned());
                bar.enable_steady_tick(Duration::from_millis(120));
                Some(bar)
            }
            Mode::Lines(_) => None,
        };
        let task = Task {
            progress: self.clone(),
            label: label.to_owned(),
            bar,
            plain: Mutex::new(Plain { message: String::new(), total: 0, said: Instant::now() }),
        };
        task.message(message);
        task
    }
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.mode {
            Mode::Bars(_) => "Progress(bars)",
            Mode::Lines(_) => "Progress(lines)",
        })
    }
}

const SPINNER: &str = "{spinner} [{prefix}] {wide_msg} {elapsed}";
const BYTES_BAR: &str = "{spinner} [{prefix}] {msg} {bar:24} {bytes}/{total_bytes} {elapsed}";
const COUNT_BAR: &str = "{spinner} [{prefix}] {msg} {bar:24} {pos}/{len} {elapsed}";

/// What a position counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Bytes, shown in mebibytes.
    Bytes,
    /// Things, shown as they are.
    Things,
}

/// A template of this module; a template that does not parse would only cost the looks.
fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// What plain mode remembers so that it does not repeat itself.
struct Plain {
    message: String,
    total: u64,
    said: Instant,
}

/// Something under way.
pub struct Task {
    progress: Progress,
    label: String,
    bar: Option<ProgressBar>,
    plain: Mutex<Plain>,
}

impl Task {
    /// Says what is done now; the same message twice in a row is said once.
    pub fn message(&self, message: &str) {
        let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        if plain.message == message {
            return;
        }
        message.clone_into(&mut plain.message);
        plain.said = Instant::now();
        drop(plain);
        match &self.bar {
            Some(bar) => bar.set_message(message.to_owned()),
            None => self.progress.say(&self.label, message),
        }
    }

    /// Shows how many bytes of how many have come; a plain log gets a line every few seconds.
    pub fn position(&self, bytes: u64, total: u64) {
        self.reached(bytes, total, Unit::Bytes);
    }

    /// Shows how much of how much is done; a plain log gets a line every few seconds.
    pub fn reached(&self, done: u64, total: u64, unit: Unit) {
        let mut plain = self.plain.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bar) = &self.bar {
            if plain.total != total {
                plain.total = total;
                bar.set_style(style(match unit {
                    Unit::Bytes => BYTES_BAR,
                    Unit::Things => COUNT_BAR,
                }));
                bar.set_length(total);
            }
            bar.set_position(done);
            return;
        }
        if plain.said.elapsed() < PLAIN_INTERVAL {
            return;
        }
        plain.said = Instant::now();
        let line = match unit {
            Unit::Bytes => format!("{} ({} of {} MiB)", plain.message, done >> 20, total >> 20),
            Unit::Things => format!("{} ({done} of {total})", plain.message),
        };
        drop(plain);
        self.progress.say(&self.label, &line);
    }

    /// Ends the task with a sentence that stays.
    pub fn done(self, message: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        self.progress.say(&self.label, message);
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_lines_name_the_label_and_do_not_repeat() {
        let (progress, lines) = Progress::collected();
        let task = progress.task("fetch 6.12", "downloading");
        task.message("downloading");
        task.position(1 << 20, 4 << 20);
        task.message("unpacking");
        task.done("ready");
        assert_eq!(
            *lines.lock().unwrap(),
            ["[fetch 6.12] downloading", "[fetch 6.12] unpacking", "[fetch 6.12] ready"]
        );
    }
}
