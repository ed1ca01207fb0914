//! The command `conform`: reads the command line, carries it out, and turns the result into an exit code.

use clap::Parser;
use harness::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match harness::verbs::carry_out(Cli::parse()) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("conform: {failure}");
            ExitCode::from(failure.code)
        }
    }
}
