//! The core's view in the API's words.

use super::control::{mode_name, mode_word, word};
use super::publish::View;
use forerun_api::{
    ActivityCost, Advice, BudgetStatus, Demand, Down, Instance, Instances, KeyStatus, Load, LoadForecast,
    ModelWeight, NextChange, ServiceStatus, SiteStatus, Trust, Waits, Woken,
};
use forerun_core::forecast::series::LEVELS;
use forerun_core::{
    ActionUsage, BudgetStatus as CoreBudget, InstanceState, LoadForecast as CoreForecast,
    ServiceStatus as CoreStatus, SiteStatus as CoreSite, WakeBy,
};
use forerun_router::ServiceStats;
use forerun_types::{ServiceId, ServiceSpec, Span, Time};

/// A word of a person is recalled after so long: whoever gave it has likely forgotten it.
const FORGOTTEN_AFTER: Span = Span::from_secs(86_400);

pub(super) fn site(s: &CoreSite) -> SiteStatus {
    SiteStatus {
        name: s.name.clone(),
        memory_capacity_bytes: s.capacity.memory_bytes,
        memory_reserved_bytes: s.used.memory_bytes,
        instances: s.instances,
        shadow_price: s.shadow_price as f64 / 1e3,
    }
}

pub(super) fn budget(b: &CoreBudget) -> BudgetStatus {
    BudgetStatus {
        class: b.class.clone(),
        cold_start_budget: f64::from(b.budget_ppm) / 1e6,
        requests: b.requests,
        cold_starts: b.cold_starts,
        spent: b.spent_milli as f64 / 1e3,
        dearer: f64::from(b.dearer_milli) / 1e3,
    }
}

pub(super) fn service(
    view: &View,
    s: &CoreStatus,
    spec: &ServiceSpec,
    stats: Option<&ServiceStats>,
) -> ServiceStatus {
    let next_stop =
        s.next_stop.map(|at| NextChange { at: at.as_secs_f64(), wanted: s.wanted.saturating_sub(1) });
    ServiceStatus {
        name: s.name.clone(),
        tenant: spec.tenant.clone(),
        mode: mode_name(s.mode).to_owned(),
        wanted: s.wanted,
        instances: instances(s),
        // The router knows these first.
        in_flight: stats.map_or(s.in_flight, |x| x.in_flight),
        waiting: stats.map_or(s.waiting, |x| x.held),
        requests: stats.map_or(0, ServiceStats::requests_total),
        cold_starts: stats.map_or(0, |x| x.cold_starts),
        wait_seconds: stats.and_then(waits),
        memory_bytes: s.instances.iter().map(|i| i.memory_bytes).sum(),
        reason: reason(s),
        next_change: next_stop,
        backend: spec.backend.clone(),
        each: s.instances.iter().map(instance).collect(),
        word: s.word.map(|w| word(w.instances, w.since, w.until)),
        mode_word: s.mode_word.map(|w| mode_word(w.mode, w.since)),
        down: s.down.as_ref().map(|d| Down { at: d.at.as_secs_f64(), why: d.why.clone() }),
        would: s.would.clone(),
        advice: s.advice.iter().map(advice).collect(),
        trust: s.trust.map(trust),
        progress: s.progress.clone(),
        last_failure: s.last_failure.clone(),
        completed: s.completed.map(Time::as_secs_f64),
        depends_on: spec.depends_on.iter().map(|d| d.service.clone()).collect(),
        needed_by: needed_by(view, &s.name),
        wakes: s.wakes.iter().map(|w| Woken { at: w.at.as_secs_f64(), by: by(view, w.by) }).collect(),
        start_seconds: s.start.as_secs_f64(),
        resume_seconds: s.resume.map(Span::as_secs_f64),
        specialise_seconds: s.specialise.map(Span::as_secs_f64),
        min: spec.min,
        max: spec.max,
        keep_at_least_seconds: spec.keep_at_least.as_secs_f64(),
        found: spec.found,
        keys: view.keys.get(&s.service).into_iter().flatten().map(key).collect(),
        activities: s.actions.iter().map(activity).collect(),
        load: (!s.actions.is_empty()).then(|| load(s, spec)),
        forecast: s.forecast.as_ref().map(|told| forecast(s, spec, told)),
    }
}

fn trust(t: forerun_core::Track) -> Trust {
    let gb_seconds = |millionths: u64| millionths as f64 / 1e6;
    Trust {
        foresight_gb_seconds: gb_seconds(t.foresight),
        reactive_gb_seconds: gb_seconds(t.reactive),
        gaps: t.gaps,
        fallen: t.fallen,
    }
}

fn advice(a: &forerun_core::Advice) -> Advice {
    Advice { at: a.at.as_secs_f64(), from: a.from, to: a.to, what: a.reason.would(a.from, a.to) }
}

fn forecast(s: &CoreStatus, spec: &ServiceSpec, told: &CoreForecast) -> LoadForecast {
    LoadForecast {
        from: told.from.as_secs_f64(),
        step_seconds: told.step.as_secs_f64(),
        levels: LEVELS.to_vec(),
        steps: told.steps.iter().map(|step| step.to_vec()).collect(),
        coverage: told.coverage.map_or_else(Vec::new, |c| c.to_vec()),
        models: told
            .weights
            .iter()
            .map(|(model, weight)| ModelWeight { model: (*model).to_owned(), weight: *weight })
            .collect(),
        demand: LEVELS.iter().enumerate().map(|(l, level)| demand(s, spec, *level, told.most(l))).collect(),
    }
}

/// What so many requests at a time take.
fn demand(s: &CoreStatus, spec: &ServiceSpec, level: f64, requests: f64) -> Demand {
    let takes = s.takes(spec, requests);
    Demand {
        level,
        instances: takes.instances,
        cpu_cores: takes.cpu,
        memory_bytes: takes.memory_bytes,
        network_bytes_per_second: takes.network_bytes_per_s,
        storage_bytes_per_second: takes.storage_bytes_per_s,
    }
}

fn activity(a: &ActionUsage) -> ActivityCost {
    ActivityCost {
        action: a.name.clone(),
        per_second: a.rate,
        cpu_seconds: a.cost.cpu_us / 1e6,
        memory_bytes: a.cost.memory_bytes,
        network_bytes: a.cost.network_bytes,
        storage_bytes: a.cost.storage_bytes,
        seconds: a.cost.duration_us / 1e6,
    }
}

fn load(s: &CoreStatus, spec: &ServiceSpec) -> Load {
    Load {
        per_second: s.rate,
        cpu_cores: s.load.cpu,
        memory_bytes: s.load.memory_bytes,
        network_bytes_per_second: s.load.network_bytes_per_s,
        storage_bytes_per_second: s.load.storage_bytes_per_s,
        concurrency: s.load.concurrency,
        instances_for_target: s.instances_for_target(spec),
    }
}

fn key(s: &CoreStatus) -> KeyStatus {
    KeyStatus {
        key: s.variant.as_ref().map_or_else(String::new, |variant| variant.key.clone()),
        wanted: s.wanted,
        instances: instances(s),
        in_flight: s.in_flight,
        waiting: s.waiting,
        memory_bytes: s.instances.iter().map(|i| i.memory_bytes).sum(),
        reason: reason(s),
    }
}

/// What `busy` says goes with it: the plan alone would not tell why something is still up; and what does not answer.
fn reason(s: &CoreStatus) -> String {
    let busy = s.instances.iter().find_map(|i| i.busy.as_ref());
    let silent = s.instances.iter().find_map(|i| Some((i.instance, i.silent.as_ref()?)));
    match (&s.failing, silent, busy) {
        (Some(why), ..) => format!("failing: {}", why.lines().next().unwrap_or_default()),
        (None, Some((instance, what)), _) => format!("{instance}: {what}; {}", s.reason),
        (None, None, Some((why, _))) => format!("not stopped, it is busy: {why}; {}", s.reason),
        (None, None, None) => s.reason.clone(),
    }
}

fn instances(s: &CoreStatus) -> Instances {
    Instances {
        starting: count(s, InstanceState::Starting),
        ready: count(s, InstanceState::Ready),
        draining: count(s, InstanceState::Draining) + count(s, InstanceState::Stopping),
        paused: count(s, InstanceState::Paused),
    }
}

pub(super) fn count(s: &CoreStatus, state: InstanceState) -> u32 {
    s.instances.iter().filter(|i| i.state == state).count() as u32
}

fn instance(i: &forerun_core::InstanceStatus) -> Instance {
    let state = match i.state {
        InstanceState::Starting => "starting",
        InstanceState::Ready => "ready",
        InstanceState::Paused => "paused",
        InstanceState::Draining => "draining",
        InstanceState::Stopping => "stopping",
    };
    Instance {
        instance: i.instance.to_string(),
        state: state.to_owned(),
        since: i.since.as_secs_f64(),
        in_flight: i.in_flight,
        memory_bytes: i.memory_bytes,
        reason: i.reason.clone(),
        found: i.found,
    }
}

fn needed_by(view: &View, name: &str) -> Vec<String> {
    let needs = |spec: &&std::sync::Arc<ServiceSpec>| spec.depends_on.iter().any(|d| d.service == name);
    view.specs.iter().filter(needs).map(|spec| spec.name.clone()).collect()
}

fn by(view: &View, by: WakeBy) -> String {
    match by {
        WakeBy::User(_) => "request".to_owned(),
        WakeBy::Operator => "operator".to_owned(),
        WakeBy::Person => "person".to_owned(),
        WakeBy::Plan => "plan".to_owned(),
        WakeBy::Dependent(id) => name_of(view, id),
    }
}

fn name_of(view: &View, id: ServiceId) -> String {
    let found = view.services.iter().find(|s| s.service == id);
    found.map_or_else(|| "a service that is gone".to_owned(), |s| s.name.clone())
}

/// What a person said more than a day ago and that still holds.
pub(super) fn notice(s: &ServiceStatus, now: Time) -> Option<String> {
    let word = s.word?;
    let age = Span::from_secs_f64(now.as_secs_f64() - word.since);
    (age > FORGOTTEN_AFTER).then(|| {
        format!(
            "{} has been held at {} by a person for {age}; `forerun resume {}` gives it back to the plan",
            s.name, word.instances, s.name
        )
    })
}

/// Quantiles over all requests: those that were not held waited for nothing.
fn waits(stats: &ServiceStats) -> Option<Waits> {
    let total = stats.requests_total();
    if total == 0 {
        return None;
    }
    let quantile = |q: f64| {
        let Some(holds) = &stats.hold_micros else { return 0.0 };
        let unheld = total.saturating_sub(holds.len()) as f64 / total as f64;
        if q <= unheld || holds.is_empty() {
            return 0.0;
        }
        holds.value_at_quantile((q - unheld) / (1.0 - unheld)) as f64 / 1e6
    };
    Some(Waits { p50: quantile(0.5), p99: quantile(0.99) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_api::Word;

    #[test]
    fn only_old_words_are_recalled() {
        let now = Time(10 * 86_400_000_000);
        let at = |days: f64| ServiceStatus {
            name: "web".to_owned(),
            word: Some(Word { instances: 2, since: (10.0 - days) * 86_400.0, until: None }),
            ..ServiceStatus::default()
        };
        assert_eq!(notice(&at(0.5), now), None);
        assert_eq!(notice(&ServiceStatus::default(), now), None);
        let told = notice(&at(2.0), now).unwrap_or_default();
        assert!(told.starts_with("web has been held at 2 by a person for 48h"), "{told}");
    }
}
