//! One policy over one trace: decide, then play the decisions and score them.

use crate::driven::{self, Driven};
use crate::gaps::{self, Fixed};
use crate::hazard::{self, EventHazard};
use crate::nominal::uses;
use crate::requests::Requests;
use crate::scores::Scores;
use crate::scripted::Steered;
use crate::{Capacity, Decision, LabError, Options, PolicyName, minutes, scripted};
use forerun_core::{AnyPolicy, Forerun};
use forerun_trace::{MinuteTrace, Trace};
use forerun_types::{ServiceId, Time};

const MINUTE_US: u64 = 60_000_000;

/// What a policy decided, and what that was worth.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub decisions: Vec<Decision>,
    pub scores: Scores,
}

/// A policy's decisions for a trace of requests, each from what came before it.
///
/// # Errors
/// When the policy never comes to rest at an instant.
pub fn decide_requests(
    policy: PolicyName,
    name: &str,
    requests: &Requests<'_>,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Driven, LabError> {
    let by_gaps = |decisions| Driven { decisions, ..Driven::default() };
    match policy {
        PolicyName::None => Ok(Driven::default()),
        PolicyName::KeepAlive(keep) => {
            let (uses, _) = uses(requests);
            Ok(by_gaps(gaps::decide(&uses, requests.services(), &mut Fixed(keep), progress)))
        }
        PolicyName::Hazard => {
            let (uses, levels) = uses(requests);
            let mut hazard =
                EventHazard::new(options.cold_start_gbs, &requests.start, &requests.memory_known, levels);
            Ok(by_gaps(gaps::decide(&uses, requests.services(), &mut hazard, progress)))
        }
        PolicyName::Forerun
        | PolicyName::ForerunNoUsers
        | PolicyName::ForerunNoLoad
        | PolicyName::ForerunNoUsersNoLoad => {
            driven::drive_requests(core_policy(policy, options), name, requests, options, progress)
        }
        PolicyName::Rival(rival) => Ok(by_gaps(rival.requests(requests, options, progress)?.decisions)),
    }
}

fn core_policy(policy: PolicyName, options: &Options) -> AnyPolicy {
    let bytes_max = options.profiles_bytes_max;
    AnyPolicy::Forerun(Box::new(match policy {
        PolicyName::ForerunNoUsers => Forerun::without_users(bytes_max),
        PolicyName::ForerunNoLoad => Forerun::without_load(bytes_max),
        PolicyName::ForerunNoUsersNoLoad => Forerun::without_either(bytes_max),
        _ => Forerun::new(bytes_max),
    }))
}

/// Decides and scores.
///
/// # Errors
/// An empty trace, options that do not fit it, or a policy that never comes to rest.
pub fn replay_requests(
    policy: PolicyName,
    name: &str,
    trace: &Trace,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, LabError> {
    let requests = Requests::new(trace, options)?;
    if let PolicyName::Rival(rival) = policy {
        // Some decide by what they see, so that deciding is playing.
        let Steered { tally, decisions } = rival.requests(&requests, options, progress)?;
        let scores = Scores::of_requests(name, tally, options.cold_start_gbs, decisions.len() as u64);
        return Ok(Outcome { decisions, scores });
    }
    let Driven { decisions, classes, .. } = decide_requests(policy, name, &requests, options, progress)?;
    let scores = Scores { classes, ..score_requests(name, &requests, &decisions, options, progress) };
    Ok(Outcome { decisions, scores })
}

/// Plays decisions, whoever made them, and scores what came of it. They stand in order of time.
pub fn score_requests(
    name: &str,
    requests: &Requests<'_>,
    decisions: &[Decision],
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Scores {
    let tally = scripted::play(requests, decisions, &options.world, progress);
    Scores::of_requests(name, tally, options.cold_start_gbs, decisions.len() as u64)
}

/// Instances wanted by app and minute, each minute from earlier ones only.
///
/// # Errors
/// A keep-alive that is not of whole minutes, or a policy that never comes to rest.
pub fn decide_minutes(
    policy: PolicyName,
    name: &str,
    trace: &MinuteTrace,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Vec<u32>>, LabError> {
    let needs = minutes::needs(trace);
    match policy {
        PolicyName::None => Ok(minutes::fixed(&needs, 0)),
        PolicyName::KeepAlive(keep) if keep.0.is_multiple_of(MINUTE_US) => {
            Ok(minutes::fixed(&needs, usize::try_from(keep.0 / MINUTE_US).unwrap_or(usize::MAX)))
        }
        PolicyName::KeepAlive(_) => {
            let why = "keep-alive: a trace of whole minutes needs whole minutes, as in keep-alive=10m";
            Err(LabError::option("--policy", why))
        }
        PolicyName::Hazard => Ok(hazard::minutes(trace, &needs, options.cold_start_gbs)),
        PolicyName::Rival(rival) => rival.minutes(trace, &needs, options),
        PolicyName::Forerun
        | PolicyName::ForerunNoUsers
        | PolicyName::ForerunNoLoad
        | PolicyName::ForerunNoUsersNoLoad => {
            driven::drive_minutes(core_policy(policy, options), name, trace, &needs, options, progress)
        }
    }
}

/// Decides and scores in the world of whole minutes.
///
/// # Errors
/// As [`decide_minutes`]; a capacity, which that world does not have; `only` that names nothing in the trace.
pub fn replay_minutes(
    policy: PolicyName,
    name: &str,
    trace: &MinuteTrace,
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Outcome, LabError> {
    if options.world.capacity != Capacity::Unlimited {
        return Err(LabError::option(
            "--capacity",
            "is for traces of requests; this one is of whole minutes",
        ));
    }
    if trace.minutes() == 0 {
        return Err(LabError::Nothing);
    }
    let scored = options.scored(trace.apps.iter().map(|a| a.name.as_str()))?;
    let wanted = decide_minutes(policy, name, trace, options, progress)?;
    let from = usize::try_from(options.split.0.div_ceil(MINUTE_US)).unwrap_or(usize::MAX);
    let tally = minutes::play(trace, &wanted, from, &scored);
    let decisions = steps(trace, &wanted);
    let scores = Scores::of_minutes(name, &tally, options.cold_start_gbs, decisions.len() as u64);
    Ok(Outcome { decisions, scores })
}

/// A decision for each change, in order of time and name.
fn steps(trace: &MinuteTrace, wanted: &[Vec<u32>]) -> Vec<Decision> {
    let mut order: Vec<usize> = (0..wanted.len()).collect();
    order.sort_by_key(|&app| &trace.apps[app].name);
    let mut decisions = Vec::new();
    for minute in 0..trace.minutes() {
        for &app in &order {
            let before = minute.checked_sub(1).and_then(|m| wanted[app].get(m)).copied().unwrap_or(0);
            let Some(&now) = wanted[app].get(minute) else { continue };
            if now != before {
                let at = Time(minute as u64 * MINUTE_US);
                decisions.push(Decision { at, service: ServiceId(app as u32), wanted: now });
            }
        }
    }
    decisions
}
