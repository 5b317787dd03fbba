//! Which backends a configuration needs, and how they are set up.

use crate::config::Config;
use forerun_backends::{
    Backend, CommandBackend, CommandSettings, ProcessBackend, ProcessSettings, SetupError, Sink,
};
use std::path::Path;
use std::sync::Arc;

/// Processes, and what shell lines run where the configuration has such; `files_before` is the number of open files
/// that Forerun was allowed before it asked for more.
///
/// # Errors
/// One of them cannot be set up.
pub(crate) fn make(
    config: &Config,
    files_before: Option<u64>,
    sink: &Sink,
    folder: &Path,
) -> Result<Vec<Arc<dyn Backend>>, SetupError> {
    let process = ProcessBackend::new(process_settings(folder, files_before), Arc::clone(sink))?;
    let mut backends: Vec<Arc<dyn Backend>> = vec![Arc::new(process)];
    if config.services.iter().any(|s| s.spec.backend == "command") {
        let settings =
            CommandSettings { state_folder: Some(folder.to_owned()), ..CommandSettings::default() };
        backends.push(Arc::new(CommandBackend::new(settings, Arc::clone(sink))?));
    }
    Ok(backends)
}

/// Instances end with this process, and so does all that they started: see the process backend. Those limits that
/// Forerun has raised for itself are as before for them.
fn process_settings(folder: &Path, files_before: Option<u64>) -> ProcessSettings {
    let mut settings =
        ProcessSettings { limit_memory: true, limit_cpu: true, ..ProcessSettings::of_this_program(folder) };
    let launcher = settings.launcher_command.get_or_insert_default();
    launcher.extend(files_before.map(|files| format!("--open-files={files}")));
    settings
}
