//! Looking at the core without touching it: for `status`, metrics and checks.

use crate::advice::Advice;
use crate::core::{Core, Service, State};
use crate::hand::Wake;
use crate::loads::LoadForecast;
use crate::policy::{Policy, View};
use crate::trust::Track;
use crate::usage::{ActionUsage, Load};
use forerun_types::{
    InstanceId, Mode, Reason, Resources, ServiceId, ServiceSpec, SiteId, Span, StopWhy, Time, Variant,
};
use serde::Serialize;
use std::sync::Arc;

/// Actions of a service that are told.
const ACTIONS_SHOWN: usize = 8;

/// What an instance is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum InstanceState {
    Starting,
    Ready,
    Draining,
    Stopping,
    /// Frozen, or on the way there.
    Paused,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct InstanceStatus {
    pub instance: InstanceId,
    pub state: InstanceState,
    pub since: Time,
    pub in_flight: u32,
    pub memory_bytes: u64,
    /// Why it was started.
    pub reason: String,
    /// It was not started by this life, but found.
    pub found: bool,
    /// What it answered when it was to be stopped, and when it is asked again.
    pub busy: Option<(String, Time)>,
    /// Its service has been described anew since it was started: it goes on as it was until it is next stopped.
    pub outdated: bool,
    /// What it does not answer, in words: how often in a row, and for how long.
    pub silent: Option<String>,
}

/// A person's word on how many instances there are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Word {
    pub instances: u32,
    pub since: Time,
    /// [`Time::NEVER`] where it has no end.
    pub until: Time,
}

/// A person's word on how far Forerun goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct ModeWord {
    pub mode: Mode,
    pub since: Time,
}

/// A service is held down by what a person did past Forerun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DownStatus {
    pub at: Time,
    pub why: String,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceStatus {
    pub service: ServiceId,
    pub name: String,
    pub mode: Mode,
    pub wanted: u32,
    pub in_flight: u32,
    pub waiting: u32,
    pub instances: Vec<InstanceStatus>,
    /// Why so many are wanted.
    pub reason: String,
    pub reason_label: &'static str,
    /// When fewer will be wanted if nothing happens until then.
    pub next_stop: Option<Time>,
    pub start: Span,
    pub memory_bytes: u64,
    pub service_time: Span,
    pub cpu_milli: u64,
    /// The best chances of need, in millionths, beyond what is needed now: what quantiles of demand follow from.
    pub chances_ppm: Vec<u32>,
    /// Why the last start or instance failed, while that still matters.
    pub failing: Option<String>,
    /// The last failure, whether it still matters or not; empty if there was none.
    pub last_failure: String,
    /// A person's word on the number of instances, while it holds.
    pub word: Option<Word>,
    /// A person's word on the mode; `mode` is what holds, this says since when.
    pub mode_word: Option<ModeWord>,
    /// Held down by what a person did past Forerun.
    pub down: Option<DownStatus>,
    /// What Forerun would do and may not, since it only watches; `None` where it would do nothing.
    pub would: Option<String>,
    /// What Forerun would have done in mode `advise`, oldest first; the last five.
    pub advice: Vec<Advice>,
    /// How its foresight has done against the reactive rule; `None` before the first gap.
    pub trust: Option<Track>,
    /// What its start is at; empty when there is nothing to say.
    pub progress: String,
    /// What it waits for, where something that it depends on or does not run beside is in the way.
    pub held_up: Option<String>,
    /// Who keeps it up: the name of a service that depends on it and is wanted or up.
    pub kept_for: Option<String>,
    /// Names of what it depends on.
    pub depends_on: Vec<String>,
    /// When it last ended as it was meant to.
    pub completed: Option<Time>,
    /// The last times that it was brought up, oldest first.
    pub wakes: Vec<Wake>,
    /// What thawing and what giving an instance to a key takes, once seen.
    pub resume: Option<Span>,
    pub specialise: Option<Span>,
    /// Whose instances of which key these are.
    pub variant: Option<Variant>,
    /// What its activities take, the most frequent first; a variant's are its service's.
    pub actions: Vec<ActionUsage>,
    /// Activities a second, over some ten minutes, and what they take together.
    pub rate: f64,
    pub load: Load,
    /// What its load is forecast to be, where that is followed and there is some.
    pub forecast: Option<LoadForecast>,
}

#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct SiteStatus {
    pub site: SiteId,
    pub name: String,
    pub used: Resources,
    pub capacity: Resources,
    pub instances: u32,
    pub instances_max: u32,
    /// The price of memory at the margin: value per GB and hour, in thousandths of a GB-second, of the best that was
    /// evicted or found no room; 0 while there is room for all.
    pub shadow_price: i64,
}

impl<P: Policy> Core<P> {
    /// All sites, the first one first.
    pub fn sites(&self) -> impl Iterator<Item = SiteStatus> + '_ {
        self.rooms.iter().map(|(site, room)| {
            let ((used, instances), (capacity, instances_max)) = (room.used(), room.limits());
            let (name, shadow_price) = (room.name().to_owned(), room.shadow_price());
            SiteStatus { site, name, used, capacity, instances, instances_max, shadow_price }
        })
    }

    /// All services, in order of their ids.
    pub fn services(&self) -> impl Iterator<Item = ServiceStatus> + '_ {
        self.services_from(ServiceId(0)).map(|(status, _)| status)
    }

    /// The services from an id on, with their descriptions: so that who looks at thousands can do so a few at a time.
    pub fn services_from(
        &self,
        first: ServiceId,
    ) -> impl Iterator<Item = (ServiceStatus, &Arc<ServiceSpec>)> + '_ {
        self.services.iter().skip(first.0 as usize).flatten().map(|s| (self.status(s), &s.spec))
    }

    fn status(&self, s: &Service) -> ServiceStatus {
        let chance = |reason: &Reason| match reason {
            Reason::Priced { chance_ppm, .. } => Some(*chance_ppm),
            _ => None,
        };
        let up = self.count(s.spec.id);
        let dearer_milli = self.dearer_milli(s.spec.id);
        let view = View { up, dearer_milli, ..self.demand.view(&s.spec, s.spec.instances_for(s.requests())) };
        let rate = self.usage.rate(self.now, s.spec.id);
        ServiceStatus {
            service: s.spec.id,
            name: s.spec.name.clone(),
            mode: self.elder(s).mode(),
            wanted: s.wanted,
            in_flight: s.in_flight(),
            waiting: s.held(),
            instances: s.instances.iter().filter_map(|id| self.instance_status(s, *id)).collect(),
            reason: s.reason.as_ref().map_or_else(String::new, Reason::sentence),
            reason_label: s.reason.as_ref().map_or("none", Reason::label),
            next_stop: if s.wanted > s.spec.min { self.policy.next_stop(self.now, &view) } else { None },
            start: view.start,
            memory_bytes: view.memory_bytes,
            service_time: self.demand.service_time(s.spec.id),
            cpu_milli: self.demand.cpu_milli(s.spec.id),
            chances_ppm: s.values.iter().filter_map(|v| chance(&v.reason)).collect(),
            last_failure: s.last_failure.clone(),
            word: s.word(self.now),
            mode_word: s.told.mode.map(|(mode, since)| ModeWord { mode, since }),
            down: s.told.down.as_ref().map(|d| DownStatus { at: d.at, why: d.why.clone() }),
            would: self.would(s),
            advice: s.advised.told.iter().cloned().collect(),
            trust: self.policy.track(s.spec.id),
            progress: s.told.progress.clone(),
            held_up: (s.wanted > self.count(s.spec.id)).then(|| self.held_up(s.spec.id)).flatten(),
            kept_for: self.kept_for(s.spec.id).map(str::to_owned),
            depends_on: s.spec.depends_on.iter().map(|d| d.service.clone()).collect(),
            completed: s.told.completed,
            wakes: s.told.wakes.iter().copied().collect(),
            resume: self.demand.resume_time(s.spec.id),
            specialise: self.demand.specialise_time(self.elder(s).spec.id),
            variant: s.spec.variant.clone(),
            actions: self.usage.actions(self.now, s.spec.id, ACTIONS_SHOWN),
            rate,
            load: self.usage.load(self.now, s.spec.id, rate),
            forecast: self.loads.forecast(s.spec.id),
            failing: (s.failures > 0 && s.tally.ready == 0).then(|| s.last_failure.clone()),
        }
    }

    fn would(&self, s: &Service) -> Option<String> {
        if self.elder(s).mode() == Mode::Act || s.leaving {
            return None;
        }
        let have = self.count(s.spec.id);
        let wedged = |id: &InstanceId| Some((*id, self.instances.get(id)?.wedged(&s.spec)?));
        if let Some((instance, why)) = s.instances.iter().find_map(wedged) {
            return Some(format!("would replace {instance}: {why}"));
        }
        let reason = s.reason.as_ref().filter(|_| s.wanted != have)?;
        Some(reason.would(have, s.wanted))
    }

    fn instance_status(&self, s: &Service, id: InstanceId) -> Option<InstanceStatus> {
        let i = self.instances.get(&id)?;
        Some(InstanceStatus {
            instance: id,
            state: match i.state {
                State::Starting
                | State::Resuming { .. }
                | State::Claimed { .. }
                | State::Specialising { .. } => InstanceState::Starting,
                State::Paused | State::Pausing { .. } => InstanceState::Paused,
                State::Ready => InstanceState::Ready,
                State::Draining { .. } => InstanceState::Draining,
                State::Stopping { .. } => InstanceState::Stopping,
            },
            since: i.ready_at.unwrap_or(i.born),
            in_flight: i.requests(),
            memory_bytes: i.memory_bytes,
            reason: i.reason.sentence(),
            found: !i.handle.is_empty(),
            busy: i.asked.told(self.now).map(|(why, again)| (why.to_owned(), again)),
            outdated: i.described < s.described,
            silent: match &i.state {
                State::Draining { why: StopWhy::Wedged, reason, .. } => Some(reason.sentence()),
                _ => i.silence(),
            },
        })
    }
}

impl Service {
    fn word(&self, now: Time) -> Option<Word> {
        let order = self.bounds.order.filter(|order| order.holds_at(now))?;
        Some(Word { instances: order.instances?, since: self.bounds.since, until: order.until })
    }
}

impl ServiceStatus {
    /// The quantile of instances needed within the next look-ahead, from the chances of each level.
    #[must_use]
    pub fn needed_quantile(&self, needed_now: u32, quantile: f64) -> u32 {
        let missed = ((1.0 - quantile) * 1e6) as u32;
        let mut chances = self.chances_ppm.clone();
        chances.sort_unstable_by(|a, b| b.cmp(a));
        needed_now + chances.iter().take_while(|c| **c > missed).count() as u32
    }
}
