//! `forerun demo`, and the program that its instances run.

use crate::cli::DemoArgs;
use crate::failure::Failure;
use crate::open_files;
use forerun_demo::{Options, Report, RunsOn};
use std::io::Write;
use std::process::ExitCode;

/// Plays the demo.
///
/// # Errors
/// What kept it from being played.
pub(crate) fn run(args: &DemoArgs, out: &mut dyn Write) -> Result<(), Failure> {
    open_files::raise();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Running(format!("cannot start the runtime: {e}")))?;
    let runs_on = match args.backend.as_str() {
        "docker" => RunsOn::Containers,
        _ => RunsOn::Processes,
    };
    let options = Options { runs_on, act: args.act.clone(), race_minutes_max: args.minutes };
    let play = |out| runtime.block_on(played(options, out));
    let report = match args.json {
        true => play(None),
        false => play(Some(&mut *out)),
    };
    let report = report?;
    if args.json {
        writeln!(out, "{}", report.json())?;
    }
    Ok(())
}

/// Processes end with this one, however it ends; containers have to be taken away.
async fn played(options: Options, out: Option<&mut dyn Write>) -> Result<Report, Failure> {
    let runs_on = options.runs_on;
    let race = forerun_demo::run(options, out);
    let report = match runs_on {
        RunsOn::Processes => race.await,
        RunsOn::Containers => tokio::select! {
            report = race => report,
            _ = tokio::signal::ctrl_c() => return Err(Failure::Running("interrupted".to_owned())),
        },
    };
    report.map_err(|e| Failure::Running(e.to_string()))
}

/// Serves as an instance of the demo until it is told to end.
///
/// # Errors
/// It never comes back from serving but by ending the process; this is for flags that it does not know.
pub(crate) fn fixture(flags: Vec<String>) -> Result<(), Failure> {
    match forerun_backends::fixture::main(flags) {
        code if code == ExitCode::SUCCESS => Ok(()),
        _ => Err(Failure::Arguments("the fixture ended".to_owned())),
    }
}
