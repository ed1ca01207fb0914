//! `cargo bench`: the figures of `conform bench`, on the program as it is built for benchmarks.

use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    // Cargo's own argument, `--bench`, is of no meaning to the verb.
    match Command::new(env!("CARGO_BIN_EXE_conform")).arg("bench").status() {
        Ok(status) if status.success() => ExitCode::SUCCESS,
        Ok(status) => {
            eprintln!("conform bench ended with {status}");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("cannot start conform: {error}");
            ExitCode::FAILURE
        }
    }
}
