//! The metrics, by the names that dashboards and alerts lean on.

use forerun_types::Span;
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// Sets of labels that one metric keeps: ten thousand services in a few states. What comes after is counted under
/// [`OTHER`], so that a flood of names costs figures, not memory.
const LABEL_SETS_MAX: usize = 50_000;

/// The label value of what no longer fits.
const OTHER: &str = "_other";

type FloatCounter = Counter<f64, AtomicU64>;
type FloatGauge = Gauge<f64, AtomicU64>;

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An instance answered, whatever its status.
    Answered,
    /// An instance was there and failed: refused, broke off, no HTTP.
    Failed,
    /// Forerun refused it: a limit, a time-out, no capacity.
    Refused,
    /// The client went away.
    Abandoned,
}

/// An instance's state as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    Starting,
    Ready,
    Paused,
    Draining,
    Stopping,
}

/// A person's word that stands, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OverrideKind {
    /// On the number of instances: `pause` and `scale`.
    Instances,
    /// On how far Forerun goes.
    Act,
    Advise,
    Observe,
}

impl OverrideKind {
    /// All there are: a kind of which none stands is told as 0.
    pub const ALL: [Self; 4] = [Self::Instances, Self::Act, Self::Advise, Self::Observe];

    fn label(self) -> &'static str {
        match self {
            OverrideKind::Instances => "instances",
            OverrideKind::Act => "act",
            OverrideKind::Advise => "advise",
            OverrideKind::Observe => "observe",
        }
    }
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Outcome::Answered => "answered",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
            Outcome::Abandoned => "abandoned",
        }
    }
}

impl InstanceState {
    fn label(self) -> &'static str {
        match self {
            InstanceState::Starting => "starting",
            InstanceState::Ready => "ready",
            InstanceState::Paused => "paused",
            InstanceState::Draining => "draining",
            InstanceState::Stopping => "stopping",
        }
    }
}

/// A set of labels, and the one that stands for all that no longer fit.
trait Labels: Clone + Debug + Eq + Hash + EncodeLabelSet + Send + Sync + 'static {
    fn other() -> Self;
}

macro_rules! labels {
    ($($name:ident { $($label:ident),+ })+) => { $(
        #[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
        struct $name { $($label: String),+ }
        impl Labels for $name {
            fn other() -> Self {
                Self { $($label: OTHER.to_owned()),+ }
            }
        }
    )+ };
}

labels! {
    RequestLabels { service, site, sla, outcome }
    SiteLabels { service, site }
    StateLabels { service, site, state }
    StartLabels { service, backend, kind }
    ServiceLabels { service }
    QuantileLabels { service, site, quantile }
    CoverageLabels { service, quantile }
    DecisionLabels { action, reason }
    InvariantLabels { invariant }
    ClassLabels { sla }
    CacheLabels { site, result }
    PlaceLabels { site }
    OverrideLabels { kind }
}

/// A metric by its labels, with a bound on how many sets of them there are.
#[derive(Debug)]
struct Bounded<L, M, C = fn() -> M> {
    family: Family<L, M, C>,
    sets: AtomicUsize,
}

impl<L: Labels, M: Clone, C: MetricConstructor<M>> Bounded<L, M, C> {
    fn at(&self, labels: &L) -> M {
        if let Some(known) = self.family.get(labels) {
            return known.clone();
        }
        // Two threads that meet a new set at once count it twice: the bound is on memory, not exact.
        if self.sets.fetch_add(1, Ordering::Relaxed) < LABEL_SETS_MAX {
            return self.family.get_or_create_owned(labels);
        }
        self.sets.store(LABEL_SETS_MAX, Ordering::Relaxed);
        self.family.get_or_create_owned(&L::other())
    }
}

/// From a millisecond (a warm request) to two minutes (a virtual machine's start), doubling.
fn seconds() -> Histogram {
    Histogram::new((0..18).map(|n| f64::from(1u32 << n) / 1e3))
}

type Timed<L> = Bounded<L, Histogram, fn() -> Histogram>;

/// All metrics of one process. Every method is cheap and may be called from any thread.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Bounded<RequestLabels, Counter>,
    request_duration: Timed<SiteLabels>,
    hold_duration: Timed<SiteLabels>,
    held_requests: Bounded<ClassLabels, Gauge>,
    held_bytes: Bounded<ClassLabels, Gauge>,
    budget_spent: Bounded<ClassLabels, FloatGauge>,
    cache_requests: Bounded<CacheLabels, Counter>,
    cache_answered: Bounded<PlaceLabels, Counter>,
    cache_entries: Bounded<PlaceLabels, Gauge>,
    cache_bytes: Bounded<PlaceLabels, Gauge>,
    cold_starts: Bounded<SiteLabels, Counter>,
    instances: Bounded<StateLabels, Gauge>,
    instance_start: Timed<StartLabels>,
    idle_memory: Bounded<ServiceLabels, FloatCounter>,
    forecast_load: Bounded<QuantileLabels, FloatGauge>,
    forecast_coverage: Bounded<CoverageLabels, FloatGauge>,
    decisions: Bounded<DecisionLabels, Counter>,
    invariants: Bounded<InvariantLabels, Counter>,
    overrides: Bounded<OverrideLabels, Gauge>,
    lost_records: Counter,
    journal_bytes: Gauge,
    journal_errors: Counter,
    journal_lost_steps: Counter,
    learning_bytes: Gauge,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

fn family<L: Labels, M: Clone + Debug, C>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    family: Family<L, M, C>,
) -> Bounded<L, M, C>
where
    C: MetricConstructor<M> + Clone,
    Family<L, M, C>: Metric,
{
    registry.register(name, help, family.clone());
    Bounded { family, sets: AtomicUsize::new(0) }
}

impl Metrics {
    /// All metrics at zero.
    #[must_use]
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("forerun");
        let r = &mut registry;
        let timed = || Family::new_with_constructor(seconds as fn() -> Histogram);
        let requests = family(r, "requests", "Requests by how they ended", Family::default());
        let request_duration = family(
            r,
            "request_duration_seconds",
            "From the hand-over to an instance to the last byte of its answer",
            Family::new_with_constructor(seconds as fn() -> Histogram),
        );
        let hold_duration =
            family(r, "hold_duration_seconds", "How long a request was held for an instance", timed());
        let held_requests =
            family(r, "held_requests", "Requests that are held at the router, by class", Family::default());
        let held_bytes =
            family(r, "held_bytes", "Bytes of requests that are held at the router", Family::default());
        let cache_requests = family(
            r,
            "cache_requests",
            "Requests to services with a cache, by how they were answered",
            Family::default(),
        );
        let cache_answered = family(
            r,
            "cache_answered_bytes",
            "Bytes of bodies that were answered from the cache",
            Family::default(),
        );
        let cache_entries = family(r, "cache_entries", "URLs that the cache keeps", Family::default());
        let cache_bytes = family(r, "cache_bytes", "Bytes that the cache keeps", Family::default());
        let budget_spent = family(
            r,
            "cold_start_budget_spent_ratio",
            "What of its cold-start budget a class has spent in the last day",
            Family::default(),
        );
        let cold_starts =
            family(r, "cold_starts", "Requests that no ready instance could take", Family::default());
        let instances = family(r, "instances", "Instances by state", Family::default());
        let instance_start = family(
            r,
            "instance_start_seconds",
            "From the order to start an instance to its readiness",
            Family::new_with_constructor(seconds as fn() -> Histogram),
        );
        let idle_memory = family(
            r,
            "idle_memory_byte_seconds",
            "Memory times time of instances that serve nothing",
            Family::default(),
        );
        let forecast_load =
            family(r, "forecast_load", "Forecast of the requests at a time, by quantile", Family::default());
        let forecast_coverage = family(
            r,
            "forecast_coverage_ratio",
            "Share of the time that the load was within a forecast's quantile",
            Family::default(),
        );
        let decisions = family(r, "decisions", "Decisions by action and reason", Family::default());
        let invariants =
            family(r, "invariant_violations", "Violations of what must always hold", Family::default());
        let overrides = family(
            r,
            "overrides",
            "Services for which a person's word stands, by what it is on",
            Family::default(),
        );
        let plain = Plain::register(r);
        Self {
            registry,
            requests,
            request_duration,
            hold_duration,
            held_requests,
            held_bytes,
            budget_spent,
            cache_requests,
            cache_answered,
            cache_entries,
            cache_bytes,
            cold_starts,
            instances,
            instance_start,
            idle_memory,
            forecast_load,
            forecast_coverage,
            decisions,
            invariants,
            overrides,
            lost_records: plain.lost_records,
            journal_bytes: plain.journal_bytes,
            journal_errors: plain.journal_errors,
            journal_lost_steps: plain.journal_lost_steps,
            learning_bytes: plain.learning_bytes,
        }
    }

    /// So many requests have ended.
    pub fn requests(&self, service: &str, site: &str, sla: &str, outcome: Outcome, count: u64) {
        let labels = RequestLabels {
            service: service.to_owned(),
            site: site.to_owned(),
            sla: sla.to_owned(),
            outcome: outcome.label().to_owned(),
        };
        self.requests.at(&labels).inc_by(count);
    }

    /// How long an instance took to answer.
    pub fn request_duration(&self, service: &str, site: &str, duration: Span) {
        self.request_duration.at(&at_site(service, site)).observe(duration.as_secs_f64());
    }

    /// How long a request was held; zero for one that was not.
    pub fn hold_duration(&self, service: &str, site: &str, held: Span) {
        self.hold_duration.at(&at_site(service, site)).observe(held.as_secs_f64());
    }

    /// So many requests of an SLA class are held now, over all its services, and take up so many bytes.
    pub fn set_held(&self, sla: &str, requests: u32, bytes: u64) {
        let labels = ClassLabels { sla: sla.to_owned() };
        self.held_requests.at(&labels).set(i64::from(requests));
        self.held_bytes.at(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// So many requests to services with a cache were answered so: `hit`, `stale`, `revalidated`, `miss`, `bypass`.
    pub fn cache_requests(&self, site: &str, result: &str, count: u64) {
        let labels = CacheLabels { site: site.to_owned(), result: result.to_owned() };
        self.cache_requests.at(&labels).inc_by(count);
    }

    /// So many bytes of bodies more were answered from the cache.
    pub fn cache_answered(&self, site: &str, bytes: u64) {
        self.cache_answered.at(&PlaceLabels { site: site.to_owned() }).inc_by(bytes);
    }

    /// The cache keeps so many URLs now, of so many bytes.
    pub fn set_cache(&self, site: &str, entries: usize, bytes: u64) {
        let labels = PlaceLabels { site: site.to_owned() };
        self.cache_entries.at(&labels).set(i64::try_from(entries).unwrap_or(i64::MAX));
        self.cache_bytes.at(&labels).set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// What of its cold-start budget an SLA class has spent in the last day; above 1 where it is overspent.
    pub fn set_budget_spent(&self, sla: &str, ratio: f64) {
        self.budget_spent.at(&ClassLabels { sla: sla.to_owned() }).set(ratio);
    }

    /// So many requests found no ready instance.
    pub fn cold_starts(&self, service: &str, site: &str, count: u64) {
        self.cold_starts.at(&at_site(service, site)).inc_by(count);
    }

    /// So many instances are in a state now.
    pub fn set_instances(&self, service: &str, site: &str, state: InstanceState, count: u32) {
        let labels = StateLabels {
            service: service.to_owned(),
            site: site.to_owned(),
            state: state.label().to_owned(),
        };
        self.instances.at(&labels).set(i64::from(count));
    }

    /// An instance has become ready; `kind` is `cold`, `restored`, ...
    pub fn instance_started(&self, service: &str, backend: &str, kind: &str, took: Span) {
        let labels =
            StartLabels { service: service.to_owned(), backend: backend.to_owned(), kind: kind.to_owned() };
        self.instance_start.at(&labels).observe(took.as_secs_f64());
    }

    /// An idle instance took so many byte-seconds more.
    pub fn idle_memory(&self, service: &str, byte_seconds: f64) {
        // A counter that goes back would read as a restart.
        if byte_seconds > 0.0 && byte_seconds.is_finite() {
            self.idle_memory.at(&of_service(service)).inc_by(byte_seconds);
        }
    }

    /// The forecast of a service's load, in requests at a time; `quantile` as `0.9`.
    pub fn set_forecast_load(&self, service: &str, site: &str, quantile: &str, load: f64) {
        let labels = QuantileLabels {
            service: service.to_owned(),
            site: site.to_owned(),
            quantile: quantile.to_owned(),
        };
        self.forecast_load.at(&labels).set(load);
    }

    /// How often the load was within a quantile so far, from 0 to 1.
    pub fn set_forecast_coverage(&self, service: &str, quantile: &str, ratio: f64) {
        let labels = CoverageLabels { service: service.to_owned(), quantile: quantile.to_owned() };
        self.forecast_coverage.at(&labels).set(ratio);
    }

    /// The plan did something so many times; `reason` as `Reason::label` gives it.
    pub fn decisions(&self, action: &str, reason: &str, count: u64) {
        let labels = DecisionLabels { action: action.to_owned(), reason: reason.to_owned() };
        self.decisions.at(&labels).inc_by(count);
    }

    /// Something that must always hold did not, so many times; 0 makes it known as something that is looked at.
    pub fn invariant_violated(&self, invariant: &str, times: u64) {
        self.invariants.at(&InvariantLabels { invariant: invariant.to_owned() }).inc_by(times);
    }

    /// For so many services a person's word of this kind stands now.
    pub fn set_overrides(&self, kind: OverrideKind, services: usize) {
        let labels = OverrideLabels { kind: kind.label().to_owned() };
        self.overrides.at(&labels).set(i64::try_from(services).unwrap_or(i64::MAX));
    }

    /// So many learning records were dropped because a queue was full.
    pub fn records_lost(&self, count: u64) {
        self.lost_records.inc_by(count);
    }

    /// The journal failed so often more, and so many more steps are lost to it.
    pub fn journal_failed(&self, errors: u64, steps_lost: u64) {
        self.journal_errors.inc_by(errors);
        self.journal_lost_steps.inc_by(steps_lost);
    }

    /// Size of the journal on disk.
    pub fn set_journal_bytes(&self, bytes: u64) {
        self.journal_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Memory that what was learned takes.
    pub fn set_learning_bytes(&self, bytes: u64) {
        self.learning_bytes.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// All of it as OpenMetrics text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String does not fail; what was written so far is the best answer if it ever does.
        if let Err(error) = text::encode(&mut text, &self.registry) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }
}

/// Metrics without labels.
struct Plain {
    lost_records: Counter,
    journal_bytes: Gauge,
    journal_errors: Counter,
    journal_lost_steps: Counter,
    learning_bytes: Gauge,
}

impl Plain {
    fn register(registry: &mut Registry) -> Self {
        let plain = Self {
            lost_records: Counter::default(),
            journal_bytes: Gauge::default(),
            journal_errors: Counter::default(),
            journal_lost_steps: Counter::default(),
            learning_bytes: Gauge::default(),
        };
        registry.register(
            "lost_records",
            "Learning records dropped because a queue was full",
            plain.lost_records.clone(),
        );
        registry.register("journal_bytes", "Size of the journal on disk", plain.journal_bytes.clone());
        registry.register(
            "journal_errors",
            "How often the journal could not be written",
            plain.journal_errors.clone(),
        );
        registry.register(
            "journal_lost_steps",
            "Steps that the journal does not hold because the disk failed",
            plain.journal_lost_steps.clone(),
        );
        registry.register("learning_bytes", "Memory of what was learned", plain.learning_bytes.clone());
        plain
    }
}

fn at_site(service: &str, site: &str) -> SiteLabels {
    SiteLabels { service: service.to_owned(), site: site.to_owned() }
}

fn of_service(service: &str) -> ServiceLabels {
    ServiceLabels { service: service.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn metrics_have_the_names_that_dashboards_use() {
        let metrics = Metrics::new();
        metrics.requests("web", "local", "default", Outcome::Answered, 1);
        metrics.requests("web", "local", "default", Outcome::Answered, 1);
        metrics.request_duration("web", "local", Span::from_millis(3));
        metrics.hold_duration("web", "local", Span::ZERO);
        metrics.cold_starts("web", "local", 1);
        metrics.set_instances("web", "local", InstanceState::Ready, 2);
        metrics.instance_started("web", "process", "cold", Span::from_secs(1));
        metrics.idle_memory("web", 1.5e9);
        metrics.idle_memory("web", -1.0);
        metrics.set_forecast_load("web", "local", "0.9", 2.5);
        metrics.set_forecast_coverage("web", "0.9", 0.88);
        metrics.decisions("start", "waiting", 1);
        metrics.invariant_violated("capacity", 1);
        metrics.set_overrides(OverrideKind::Instances, 3);
        metrics.records_lost(7);
        metrics.set_journal_bytes(10);
        metrics.journal_failed(2, 300);
        metrics.set_learning_bytes(20);
        let text = metrics.render();
        for line in [
            "forerun_requests_total{service=\"web\",site=\"local\",sla=\"default\",outcome=\"answered\"} 2",
            "forerun_request_duration_seconds_bucket{le=\"0.004\",service=\"web\",site=\"local\"} 1",
            "forerun_hold_duration_seconds_count{service=\"web\",site=\"local\"} 1",
            "forerun_cold_starts_total{service=\"web\",site=\"local\"} 1",
            "forerun_instances{service=\"web\",site=\"local\",state=\"ready\"} 2",
            "forerun_instance_start_seconds_sum{service=\"web\",backend=\"process\",kind=\"cold\"} 1.0",
            "forerun_idle_memory_byte_seconds_total{service=\"web\"} 1500000000.0",
            "forerun_forecast_load{service=\"web\",site=\"local\",quantile=\"0.9\"} 2.5",
            "forerun_forecast_coverage_ratio{service=\"web\",quantile=\"0.9\"} 0.88",
            "forerun_decisions_total{action=\"start\",reason=\"waiting\"} 1",
            "forerun_invariant_violations_total{invariant=\"capacity\"} 1",
            "forerun_overrides{kind=\"instances\"} 3",
            "forerun_lost_records_total 7",
            "forerun_journal_bytes 10",
            "forerun_journal_errors_total 2",
            "forerun_journal_lost_steps_total 300",
            "forerun_learning_bytes 20",
            "# EOF",
        ] {
            assert!(text.lines().any(|l| l == line), "{line}\n{text}");
        }
    }

    #[test]
    fn label_sets_are_bounded() {
        let metrics = Metrics::new();
        for n in 0..LABEL_SETS_MAX + 10 {
            metrics.idle_memory(&format!("s{n}"), 1.0);
        }
        // One that was there before the bound is still told apart.
        metrics.idle_memory("s3", 1.0);
        let text = metrics.render();
        let lines: Vec<&str> =
            text.lines().filter(|l| l.starts_with("forerun_idle_memory_byte_seconds_total{")).collect();
        assert_eq!(lines.len(), LABEL_SETS_MAX + 1);
        assert!(lines.contains(&"forerun_idle_memory_byte_seconds_total{service=\"_other\"} 10.0"));
        assert!(lines.contains(&"forerun_idle_memory_byte_seconds_total{service=\"s3\"} 2.0"));
    }
}
