//! The `forerun` program: reads arguments, runs a command, turns its end into an exit code.
//!
//! 0 is done, 1 failed while running, 2 bad arguments or configuration. Errors are one line each on stderr.

mod ask;
mod backends;
mod cli;
mod commands;
mod config;
#[cfg_attr(not(feature = "docker"), path = "no_engines.rs")]
mod engines;
mod failure;
mod open_files;
mod replay;
mod terminal;
mod zones;

use failure::Failure;
use std::io::Write;
use std::process::ExitCode;

fn main() -> ExitCode {
    let stdout = std::io::stdout();
    let mut out = std::io::BufWriter::new(stdout.lock());
    let done = cli::parse(std::env::args_os()).and_then(|command| commands::run(command, &mut out));
    // What was printed before a failure is still wanted.
    let done = done.and(out.flush().map_err(Failure::from));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
