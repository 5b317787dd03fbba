//! Container engines: which ones there are, and the services that the labels of their containers describe, as long as
//! Forerun runs.

use crate::config::{
    Config, EngineConfig, Found, FromLabels, Service, docker_at, from_labels, same_requests,
};
use crate::zones::Zones;
use forerun_backends::docker::{
    Discovered, DockerBackend, DockerSettings, ENABLE, EngineError, Labelled, TlsFiles, discover,
};
use forerun_backends::{Backend, SetupError, Sink};
use forerun_engine::live::Describer;
use forerun_types::{ServiceSpec, SlaClass};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long the start waits for an engine's first answer; it is told of later where that takes longer.
const FIRST_LOOK: Duration = Duration::from_secs(5);
/// A service whose container is gone is kept so long: compose makes containers anew at each change, and a project that
/// is down over a holiday should not have to be learned again.
const KEPT_GONE: Duration = Duration::from_secs(7 * 24 * 3_600);
/// Between looks at what has been gone too long.
const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// What engines have told last, by the names of their sites; a site that has never answered is not in it.
type Told = Arc<Mutex<BTreeMap<String, Vec<Labelled>>>>;

/// An engine that is there, or is asked for.
struct Watched {
    settings: DockerSettings,
    /// The name of its site; empty for the first one.
    site: String,
}

/// The engines of one Forerun, before they are followed.
pub(crate) struct Engines {
    watched: Vec<Watched>,
    told: Told,
    changed: Sender<()>,
}

/// What labels describe, as long as engines are followed.
pub(crate) struct Labels {
    config: Config,
    told: Told,
    changed: Receiver<()>,
    zones: Zones,
}

impl Engines {
    /// Finds the engines and asks each what it has, for a few seconds at most. One that is neither there nor asked for
    /// is left out.
    pub(crate) fn find(config: &Config, zones: Zones) -> (Self, Labels) {
        let told = Told::default();
        let mut watched = Vec::new();
        for (settings, site, asked_for) in settings_of(config) {
            match first_look(&settings) {
                Ok(containers) => {
                    told.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone(), containers);
                }
                Err(Some(EngineError::NoSocket { .. })) if !asked_for => {
                    tracing::info!("no container engine is here; services of containers are not looked for");
                    continue;
                }
                Err(Some(error)) => tracing::warn!(%error, "containers are taken over as soon as it answers"),
                Err(None) => {
                    tracing::warn!(engine = settings.name, "has not answered yet; containers follow");
                }
            }
            watched.push(Watched { settings, site });
        }
        let (sender, changed) = channel();
        let labels = Labels { config: config.clone(), told: Arc::clone(&told), changed, zones };
        (Self { watched, told, changed: sender }, labels)
    }

    /// # Errors
    /// A backend cannot be set up.
    pub(crate) fn backends(self, sink: &Sink, folder: &Path) -> Result<Vec<Arc<dyn Backend>>, SetupError> {
        let mut backends: Vec<Arc<dyn Backend>> = Vec::new();
        for Watched { settings, site } in self.watched {
            let settings = DockerSettings { state_folder: Some(folder.to_owned()), ..settings };
            let backend = DockerBackend::start(settings, Arc::clone(sink))?;
            let (told, changed) = (Arc::clone(&self.told), self.changed.clone());
            backend.watch(Arc::new(move |containers| {
                told.lock().unwrap_or_else(PoisonError::into_inner).insert(site.clone(), containers);
                // Nobody listens any more at the end.
                let _ = changed.send(());
            }));
            backends.push(Arc::new(backend));
        }
        Ok(backends)
    }
}

impl Labels {
    /// The services that labels describe now.
    pub(crate) fn services(&self) -> Vec<Service> {
        let found = read(&self.config, &self.told);
        self.zones.add(&found.services);
        found.services
    }

    /// From now on describes to the engine what labels say, until the backends are gone.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub(crate) fn follow(self, describer: Describer) -> std::io::Result<()> {
        let Self { config, told, changed, zones } = self;
        let mut follower = Follower {
            config,
            told,
            zones,
            describer,
            gone: BTreeMap::new(),
            lines: Vec::new(),
            budgets: BTreeMap::new(),
        };
        let run = move || {
            loop {
                follower.look();
                match changed.recv_timeout(SWEEP_EVERY) {
                    Ok(()) | Err(RecvTimeoutError::Timeout) => while changed.try_recv().is_ok() {},
                    Err(RecvTimeoutError::Disconnected) => return,
                }
            }
        };
        std::thread::Builder::new().name("labels".to_owned()).spawn(run).map(drop)
    }
}

fn tls(engine: &EngineConfig) -> Option<TlsFiles> {
    let tls = engine.tls.clone()?;
    Some(TlsFiles { ca: tls.ca, cert: tls.cert, key: tls.key })
}

/// The engines of a configuration: how each is reached, the name of its site (empty for the first), and whether
/// somebody has asked for it.
pub(crate) fn settings_of(config: &Config) -> Vec<(DockerSettings, String, bool)> {
    let of = |(at, engine): (usize, &EngineConfig)| {
        let (site, name) = match at {
            0 => (String::new(), "docker".to_owned()),
            _ => (engine.site.clone(), docker_at(&engine.site)),
        };
        let asked_for = engine.host.is_some()
            || std::env::var_os("DOCKER_HOST").is_some()
            || config.services.iter().any(|s| s.spec.backend == name);
        let settings = DockerSettings {
            name,
            host: engine.host.clone(),
            tls: tls(engine),
            limit: true,
            ..DockerSettings::default()
        };
        (settings, site, asked_for)
    };
    config.engines.iter().enumerate().map(of).collect()
}

/// An engine and its containers with a label (empty: all), or why there are none; `None` when it takes too long to say.
pub(crate) fn ask(settings: &DockerSettings, label: &str) -> Result<Discovered, Option<EngineError>> {
    let (host, tls, label) = (settings.host.clone(), settings.tls.clone(), label.to_owned());
    let (sender, answer) = channel();
    // On a thread of its own: it brings a runtime, and may hang for longer than anyone wants to wait.
    let ask = move || {
        let _ = sender.send(discover(host.as_deref(), tls.as_ref(), &label));
    };
    std::thread::Builder::new().name("first-look".to_owned()).spawn(ask).map_err(|_| None)?;
    answer.recv_timeout(FIRST_LOOK).map_err(|_| None)?.map_err(Some)
}

/// The labelled containers of an engine.
fn first_look(settings: &DockerSettings) -> Result<Vec<Labelled>, Option<EngineError>> {
    let found = ask(settings, &format!("{ENABLE}=true"))?;
    let (host, kind, version, api) = (found.host, found.kind, found.version, found.api);
    tracing::info!(host, containers = found.containers.len(), "found {kind} {version}, API {api}");
    Ok(found.containers)
}

fn read(config: &Config, told: &Told) -> FromLabels {
    let told = told.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let found = |(site, containers)| Found { site, containers };
    from_labels(config, &told.into_iter().map(found).collect::<Vec<_>>())
}

/// Holds what the engine knows against what labels say.
struct Follower {
    config: Config,
    told: Told,
    zones: Zones,
    describer: Describer,
    /// Services without a container, and since when.
    gone: BTreeMap<String, Instant>,
    /// What was said last of labels that cannot be used.
    lines: Vec<String>,
    /// The cold-start budgets of services' classes, in millionths, as they were described last.
    budgets: BTreeMap<String, u32>,
}

impl Follower {
    fn look(&mut self) {
        let found = read(&self.config, &self.told);
        self.zones.add(&found.services);
        let known: BTreeMap<String, Arc<ServiceSpec>> =
            self.describer.found().into_iter().map(|spec| (spec.name.clone(), spec)).collect();
        for service in &found.services {
            // What the engine knows of a service does not hold its class's budget.
            let name = &service.spec.name;
            let budget = service.spec.sla.cold_start_budget_ppm;
            let same = |known: &Arc<ServiceSpec>| {
                let sla = SlaClass { cold_start_budget_ppm: 0, ..service.spec.sla.clone() };
                **known == ServiceSpec { id: known.id, sla, ..ServiceSpec::clone(&service.spec) }
                    && self.budgets.get(name).copied().unwrap_or_default() == budget
            };
            if !known.get(name).is_some_and(same) {
                self.budgets.insert(name.clone(), budget);
                tracing::info!(service = service.spec.name, "described by its container's labels");
                self.describer.describe(Arc::clone(&service.spec));
            }
        }
        let names: BTreeSet<&str> = found.services.iter().map(|s| s.spec.name.as_str()).collect();
        let absent: Vec<&Arc<ServiceSpec>> =
            known.values().filter(|spec| !names.contains(spec.name.as_str())).collect();
        // What is gone must not keep requests from what has come in its place.
        for spec in &absent {
            if let Some(heir) = found.services.iter().find(|s| same_requests(&s.spec, spec)) {
                tracing::info!(service = spec.name, "forgotten: {} takes its requests now", heir.spec.name);
                let _ = self.describer.retire(&spec.name);
            }
        }
        self.retire(absent.iter().map(|spec| &spec.name));
        self.say(&found);
    }

    fn retire<'a>(&mut self, absent: impl Iterator<Item = &'a String>) {
        let mut gone = BTreeMap::new();
        for name in absent {
            let since = self.gone.get(name).copied().unwrap_or_else(Instant::now);
            if since.elapsed() < KEPT_GONE || !self.describer.retire(name) {
                gone.insert(name.clone(), since);
            } else {
                tracing::info!(service = name, "its container has been gone for a week: forgotten");
            }
        }
        self.gone = gone;
    }

    fn say(&mut self, found: &FromLabels) {
        let lines: Vec<String> = found.problems.iter().chain(&found.warnings).cloned().collect();
        for line in lines.iter().filter(|line| !self.lines.contains(line)) {
            tracing::warn!("{line}");
        }
        self.describer.set_problems(found.problems.clone(), found.warnings.clone());
        self.lines = lines;
    }
}
