//! What each verb of the command line does. Everything here returns the exit code, or a [`Failure`] that knows it.

mod accept;
mod bench;
mod complete;
mod diff;
mod docs;
mod doctor;
mod environment;
mod explain;
mod export;
mod folder;
mod judge;
mod kernels;
mod list;
mod manifest;
mod merge;
mod newcomers;
mod options;
mod programs;
pub mod project;
mod proposals;
mod reasons;
mod report;
mod resume;
mod run;
mod show;
mod soak;
pub mod subject;
mod teller;

use crate::cli::{Cli, Verb};
use crate::exit::{self, Failure};
use crate::guard;
use crate::interrupt;
use crate::progress::Progress;
use clap::CommandFactory;
use std::io::{ErrorKind, Write};
use std::path::Path;
use std::sync::OnceLock;

pub use environment::Environment;
pub use judge::{compare_with, compare_with_rows};
pub use proposals::{propose_rows, while_nobody_proposes};
pub use run::{Finished, prepare_and_run};

/// Carries out the command line.
///
/// # Errors
/// [`Failure`] with the exit code it deserves.
pub fn carry_out(cli: Cli) -> Result<u8, Failure> {
    if !matches!(cli.verb, Verb::Guard { .. }) {
        interrupt::listen().map_err(|error| Failure::new(exit::INFRASTRUCTURE, error))?;
    }
    let code = of_verb(cli)?;
    match LOST.get() {
        Some(why) => Err(Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!("{why}"))),
        None => Ok(code),
    }
}

fn of_verb(cli: Cli) -> Result<u8, Failure> {
    let mut project = project::Project::find(cli.matrix)?;
    project.is_linked = !cli.unlinked;
    let progress = Progress::stderr();
    match cli.verb {
        Verb::Run(options) => run::run(&project, &options, &progress),
        Verb::List(options) if options.reasons => reasons::reasons(&project, &options),
        Verb::List(options) => list::list(&project, &options),
        Verb::Kernels { verb } => kernels::kernels(&project, &verb, &progress),
        Verb::Show(options) => show::show(&project, &options, &progress),
        Verb::Explain(options) => explain::explain(&project, &options, &progress),
        Verb::Diff(options) => diff::diff(&project, &options, &progress),
        Verb::Docs { verb } => docs::docs(&project, &verb),
        Verb::Export(options) => export::export(&project, &options),
        Verb::Report(options) => report::report(&project, &options),
        Verb::Doctor(options) => doctor::doctor(&project, &options, &progress),
        Verb::Bench(options) => bench::bench(&project, &options, &progress),
        Verb::Soak(options) => soak::soak(&project, &options, &progress),
        Verb::Accept(options) => accept::accept(&project, &options, &progress),
        Verb::Merge(options) => merge::merge(&project, &options),
        Verb::Completions { shell } => {
            clap_complete::generate(shell, &mut Cli::command(), "conform", &mut std::io::stdout());
            Ok(exit::OK)
        }
        Verb::Guard { remove, command } => std::process::exit(guard::run(&command, remove)),
    }
}

/// The failure to do something with a file or folder.
fn cannot(what: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::new(exit::INFRASTRUCTURE, anyhow::anyhow!("cannot {what} {}: {error}", path.display()))
}

/// Why something that was to be printed could not be.
static LOST: OnceLock<String> = OnceLock::new();

/// Prints to standard output. A reader that has gone away (`| head`) is no failure of ours; anything else, such as a full
/// disk, becomes one when the verb is done, so that nothing else is lost over it.
pub(crate) fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let end: &[u8] = if text.ends_with('\n') { b"" } else { b"\n" };
    let printed =
        stdout.write_all(text.as_bytes()).and_then(|()| stdout.write_all(end)).and_then(|()| stdout.flush());
    if let Err(error) = printed
        && error.kind() != ErrorKind::BrokenPipe
    {
        let _ = LOST.set(format!(
            "cannot write all of the answer to standard output: {error}; give it another place"
        ));
    }
}
