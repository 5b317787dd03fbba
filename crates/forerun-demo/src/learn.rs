//! Before the race: the lab plays the part to learn from, in virtual time.

use crate::DemoError;
use crate::manifest::Rules;
use forerun_core::{AnyPolicy, Core};
use forerun_lab::{Options, PolicyName, Requests, World, learn, replay_requests};
use forerun_trace::Trace;
use forerun_types::{Span, Time};

/// What came of learning.
#[derive(Debug)]
pub(crate) struct Learned {
    /// The baseline, at recorded speed.
    pub(crate) keep_alive: Span,
    /// GB-seconds at playing speed on the part to learn from.
    pub(crate) keep_alive_gbs: f64,
    pub(crate) forerun_gbs: f64,
    pub(crate) keep_alive_cold: u64,
    pub(crate) forerun_cold: u64,
}

/// The lab's world at playing speed. Prices of memory and of cold starts shrink alike.
pub(crate) fn options(act: &Rules) -> Options {
    Options {
        world: World { start: act.start, per_instance: act.concurrency, ..World::default() },
        cold_start_gbs: act.cold_start_gbs / act.speedup as f64,
        ..Options::default()
    }
}

/// Chooses the baseline: the shortest keep-alive of the manifest that may use at least the memory that Forerun used.
/// Longer ones have fewer cold starts, so this is the best at that memory, rounded in its favour.
pub(crate) fn baseline(trace: &Trace, act: &Rules) -> Result<Learned, DemoError> {
    let options = options(act);
    let score = |policy, name: &str| {
        replay_requests(policy, name, trace, &options, &mut |_| {}).map(|o| o.scores).map_err(DemoError::Lab)
    };
    let forerun = score(PolicyName::Forerun, "forerun")?;
    let mut last = None;
    for &keep in &act.keep_alives {
        let scores = score(PolicyName::KeepAlive(act.played(keep)), "keep-alive")?;
        let enough = scores.memory_gb_seconds.total >= forerun.memory_gb_seconds.total;
        last = Some((keep, scores));
        if enough {
            break;
        }
    }
    let (keep_alive, scores) = last.ok_or_else(|| DemoError::Manifest("keep_alive_s is empty".to_owned()))?;
    Ok(Learned {
        keep_alive,
        keep_alive_gbs: scores.memory_gb_seconds.total,
        forerun_gbs: forerun.memory_gb_seconds.total,
        keep_alive_cold: scores.cold_starts,
        forerun_cold: forerun.cold_starts,
    })
}

/// The core of a policy after the part to learn from, which ends at `ends_at` of the real clock.
pub(crate) fn core(
    policy: AnyPolicy,
    trace: Trace,
    length: Span,
    ends_at: Time,
    act: &Rules,
) -> Result<Core<AnyPolicy>, DemoError> {
    let origin_us = i64::try_from(ends_at.minus(length).0).unwrap_or(i64::MAX);
    let trace = Trace { origin_us, ..trace };
    let options = Options { until: Some(Time(length.0)), ..options(act) };
    let requests = Requests::new(&trace, &options).map_err(DemoError::Lab)?;
    learn(policy, &requests, &options).map_err(DemoError::Lab)
}
