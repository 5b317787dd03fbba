//! One attempt to run an instance, and the states that it goes through.

use super::probe::Probe;
use super::procfs::Watched;
use super::spawn::Process;
use crate::output::Tail;
use forerun_types::{InstanceId, Readiness, ServiceSpec, Span};
use std::collections::VecDeque;
use std::net::SocketAddr;
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
    /// Whether what is left has been asked to end.
    pub(super) asked: bool,
}

impl Sweep {
    const PAUSE_MAX: Duration = Duration::from_millis(50);

    pub(super) fn now(now: Instant) -> Self {
        Self { due: now, count: None, pause: Duration::from_millis(1), asked: false }
    }

    pub(super) fn again(self, now: Instant) -> Self {
        let pause = (self.pause * 2).min(Self::PAUSE_MAX);
        Self { due: now + pause, count: None, pause, ..self }
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
    /// It answers, and is not told of yet: its key's data is fetched, or it is left alone until then.
    Warming {
        address: SocketAddr,
        settled_at: Option<Instant>,
    },
    Ready {
        address: SocketAddr,
    },
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
    /// Its CPU time at the last few counts, about a second apart.
    pub(super) cpu_seen: VecDeque<(Instant, Span)>,
    /// Frozen, or about to be.
    pub(super) paused: bool,
    /// An errand that changes it is under way.
    pub(super) changing: bool,
}

/// Counts of CPU time that are kept: the last seconds.
const CPU_SEEN_MAX: usize = 6;
/// Less than this between two of them tells little: a clock tick is a hundredth of a second.
const CPU_SEEN_EVERY: Duration = Duration::from_millis(900);

impl Run {
    pub(super) fn start_deadline(&self) -> Instant {
        after(self.ordered, self.spec.start_timeout.into())
    }

    /// When it has to be looked at next if nothing happens before.
    pub(super) fn due(&self) -> Option<Instant> {
        match &self.phase {
            Phase::Spawning { .. } if self.queued => Some(self.start_deadline()),
            Phase::Spawning { .. } | Phase::Ready { .. } => None,
            Phase::Warming { settled_at, .. } => *settled_at,
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

    pub(super) fn watched(&self) -> Option<Watched> {
        let process = self.process.as_ref()?;
        Some(Watched { session: process.pid.as_raw_pid(), group: process.group.clone() })
    }

    pub(super) fn see_cpu(&mut self, now: Instant) {
        if self.cpu_seen.back().is_some_and(|(at, _)| now.duration_since(*at) < CPU_SEEN_EVERY) {
            return;
        }
        if self.cpu_seen.len() >= CPU_SEEN_MAX {
            self.cpu_seen.pop_front();
        }
        self.cpu_seen.push_back((now, self.cpu));
    }

    /// CPU over the last seconds, in thousandths of a core; `None` until it has been counted twice.
    pub(super) fn cpu_milli(&self) -> Option<u64> {
        let ((from, before), (to, after)) = (self.cpu_seen.front()?, self.cpu_seen.back()?);
        let micros = u64::try_from(to.duration_since(*from).as_micros()).ok().filter(|micros| *micros > 0)?;
        Some(after.0.saturating_sub(before.0).saturating_mul(1000) / micros)
    }

    /// Why it is over its memory limit, if the kernel has killed something for it.
    pub(super) fn over_limit(&self) -> Option<String> {
        let oom = self.process.as_ref()?.group.as_ref()?.oom();
        (oom.kills > 0).then(|| over_limit(oom.peak_bytes, self.spec.resources.memory_bytes))
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
        match self.phase {
            Phase::Starting { .. } => {}
            Phase::Warming { .. } => {
                return Outcome::StartFailed(format!("ended before it was ready: {why}"));
            }
            _ => return Outcome::Died(why),
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
            Phase::Ready { .. } => Outcome::Died(why),
            _ => Outcome::StartFailed(why),
        }
    }
}

pub(super) fn over_limit(used_bytes: u64, limit_bytes: u64) -> String {
    // Where the kernel does not say how much it was: all that there was.
    let used_bytes = if used_bytes == 0 { limit_bytes } else { used_bytes };
    format!("used more memory than its limit ({} of {})", bytes(used_bytes), bytes(limit_bytes))
}

/// Decimal units, as everywhere in Forerun: `312.4 MB`.
fn bytes(bytes: u64) -> String {
    let value = bytes as f64;
    if value >= 1e9 { format!("{:.2} GB", value / 1e9) } else { format!("{:.1} MB", value / 1e6) }
}

/// An instant far enough away where the sum is out of range.
pub(super) fn after(start: Instant, wait: Duration) -> Instant {
    const YEAR: Duration = Duration::from_secs(365 * 86_400);
    start + wait.min(YEAR)
}

#[cfg(test)]
mod tests {
    #[test]
    fn memory_reads_in_decimal_units() {
        for (bytes, text) in [(0, "0.0 MB"), (312_400_000, "312.4 MB"), (1_500_000_000, "1.50 GB")] {
            assert_eq!(super::bytes(bytes), text);
        }
        assert_eq!(super::over_limit(0, 5_000_000), "used more memory than its limit (5.0 MB of 5.0 MB)");
    }
}
