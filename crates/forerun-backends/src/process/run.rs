//! One attempt to run an instance, and the states that it goes through.

use super::probe::Probe;
use super::spawn::Process;
use crate::output::Tail;
use forerun_types::{InstanceId, Readiness, ServiceSpec, Span};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// What is told of an attempt once nothing of it is left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// Nothing: the port was taken, and another is tried.
    Retry,
    StartFailed(String),
    Died(String),
    Stopped,
}

/// Waits for every member of a session to be gone.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sweep {
    pub(super) due: Instant,
    /// The count that was asked for, once it was due.
    pub(super) count: Option<u64>,
    pub(super) pause: Duration,
}

impl Sweep {
    const PAUSE_MAX: Duration = Duration::from_millis(50);

    pub(super) fn now(now: Instant) -> Self {
        Self { due: now, count: None, pause: Duration::from_millis(1) }
    }

    pub(super) fn again(self, now: Instant) -> Self {
        let pause = (self.pause * 2).min(Self::PAUSE_MAX);
        Self { due: now + pause, count: None, pause }
    }
}

#[derive(Debug)]
pub(super) enum Phase {
    /// The spawner has it. A stop that comes meanwhile waits with its grace.
    Spawning {
        stop: Option<Duration>,
    },
    Starting {
        probe: Option<Probe>,
        probes: u32,
        /// When to look next; unused while a probe is on its way.
        look_at: Instant,
    },
    Ready,
    Ending {
        outcome: Outcome,
        /// When patience ends; `None` once the session has been killed.
        kill_at: Option<Instant>,
        /// Once its first process has ended.
        sweep: Option<Sweep>,
    },
}

#[derive(Debug)]
pub(super) struct Run {
    pub(super) instance: InstanceId,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) ordered: Instant,
    pub(super) attempt: u32,
    pub(super) port: u16,
    /// The port is still another instance's: nothing has been spawned yet.
    pub(super) queued: bool,
    pub(super) phase: Phase,
    pub(super) process: Option<Process>,
    pub(super) tail: Tail,
    /// Its entry among the timers.
    pub(super) timer: Option<Instant>,
    pub(super) usage_due: Instant,
    /// The most CPU time seen: a member that ends unawaited takes its own out of the sum.
    pub(super) cpu: Span,
}

impl Run {
    pub(super) fn start_deadline(&self) -> Instant {
        after(self.ordered, self.spec.start_timeout.into())
    }

    /// When it has to be looked at next if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Spawning { .. } if self.queued => Some(self.start_deadline()),
            Phase::Spawning { .. } | Phase::Ready => None,
            Phase::Starting { probe, look_at, .. } => {
                let next = match (&self.spec.ready, probe) {
                    (Readiness::Log { .. }, _) => return Some(self.start_deadline()),
                    (_, Some(probe)) => probe.until(),
                    (_, None) => *look_at,
                };
                Some(next.min(self.start_deadline()))
            }
            Phase::Ending { kill_at, sweep, .. } => {
                let sweep = sweep.filter(|sweep| sweep.count.is_none()).map(|sweep| sweep.due);
                [*kill_at, sweep].into_iter().flatten().min()
            }
        }
    }

    pub(super) fn session(&self) -> Option<i32> {
        self.process.as_ref().map(|process| process.pid.as_raw_pid())
    }

    /// Takes what it printed. Returns whether the text that makes it ready is there and was waited for.
    pub(super) fn heard(&mut self, bytes: &[u8]) -> bool {
        let wanted = match (&self.phase, &self.spec.ready) {
            (Phase::Starting { .. }, Readiness::Log { text }) => Some(text.as_str()),
            _ => None,
        };
        self.tail.push(bytes, wanted)
    }

    /// What its end by itself means now.
    pub(super) fn ended(&self, why: String, attempts_max: u32) -> Outcome {
        if !matches!(self.phase, Phase::Starting { .. }) {
            return Outcome::Died(why);
        }
        let port_taken = self.tail.mentions(&["address already in use", "address in use", "eaddrinuse"]);
        match port_taken {
            true if self.attempt < attempts_max => Outcome::Retry,
            true => Outcome::StartFailed(format!(
                "its port was taken, {} times in a row (does it listen on $PORT?): {why}",
                self.attempt
            )),
            false => Outcome::StartFailed(format!("ended before it was ready: {why}")),
        }
    }

    /// What being ended by Forerun for a fault means now.
    pub(super) fn faulted(&self, why: String) -> Outcome {
        match self.phase {
            Phase::Ready => Outcome::Died(why),
            _ => Outcome::StartFailed(why),
        }
    }
}

/// An instant far enough away where the sum is out of range.
pub(super) fn after(start: Instant, wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    start + wait.min(YEAR)
}
