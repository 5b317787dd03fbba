//! How a command can fail, and what becomes of it: lines on stderr and an exit code.

use crate::config::{ConfigError, lower_first};
use std::io;
use std::process::ExitCode;

/// Why a command did not do what it was asked to.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Bad arguments: exit code 2.
    #[error("{0}")]
    Arguments(String),
    /// A configuration with its lines told one by one: exit code 2.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// It went wrong while running: exit code 1.
    #[error("{0}")]
    Running(String),
    /// Whoever read the output has gone: nobody is left to tell, and nothing is wrong.
    #[error("the reader of the output has gone")]
    ReaderGone,
}

impl From<io::Error> for Failure {
    /// For writing to standard output; other errors need their file named.
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Failure::ReaderGone,
            _ => Failure::Running(format!(
                "cannot write to standard output: {}",
                lower_first(&error.to_string())
            )),
        }
    }
}

impl Failure {
    pub(crate) fn report(self) -> ExitCode {
        use io::Write;
        let (text, code) = match &self {
            Failure::ReaderGone => return ExitCode::SUCCESS,
            // Its lines begin with the file already, as a compiler's do.
            Failure::Config(error) => (error.to_string(), 2),
            Failure::Arguments(what) => (format!("forerun: {what}"), 2),
            Failure::Running(what) => (format!("forerun: {what}"), 1),
        };
        // `eprintln` would panic if stderr is closed; the exit code still tells.
        let _ = writeln!(io::stderr(), "{text}");
        ExitCode::from(code)
    }
}
