//! `forerun completions` and `forerun man`: what is made from the command line's own description.

use crate::cli;
use crate::failure::Failure;
use std::io::Write;
use std::path::Path;

/// # Errors
/// Nobody reads it.
pub(crate) fn completions(shell: clap_complete::Shell, out: &mut dyn Write) -> Result<(), Failure> {
    // To memory first: the generator panics where the reader has gone.
    let mut text = Vec::new();
    clap_complete::generate(shell, &mut cli::command(), "forerun", &mut text);
    Ok(out.write_all(&text)?)
}

/// # Errors
/// Nobody reads it, or the folder cannot be written.
pub(crate) fn man(folder: Option<&Path>, out: &mut dyn Write) -> Result<(), Failure> {
    let Some(folder) = folder else {
        return Ok(clap_mangen::Man::new(cli::command()).render(out)?);
    };
    let fail = |e: std::io::Error| {
        Failure::Running(format!("{}: {e}; name a folder that can be written", folder.display()))
    };
    std::fs::create_dir_all(folder).map_err(fail)?;
    clap_mangen::generate_to(cli::command(), folder).map_err(fail)?;
    Ok(writeln!(out, "the manual pages are in {}", folder.display())?)
}
