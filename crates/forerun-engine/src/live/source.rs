//! What the API serves: the published view of the core beside the router's counters.

use super::control;
use super::describe::Problems;
use super::publish::{Published, View};
use super::wire;
use crate::invariants::Rule;
use forerun_api::http::Request;
use forerun_api::{
    Answer, Body, ControlError, Health, InstanceState as StateLabel, JournalStatus, Metrics, Order,
    Outcome as OutcomeLabel, OverrideKind, PurgeOrder, Purged, ServiceStatus, Source, Status, Told,
};
use forerun_backends::Backend;
use forerun_core::forecast::series::LEVELS;
use forerun_core::{InstanceState, ServiceStatus as CoreStatus};
use forerun_router::{Outcome, Purge, RouterHandle, RouterStats, ServiceStats, Up};
use forerun_types::{Event, InstanceId, Mode, ServiceId, ServiceSpec, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

/// A view older than this says that the engine's thread no longer comes round.
const STALE: Duration = Duration::from_secs(10);

/// Feeds metrics from events as they pass by the engine.
#[derive(Debug)]
pub(super) struct Observer {
    metrics: Arc<Metrics>,
    /// Of each service its name, its backend and where its instances are.
    names: BTreeMap<ServiceId, (String, String, String)>,
    /// The first site's name.
    first: String,
}

impl Observer {
    pub(super) fn new(metrics: Arc<Metrics>, first: &str) -> Self {
        Self { metrics, names: BTreeMap::new(), first: first.to_owned() }
    }

    pub(super) fn service(&mut self, spec: &ServiceSpec) {
        let site = spec.launch.site().unwrap_or(&self.first).to_owned();
        self.names.insert(spec.id, (spec.name.clone(), spec.backend.clone(), site));
    }

    /// `service_of` tells whose an instance is, and `elder` by which service's name a service goes.
    pub(super) fn event(
        &self,
        event: &Event,
        service_of: impl Fn(InstanceId) -> Option<ServiceId>,
        elder: impl Fn(ServiceId) -> ServiceId,
    ) {
        let name_of = |service| self.names.get(&elder(service));
        let started = |instance, kind, took| {
            if let Some((name, backend, _)) = service_of(instance).and_then(name_of) {
                self.metrics.instance_started(name, backend, kind, took);
            }
        };
        match event {
            Event::Traffic(traffic) => {
                for done in &traffic.finished {
                    if let Some((name, _, site)) = name_of(done.service) {
                        self.metrics.request_duration(name, site, done.duration);
                        if done.held > Span::ZERO {
                            self.metrics.hold_duration(name, site, done.held);
                        }
                    }
                }
                self.metrics.records_lost(traffic.lost);
            }
            Event::Ready { instance, took, .. } => {
                started(*instance, "cold", *took);
            }
            Event::Resumed { instance, took } => {
                started(*instance, "resume", *took);
            }
            Event::Specialised { instance, took } => {
                started(*instance, "specialise", *took);
            }
            _ => {}
        }
    }
}

/// What counters had been told when they were read last.
#[derive(Debug, Default)]
struct Counted {
    requests: BTreeMap<(ServiceId, usize), u64>,
    cold_starts: BTreeMap<ServiceId, u64>,
    idle: BTreeMap<ServiceId, f64>,
    decisions: BTreeMap<(&'static str, &'static str), u64>,
    violations: BTreeMap<Rule, u64>,
    journal_errors: u64,
    journal_steps_lost: u64,
    cache: BTreeMap<&'static str, u64>,
    cache_bytes: u64,
    /// SLA classes that any service had.
    classes: BTreeSet<String>,
}

/// The API's source over a running engine.
pub struct ApiSource {
    router: Arc<RouterHandle>,
    published: Published,
    metrics: Arc<Metrics>,
    up: Arc<dyn Up>,
    problems: Problems,
    /// They end with the engine, whoever serves still.
    backends: Vec<Weak<dyn Backend>>,
    told: Mutex<Counted>,
    began: Instant,
    seen: Mutex<(u64, Instant)>,
}

impl std::fmt::Debug for ApiSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ApiSource").finish_non_exhaustive()
    }
}

impl ApiSource {
    pub(super) fn new(
        router: Arc<RouterHandle>,
        published: Published,
        metrics: Arc<Metrics>,
        up: Arc<dyn Up>,
        problems: Problems,
        backends: Vec<Weak<dyn Backend>>,
    ) -> Self {
        let now = Instant::now();
        Self {
            router,
            published,
            metrics,
            up,
            problems,
            backends,
            told: Mutex::default(),
            began: now,
            seen: Mutex::new((0, now)),
        }
    }

    /// The time since the engine's thread last came round, as far as has been looked.
    fn silent_for(&self) -> Duration {
        let at = self.published.with(|v| v.map_or(0, |v| v.at.0));
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.0 != at {
            *seen = (at, Instant::now());
        }
        seen.1.elapsed()
    }

    fn feed(&self, view: &View, stats: &RouterStats) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        let names: BTreeMap<ServiceId, &str> =
            view.services.iter().map(|s| (s.service, s.name.as_str())).collect();
        let sites: BTreeMap<ServiceId, &str> =
            view.specs.iter().map(|spec| (spec.id, view.site_name(spec))).collect();
        let site_of = |service| sites.get(&service).copied().unwrap_or_default();
        for s in &stats.services {
            self.feed_requests(s, site_of(s.id), &mut told);
            told.classes.insert(s.sla.clone());
        }
        // A class of which nothing is held is told as such.
        for class in &told.classes {
            let held = stats.held.get(class).copied().unwrap_or_default();
            self.metrics.set_held(class, held.requests, held.bytes);
        }
        for s in &view.services {
            let site = site_of(s.service);
            for (state, label) in [
                (InstanceState::Starting, StateLabel::Starting),
                (InstanceState::Ready, StateLabel::Ready),
                (InstanceState::Paused, StateLabel::Paused),
                (InstanceState::Draining, StateLabel::Draining),
                (InstanceState::Stopping, StateLabel::Stopping),
            ] {
                self.metrics.set_instances(&s.name, site, label, wire::count(s, state));
            }
            self.feed_forecast(s, site);
        }
        if let Some(cache) = &stats.cache {
            let site = view.sites.first().map_or("", |site| site.name.as_str());
            for (result, count) in cache.requests {
                let before = told.cache.insert(result, count).unwrap_or(0);
                self.metrics.cache_requests(site, result, count.saturating_sub(before));
            }
            let before = std::mem::replace(&mut told.cache_bytes, cache.answered_bytes);
            self.metrics.cache_answered(site, cache.answered_bytes.saturating_sub(before));
            self.metrics.set_cache(site, cache.entries, cache.bytes);
        }
        for budget in &view.budgets {
            self.metrics.set_budget_spent(&budget.class, budget.spent_milli as f64 / 1e3);
        }
        for kind in OverrideKind::ALL {
            let stand = view.services.iter().filter(|s| stands(s, kind)).count();
            self.metrics.set_overrides(kind, stand);
        }
        let mut decisions: BTreeMap<(&'static str, &'static str), u64> = BTreeMap::new();
        for (service, totals) in &view.totals {
            if let Some(name) = names.get(service) {
                let before = told.idle.insert(*service, totals.idle_byte_seconds).unwrap_or(0.0);
                self.metrics.idle_memory(name, totals.idle_byte_seconds - before);
            }
            for (key, count) in &totals.decisions {
                *decisions.entry(*key).or_default() += count;
            }
        }
        for (key, count) in decisions {
            let before = told.decisions.insert(key, count).unwrap_or(0);
            self.metrics.decisions(key.0, key.1, count.saturating_sub(before));
        }
        for rule in Rule::ALL {
            let count = view.violations.get(&rule).copied().unwrap_or(0);
            let before = told.violations.insert(rule, count).unwrap_or(0);
            self.metrics.invariant_violated(rule.label(), count.saturating_sub(before));
        }
        let (errors, lost) = (view.journal.errors, view.journal.steps_lost);
        let errors_before = std::mem::replace(&mut told.journal_errors, errors);
        let lost_before = std::mem::replace(&mut told.journal_steps_lost, lost);
        self.metrics.journal_failed(errors.saturating_sub(errors_before), lost.saturating_sub(lost_before));
        self.metrics.set_journal_bytes(view.journal.bytes);
    }

    /// What load its series foretells over the steps ahead; where there is no such forecast, what the plan expects to
    /// need within a start.
    fn feed_forecast(&self, s: &CoreStatus, site: &str) {
        for (quantile, label) in [(0.5, "0.5"), (0.9, "0.9"), (0.99, "0.99")] {
            let level = LEVELS.iter().position(|level| *level == quantile);
            let told = s.forecast.as_ref().zip(level);
            let load = match told {
                Some((told, level)) => told.most(level),
                None => f64::from(s.needed_quantile(s.in_flight + s.waiting, quantile)),
            };
            self.metrics.set_forecast_load(&s.name, site, label, load);
            if let Some(ratio) = told.and_then(|(told, level)| Some(told.coverage?[level])) {
                self.metrics.set_forecast_coverage(&s.name, label, ratio);
            }
        }
    }

    fn feed_requests(&self, s: &ServiceStats, site: &str, told: &mut Counted) {
        for outcome in Outcome::ALL {
            let label = match outcome {
                Outcome::Answered => OutcomeLabel::Answered,
                Outcome::Refused => OutcomeLabel::Refused,
                Outcome::Failed => OutcomeLabel::Failed,
                Outcome::Gone => OutcomeLabel::Abandoned,
            };
            let count = s.requests(outcome);
            let before = told.requests.insert((s.id, outcome as usize), count).unwrap_or(0);
            self.metrics.requests(&s.name, site, &s.sla, label, count.saturating_sub(before));
        }
        let before = told.cold_starts.insert(s.id, s.cold_starts).unwrap_or(0);
        self.metrics.cold_starts(&s.name, site, s.cold_starts.saturating_sub(before));
    }
}

/// Whether a person's word of this kind stands for a service.
fn stands(s: &CoreStatus, kind: OverrideKind) -> bool {
    let mode = |mode| s.mode_word.is_some_and(|word| word.mode == mode);
    match kind {
        OverrideKind::Instances => s.word.is_some(),
        OverrideKind::Act => mode(Mode::Act),
        OverrideKind::Advise => mode(Mode::Advise),
        OverrideKind::Observe => mode(Mode::Observe),
    }
}

impl Source for ApiSource {
    fn status(&self) -> Status {
        let stats = self.router.stats();
        let by_id: BTreeMap<ServiceId, &ServiceStats> = stats.services.iter().map(|s| (s.id, s)).collect();
        let Some(view) = self.published.view() else { return Status::default() };
        let services: Vec<ServiceStatus> = view
            .services
            .iter()
            .zip(&view.specs)
            .map(|(s, spec)| wire::service(&view, s, spec, by_id.get(&s.service).copied()))
            .collect();
        let (problems, mut notices) = self.problems.get();
        notices.extend(services.iter().filter_map(|s| wire::notice(s, view.at)));
        notices.extend(self.backends.iter().filter_map(Weak::upgrade).flat_map(|b| b.at_work()));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            at: view.at.as_secs_f64(),
            uptime_seconds: self.began.elapsed().as_secs_f64(),
            notices,
            services,
            problems,
            journal: JournalStatus {
                bytes: view.journal.bytes,
                steps_lost: view.journal.steps_lost,
                broken: view.journal.broken.clone(),
            },
            sites: view.sites.iter().map(wire::site).collect(),
            budgets: view.budgets.iter().map(wire::budget).collect(),
        }
    }

    fn tenant_of(&self, service: &str) -> Option<String> {
        let found = |view: &View| {
            let mut both = view.services.iter().zip(&view.specs);
            both.find(|(s, _)| s.name == service).map(|(_, spec)| spec.tenant.clone())
        };
        self.published.with(|view| view.and_then(found))
    }

    fn control(&self, service: &str, order: Order) -> Result<Told, ControlError> {
        let (event, told) = self.published.with(|view| control::event(view, service, order))?;
        self.up.control(event);
        Ok(told)
    }

    fn purge(&self, order: &PurgeOrder) -> Result<Purged, String> {
        let PurgeOrder { url, prefix, tag, .. } = order;
        let (purge, what) = match (url, prefix, tag) {
            (Some(url), _, _) => (Purge::Url(url.clone()), format!("url {url}")),
            (_, Some(prefix), _) => (Purge::Prefix(prefix.clone()), format!("urls that begin with {prefix}")),
            (_, _, Some(tag)) => (Purge::Tag(tag.clone()), format!("answers with tag {tag}")),
            (None, None, None) => (Purge::All, "everything".to_owned()),
        };
        self.router.purge(&purge, order.tenant.as_deref()).map_err(|error| error.to_string())?;
        let of = order.tenant.as_ref().map_or(String::new(), |tenant| format!(" of tenant {tenant}"));
        Ok(Purged { said: format!("purged {what}{of}") })
    }

    fn metrics(&self) -> String {
        let stats = self.router.stats();
        self.published.with(|view| {
            if let Some(view) = view {
                self.feed(view, &stats);
            }
        });
        self.metrics.render()
    }

    fn healthy(&self) -> Health {
        match self.silent_for() {
            silent if silent > STALE => {
                Health::Bad(format!("the engine's loop has not come round for {} s", silent.as_secs()))
            }
            _ => Health::Good,
        }
    }

    fn beside(&self, asked: Request<()>, client: IpAddr) -> Option<Answer> {
        forerun_router::is_beside(asked.uri().path()).then(|| {
            let answer = self.router.beside(asked, client);
            Box::pin(async { answer.await.map(Body::new) }) as Answer
        })
    }

    fn ready(&self) -> Health {
        match self.published.with(|v| v.is_some()) {
            true => self.healthy(),
            false => Health::Bad("the engine has not yet begun".to_owned()),
        }
    }
}
