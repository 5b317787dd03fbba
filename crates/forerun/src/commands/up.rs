//! `forerun up`: configuration to a running engine, and to its end.

use crate::cli::UpArgs;
use crate::config::Config;
use crate::failure::Failure;
use crate::open_files;
use forerun_api::Api;
use forerun_backends::{Backend, ProcessBackend, ProcessSettings};
use forerun_engine::live::{Engine, Settings};
use std::io::{self, IsTerminal, Write};
use std::path::Path;
use std::sync::Arc;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// What every log line below this level leaves out.
const LOG_DEFAULT: &str = "info";

/// Runs until it is told to end by ctrl-C or TERM.
///
/// # Errors
/// A configuration that does not validate, an address or folder that is taken, an end that took too long.
pub(crate) fn run(args: &UpArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let config = Config::load_or_default(args.file.config.as_deref())?;
    log();
    let files_before = open_files::raise();
    open_files::check(config.router.limits.connections_max);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|e| Failure::Running(format!("cannot start the runtime: {e}")))?;
    runtime.block_on(serve(config, files_before, out))
}

fn log() {
    let filter = EnvFilter::try_from_env("FORERUN_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let colours = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .try_init();
}

async fn serve(config: Config, files_before: Option<u64>, out: &mut dyn Write) -> Result<(), Failure> {
    let api_listen = config.api.listen;
    let services = config.services.len();
    let engine =
        Engine::start(settings(config, files_before)?).await.map_err(|e| Failure::Running(e.to_string()))?;
    let api = match Api::start(api_listen, Arc::new(engine.api_source())).await {
        Ok(api) => api,
        Err(error) => {
            engine.shutdown().await;
            return Err(Failure::Running(error.to_string()));
        }
    };
    let wake = engine.beside_address().map_or_else(String::new, |address| format!("wake http://{address}  "));
    let (router, api_address) = (engine.address(), api.address());
    writeln!(out, "router http://{router}  api http://{api_address}  {wake}services {services}")?;
    out.flush()?;
    let told = end_told().await?;
    tracing::info!(signal = told, "draining; a second signal ends at once");
    let shutdown = engine.shutdown();
    let in_time = tokio::select! {
        in_time = shutdown => in_time,
        _ = end_told() => {
            tracing::warn!("ended before everything had drained");
            false
        }
    };
    api.stop().await;
    match in_time {
        true => Ok(()),
        false => {
            Err(Failure::Running("not everything stopped in time; what was left has been killed".to_owned()))
        }
    }
}

async fn end_told() -> Result<&'static str, Failure> {
    let watch = |kind| signal(kind).map_err(|e| Failure::Running(format!("cannot watch for signals: {e}")));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "TERM",
        _ = interrupt.recv() => "INT",
    })
}

fn settings(config: Config, files_before: Option<u64>) -> Result<Settings, Failure> {
    let zones = config.services.clone();
    Ok(Settings {
        policy: "forerun".to_owned(),
        keep: None,
        learning_bytes_max: config.learning.memory_bytes_max,
        services: config.services.iter().map(|s| Arc::clone(&s.spec)).collect(),
        site: config.site,
        keep_found: false,
        offset_seconds: Arc::new(move |name, at| {
            zones.iter().find(|s| s.spec.name == name).map_or(0, |s| s.offset_seconds(at))
        }),
        state_folder: config.store.folder,
        flush_interval: config.store.flush_interval,
        journal_bytes_max: config.store.journal_bytes_max,
        listen: config.router.listen.into(),
        router_limits: config.router.limits,
        beside: config.router.wake_listen,
        backends: Box::new(move |sink, folder: &Path| {
            let process = ProcessBackend::new(process_settings(folder, files_before), sink)?;
            Ok(vec![Arc::new(process) as Arc<dyn Backend>])
        }),
        learned: None,
    })
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
