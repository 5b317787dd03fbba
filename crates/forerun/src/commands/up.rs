//! `forerun up`: configuration to a running engine, and to its end.

use crate::backends;
use crate::cli::UpArgs;
use crate::config::{Config, Service};
use crate::engines::Engines;
use crate::failure::Failure;
use crate::zones::Zones;
use crate::{open_files, terminal};
use forerun_api::{Api, Guard};
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
    let mut came_up = false;
    let served = runtime.block_on(serve(config, files_before, out, &mut came_up));
    if !came_up && matches!(served, Err(Failure::Running(_))) {
        // What else may be wrong with this machine; a closed stderr is no reason to say it elsewhere.
        let _ = io::stderr().write_all(super::doctor::of_failure(args.file.config.as_deref()).as_bytes());
    }
    served
}

fn log() {
    let filter = EnvFilter::try_from_env("FORERUN_LOG").unwrap_or_else(|_| EnvFilter::new(LOG_DEFAULT));
    let colours = terminal::colours(io::stderr().is_terminal());
    // A second call in one process (tests) keeps the first subscriber.
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(colours)
        .try_init();
}

async fn serve(
    config: Config,
    files_before: Option<u64>,
    out: &mut dyn Write,
    came_up: &mut bool,
) -> Result<(), Failure> {
    let api_listen = config.api.listen;
    let guard = Guard::new(&config.store.folder, config.api.require_token);
    // Before anything is started; the api looks again itself.
    guard.fit_for(api_listen).map_err(|e| Failure::Arguments(e.to_string()))?;
    if !api_listen.ip().is_loopback() {
        tracing::warn!(address = %api_listen, "the api has no tls: tokens cross the network in the clear; put a proxy with tls before it");
    }
    let zones = Zones::default();
    zones.add(&config.services);
    let (engines, labels) = Engines::find(&config, zones.clone());
    let settings = settings(config, files_before, engines, &labels.services(), zones);
    let services = settings.services.len();
    let engine = Engine::start(settings).await.map_err(|e| Failure::Running(e.to_string()))?;
    let followed = labels.follow(engine.describer());
    followed.map_err(|e| Failure::Running(format!("cannot follow the labels of containers: {e}")))?;
    let api = match Api::start(api_listen, Arc::new(engine.api_source()), guard).await {
        Ok(api) => api,
        Err(error) => {
            engine.shutdown().await;
            return Err(Failure::Running(error.to_string()));
        }
    };
    *came_up = true;
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

/// A core's price in memory's; none where memory costs nothing.
fn core_milli_gb(config: &Config) -> Option<u64> {
    let prices = &config.prices;
    (prices.memory_gb_hour > 0.0).then(|| (prices.cpu_hour / prices.memory_gb_hour * 1_000.0).round() as u64)
}

async fn end_told() -> Result<&'static str, Failure> {
    let watch = |kind| signal(kind).map_err(|e| Failure::Running(format!("cannot watch for signals: {e}")));
    let (mut terminate, mut interrupt) = (watch(SignalKind::terminate())?, watch(SignalKind::interrupt())?);
    Ok(tokio::select! {
        _ = terminate.recv() => "TERM",
        _ = interrupt.recv() => "INT",
    })
}

fn settings(
    config: Config,
    files_before: Option<u64>,
    engines: Engines,
    found: &[Service],
    zones: Zones,
) -> Settings {
    let described = config.services.iter().chain(found);
    Settings {
        policy: "forerun".to_owned(),
        keep: None,
        learning_bytes_max: config.learning.memory_bytes_max,
        services: described.map(|s| Arc::clone(&s.spec)).collect(),
        sites: config.sites.clone(),
        core_milli_gb: core_milli_gb(&config),
        // A container that is not there now may be made anew in a moment.
        keep_found: true,
        offset_seconds: Arc::new(move |name, at| zones.offset_seconds(name, at)),
        state_folder: config.store.folder.clone(),
        flush_interval: config.store.flush_interval,
        journal_bytes_max: config.store.journal_bytes_max,
        listen: config.router.listen.into(),
        router_limits: config.router.limits.clone(),
        beside: config.router.wake_listen,
        backends: Box::new(move |sink, folder: &Path| {
            let mut backends = backends::make(&config, files_before, &sink, folder)?;
            backends.extend(engines.backends(&sink, folder)?);
            Ok(backends)
        }),
        learned: None,
    }
}
