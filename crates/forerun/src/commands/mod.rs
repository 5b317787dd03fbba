//! One module for each command.

mod config;
mod status;

use crate::cli::Command;
use crate::failure::Failure;
use std::io::Write;

/// Runs a command; what it prints for people and programs goes to `out`.
///
/// # Errors
/// Whatever the command fails with.
pub(crate) fn run(command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Status(args) => status::run(&args, out),
        Command::Config(command) => config::run(&command, out),
    }
}
