//! One module for each command.

#[cfg(feature = "docker")]
mod adopt;
mod cache;
mod config;
mod control;
mod demo;
mod doctor;
#[cfg(feature = "docker")]
mod doctor_engines;
mod explain;
mod forecast;
mod forecast_page;
mod manual;
pub(crate) mod predict;
mod route;
#[cfg(feature = "docker")]
mod sablier;
mod savings;
mod status;
mod token;
mod top;
mod up;
mod why;

use crate::cli::{Command, ConfigFile};
use crate::config::{Config, FILE};
use crate::failure::Failure;
use crate::open_files;
use std::io::Write;
use std::path::{Path, PathBuf};

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
        Command::Launch { open_files } => {
            open_files::set(open_files);
            forerun_backends::launcher_main()
        }
        Command::Replay(args) => crate::replay::run(&args, out),
        Command::Predict(args) => predict::run(&args, out),
        Command::Forecast(args) => forecast::run(&args, out),
        Command::Status(args) => status::run(&args, out),
        Command::Top(args) => top::run(&args),
        Command::Completions { shell } => manual::completions(shell, out),
        Command::Man { out: folder } => manual::man(folder.as_deref(), out),
        Command::Wake(args) => control::run("wake", &args, out),
        Command::Pause(args) => control::run("pause", &args, out),
        Command::Resume(args) => control::run("resume", &args, out),
        Command::Act(args) => control::run("act", &args, out),
        Command::Advise(args) => control::run("advise", &args, out),
        Command::Observe(args) => control::run("observe", &args, out),
        Command::Scale(args) => control::scale(&args, out),
        Command::Cache(command) => cache::run(&command, out),
        Command::Explain(args) => explain::run(&args, out),
        Command::Route(args) => route::run(&args, out),
        Command::Doctor(args) => doctor::run(&args, out),
        #[cfg(feature = "docker")]
        Command::Adopt(args) => adopt::run(&args, out),
        #[cfg(not(feature = "docker"))]
        Command::Adopt(_) => Err(Failure::Running("this forerun was built without docker".to_owned())),
        Command::Why(args) => why::run(&args, out),
        Command::Savings(args) => savings::run(&args, out),
        Command::Token(command) => token::run(&command, out),
        Command::Config(command) => config::run(&command, out),
    }
}

/// The journal that was said, or the one of the configuration, and the configuration's file where one was read.
///
/// # Errors
/// Neither was said and there is no configuration here, or it is wrong.
fn journal_folder(said: Option<&Path>, file: &ConfigFile) -> Result<(PathBuf, Option<PathBuf>), Failure> {
    let config = file.config.as_deref();
    if let Some(journal) = said {
        return Ok((journal.to_owned(), config.map(Path::to_owned)));
    }
    let path = config.unwrap_or(Path::new(FILE));
    if config.is_none() && !path.is_file() {
        return Err(Failure::Arguments(format!(
            "there is no {FILE} here to say where the journal is; give -c FILE or --journal FOLDER"
        )));
    }
    Ok((Config::load(path)?.store.folder.join("journal"), Some(path.to_owned())))
}
