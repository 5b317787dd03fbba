//! What a policy must answer: what one more instance is worth. All else, bounds, capacity, starts and stops, is the
//! same for every policy.

use crate::trust::Track;
use forerun_types::{Activity, Reason, ServiceId, ServiceSpec, Span, Time, UserKey};

/// What a policy may know of a service when it is asked.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    pub spec: &'a ServiceSpec,
    /// How long a start takes, as far as is known.
    pub start: Span,
    /// What an instance takes, as far as is known.
    pub memory_bytes: u64,
    /// Instances that the load of now needs.
    pub needed: u32,
    /// Instances that are there, frozen or about to be.
    pub up: u32,
    /// Thousandths of a core that an instance keeps busy while it has nothing to do.
    pub idle_cpu_milli: u64,
    /// How long thawing a frozen instance takes, as far as is known; `None` where instances cannot be frozen.
    pub resume: Option<Span>,
    /// What of a cold start an instance saves that is there, in millionths: less than all where it must first become a
    /// key's, which takes its time too.
    pub saves_ppm: u32,
    /// There is not room for all that is wanted on its site.
    pub short: bool,
    /// What a cold start counts for its class now, in thousandths of its configured price; never less than a thousand.
    pub dearer_milli: u32,
}

/// What one instance beyond the load of now is worth.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LevelValue {
    /// Worth less cost, in thousandths of a GB-second; it is wanted when positive.
    pub net_milli_gbs: i64,
    /// The same per GB and hour: what compares services of different size.
    pub density: i64,
    pub reason: Reason,
    /// The same of an instance that is frozen meanwhile, where that is possible.
    pub frozen: Option<Frozen>,
}

/// What an instance is worth that is frozen until it is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Frozen {
    pub net_milli_gbs: i64,
    pub density: i64,
}

impl LevelValue {
    #[must_use]
    pub fn new(net_milli_gbs: i64, within: Span, spec: &ServiceSpec, reason: Reason) -> Self {
        Self { net_milli_gbs, density: density(net_milli_gbs, within, spec), reason, frozen: None }
    }

    /// The same, knowing what it is worth frozen.
    #[must_use]
    pub fn or_frozen(self, net_milli_gbs: i64, within: Span, spec: &ServiceSpec) -> Self {
        let density = density(net_milli_gbs, within, spec);
        Self { frozen: Some(Frozen { net_milli_gbs, density }), ..self }
    }

    /// It is better kept hot than frozen, and better than not at all.
    #[must_use]
    pub fn is_hot(&self) -> bool {
        self.net_milli_gbs > 0 && !self.is_frozen()
    }

    /// It is better frozen than hot, and better than not at all.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        self.frozen.is_some_and(|f| f.net_milli_gbs > self.net_milli_gbs.max(0))
    }
}

/// What a net worth comes to per GB and hour.
pub(crate) fn density(net_milli_gbs: i64, within: Span, spec: &ServiceSpec) -> i64 {
    let within_ms = i64::try_from(within.0 / 1_000).unwrap_or(i64::MAX).max(1);
    let memory_mb = i64::try_from(spec.resources.memory_bytes / 1_000_000).unwrap_or(i64::MAX).max(1);
    let per_hour = net_milli_gbs.saturating_mul(3_600_000) / within_ms;
    per_hour.saturating_mul(1_000) / memory_mb
}

/// Turns what is seen into what instances are worth. Deterministic; the same calls give the same answers.
pub trait Policy {
    /// A service was added, or is described anew.
    fn service(&mut self, view: &View<'_>);
    fn service_gone(&mut self, service: ServiceId);
    /// A user did something; services whose prospects this changes are appended to `touched`.
    fn activity(&mut self, activity: &Activity, touched: &mut Vec<ServiceId>);
    /// A user did something at a variant of `parent`: the user's key there is this variant's. The activity itself is
    /// told as the parent's.
    fn keyed(&mut self, _activity: &Activity, _parent: ServiceId) {}
    /// At most `peak` instances were needed since the last call, and `needed` are now.
    fn needed(&mut self, now: Time, service: ServiceId, peak: u32, needed: u32);
    /// So many were needed in the period that ends now.
    fn period(&mut self, now: Time, service: ServiceId, period: Span, needed: u32);
    fn forget(&mut self, user: UserKey);
    /// The values of instances beyond `view.needed`, one for each that may be worth having, in any order; returns
    /// when to ask again if nothing happens before.
    fn appraise(&mut self, now: Time, view: &View<'_>, values: &mut Vec<LevelValue>) -> Time;
    /// When fewer will be wanted if nothing happens until then; for people, so it may take its time.
    fn next_stop(&self, now: Time, view: &View<'_>) -> Option<Time>;
    /// How a service's foresight has done of late; `None` for a policy that has none, or has not been tried.
    fn track(&self, _service: ServiceId) -> Option<Track> {
        None
    }
}
