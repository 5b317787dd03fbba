//! One module for each command.

mod config;
mod demo;
mod status;
mod up;

use crate::cli::Command;
use crate::failure::Failure;
use std::io::Write;

/// Runs a command; what it prints for people and programs goes to `out`.
///
/// # Errors
/// Whatever the command fails with.
pub(crate) fn run(command: Command, out: &mut dyn Write) -> Result<(), Failure> {
    match command {
        Command::Demo(args) => demo::run(&args, out),
        Command::Fixture { flags } => demo::fixture(flags),
        Command::Up(args) => up::run(&args, out),
        Command::Reaper => forerun_backends::reaper_main(),
        // The arguments before the instance's own command: the program and `__launch`.
        Command::Launch { .. } => forerun_backends::launcher_main(2),
        Command::Replay(args) => crate::replay::run(&args, out),
        Command::Status(args) => status::run(&args, out),
        Command::Config(command) => config::run(&command, out),
    }
}
