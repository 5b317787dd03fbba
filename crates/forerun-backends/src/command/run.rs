//! Bringing an instance up and down. Both block, on threads of their own, and hear by a leash.

use super::ASK_WITHIN;
use super::leash::{Leash, Told};
use super::line::{State, Subject, lines};
use crate::hooks;
use forerun_types::{Readiness, Span};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// How long a `stop` line may take beyond the grace that it is given.
const STOP_BEYOND: Duration = Duration::from_secs(60);
/// How long what has been stopped may take to be gone before it is stopped again.
const GONE_WITHIN: Duration = Duration::from_secs(30);
/// Between looks, at first and at most: each is a process.
const LOOK_PAUSE: Duration = Duration::from_millis(20);
const LOOK_PAUSE_MAX: Duration = Duration::from_secs(1);
/// Before a stop that failed is tried again.
const RETRY_PAUSE: Duration = Duration::from_secs(1);
const RETRY_PAUSE_MAX: Duration = Duration::from_secs(60);
/// Stops that are tried of what nothing says of whether it runs.
const BLIND_STOPS_MAX: u32 = 3;

/// What a start came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Up {
    Ready(SocketAddr),
    /// It has been stopped, as far as it can be.
    Failed(String),
    /// It was told to stop, or to let it be.
    Cut,
}

/// Starts an instance, unless it runs already, and waits until it is ready.
pub(super) fn up(subject: &Subject, ordered: Instant, leash: &Leash) -> Up {
    match start(subject, ordered, leash) {
        Ok(address) => Up::Ready(address),
        Err(None) => Up::Cut,
        Err(Some(why)) => {
            // What failed may be half there.
            clean_up(subject, leash);
            Up::Failed(why)
        }
    }
}

/// `Err(None)`: something else was told.
fn start(subject: &Subject, ordered: Instant, leash: &Leash) -> Result<SocketAddr, Option<String>> {
    let spec = &subject.spec;
    let lines = lines(spec)?;
    hooks::check_ready(&spec.ready)?;
    if matches!(spec.ready, Readiness::Log { .. }) && lines.ready.trim().is_empty() {
        return Err(Some(
            "what it prints is not seen: use a `ready` line, `ready.tcp` or `ready.http`".to_owned(),
        ));
    }
    let until = ordered + Duration::from(spec.start_timeout).min(Duration::from_secs(365 * 86_400));
    if !matches!(subject.state(ASK_WITHIN), Some(State::Runs(_))) {
        if leash.told() != Told::default() {
            return Err(None);
        }
        // A line that is running is cut short only by impatience: what it does may not like to be.
        let line_until = || leash.told().stop.map_or(until, |stop| stop.min(until));
        let waited = subject.run(&lines.start, &[], line_until)?;
        match waited.status {
            _ if leash.told() != Told::default() => return Err(None),
            None => return Err(Some(waited.tail.told(format!("not ready after {}", spec.start_timeout)))),
            Some(status) if status.success() => {}
            Some(status) => {
                let how =
                    status.code().map_or_else(|| status.to_string(), |code| format!("exit code {code}"));
                return Err(Some(waited.tail.told(format!("its start line ended with {how}"))));
            }
        }
    }
    let mut pause = LOOK_PAUSE;
    // What it says of itself, once it has been seen to run.
    let mut has_run = None;
    loop {
        if let Some(address) = is_ready(subject)? {
            settle(subject, leash)?;
            return Ok(address);
        }
        match subject.state(ASK_WITHIN) {
            Some(State::Runs(words)) => has_run = Some(words),
            Some(State::Failed(words)) => return Err(Some(format!("ended before it was ready: {words}"))),
            // A machine that wakes says no for a while.
            Some(State::Not(words) | State::ByHand(words)) if has_run.is_some() => {
                return Err(Some(format!("ended before it was ready: {words}")));
            }
            _ => {}
        }
        if leash.wait(pause, Told::default()) != Told::default() {
            return Err(None);
        }
        if Instant::now() >= until {
            return Err(Some(match has_run.filter(|words| !words.is_empty()) {
                Some(words) => format!("not ready after {}; last lines: {words}", spec.start_timeout),
                None => format!("not ready after {}; it printed nothing", spec.start_timeout),
            }));
        }
        pause = (pause * 2).min(LOOK_PAUSE_MAX);
    }
}

/// By its `ready` line, or by the usual look at its address.
fn is_ready(subject: &Subject) -> Result<Option<SocketAddr>, String> {
    let lines = lines(&subject.spec)?;
    let address = match subject.address() {
        Ok(address) => address,
        // A name that is not known yet may be when the machine is awake.
        Err(why) if lines.address.parse::<SocketAddr>().is_ok() || !lines.address.contains(':') => {
            return Err(why);
        }
        Err(_) => return Ok(None),
    };
    let ready = if lines.ready.trim().is_empty() {
        hooks::is_ready(address, &subject.spec.ready, Duration::from_secs(2))
    } else {
        let until = Instant::now() + ASK_WITHIN;
        let waited = subject.run(&lines.ready, &[], || until)?;
        waited.status.is_some_and(|status| status.success())
    };
    Ok(ready.then_some(address))
}

fn settle(subject: &Subject, leash: &Leash) -> Result<(), Option<String>> {
    let settle = subject.spec.settle;
    if settle != Span::ZERO && leash.wait(settle.into(), Told::default()) != Told::default() {
        return Err(None);
    }
    Ok(())
}

/// After a start that failed: nothing of it is to be left, but nobody waits for that for ever.
fn clean_up(subject: &Subject, leash: &Leash) {
    for _ in 0..BLIND_STOPS_MAX {
        if leash.told().let_be || lines(&subject.spec).is_err() {
            return;
        }
        match subject.state(ASK_WITHIN) {
            Some(State::Not(_) | State::ByHand(_)) => return,
            state => {
                let stopped = stop_once(subject, leash, Instant::now());
                if stopped.is_ok() && (state.is_none() || gone(subject, leash, Instant::now())) {
                    return;
                }
            }
        }
    }
    tracing::warn!(
        service = subject.spec.name,
        "what failed to start could not be stopped, and may run still"
    );
}

/// Stops an instance and waits until it is known to be gone. Returns whether it is: if not, it was to be let be.
pub(super) fn down(subject: &Subject, leash: &Leash) -> bool {
    let mut pause = RETRY_PAUSE;
    let mut tries = 0;
    loop {
        let told = leash.told();
        let Some(grace_until) = told.stop.filter(|_| !told.let_be) else { return false };
        match stop_once(subject, leash, grace_until) {
            Ok(()) if !subject.says_state() || gone(subject, leash, grace_until) => return true,
            Ok(()) => {}
            Err(_)
                if matches!(
                    subject.state(ASK_WITHIN),
                    Some(State::Not(_) | State::ByHand(_) | State::Failed(_))
                ) =>
            {
                return true;
            }
            Err(why) => tracing::warn!(service = subject.spec.name, why, "a stop failed and is tried again"),
        }
        if leash.told() != told {
            continue;
        }
        tries += 1;
        if !subject.says_state() && tries >= BLIND_STOPS_MAX {
            tracing::warn!(service = subject.spec.name, "it could not be stopped, and may run still");
            return true;
        }
        leash.wait(pause, told);
        pause = (pause * 2).min(RETRY_PAUSE_MAX);
    }
}

/// Runs the `stop` line once, with what is left of the grace in `FORERUN_GRACE`, in seconds. Cut short if there is
/// less patience than it was told.
fn stop_once(subject: &Subject, leash: &Leash, grace_until: Instant) -> Result<(), String> {
    let line = &lines(&subject.spec)?.stop;
    let grace = grace_until.saturating_duration_since(Instant::now());
    let deadline = Instant::now() + grace + STOP_BEYOND;
    let until = || {
        let told = leash.told();
        if told.let_be || told.stop.is_some_and(|stop| stop < grace_until) {
            Instant::now()
        } else {
            deadline
        }
    };
    let waited = subject.run(line, &[("FORERUN_GRACE", format!("{:.3}", grace.as_secs_f64()))], until)?;
    match waited.status {
        Some(status) if status.success() => Ok(()),
        Some(status) => Err(waited.tail.told(format!("its stop line ended with {status}"))),
        None => Err(waited.tail.told("its stop line was not over in time".to_owned())),
    }
}

/// Asks until it says that it does not run any more; false if that takes too long, or something else is told.
fn gone(subject: &Subject, leash: &Leash, grace_until: Instant) -> bool {
    let until = grace_until.max(Instant::now()) + GONE_WITHIN;
    let told = leash.told();
    let mut pause = LOOK_PAUSE;
    loop {
        match subject.state(ASK_WITHIN) {
            Some(State::Runs(_) | State::Unknown(_)) => {}
            _ => return true,
        }
        if Instant::now() >= until || leash.wait(pause, told) != told {
            return false;
        }
        pause = (pause * 2).min(LOOK_PAUSE_MAX);
    }
}
