//! Readiness, phases and timers.

use super::{Done, Keeper, NO_RUN, Source};
use crate::process::probe::{self, Probe, Verdict};
use crate::process::run::{Outcome, Phase, after};
use crate::process::spawn::Job;
use crate::process::why;
use forerun_types::{Event, InstanceId, Readiness, Span};
use rustix::event::epoll::{self, EventFlags};
use std::net::SocketAddr;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

impl Keeper {
    /// Looks whether an instance is ready, or arranges for the answer to come.
    pub(super) fn look(&mut self, serial: u64, now: Instant) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let Phase::Starting { probe, probes, .. } = &mut run.phase else { return };
        if run.spec.ready == Readiness::None {
            let port = run.port;
            return self.ready(serial, SocketAddr::from(([127, 0, 0, 1], port)));
        }
        let attempt = *probes;
        *probes = probes.wrapping_add(1);
        let Some(mut fresh) = Probe::begin(&run.spec.ready, run.port, attempt, now) else {
            return self.look_later(serial, now);
        };
        match fresh.step() {
            Verdict::Ready => self.ready(serial, fresh.address()),
            Verdict::NotYet => self.look_later(serial, now),
            Verdict::Pending => {
                // Edge-triggered: every event moves it as far as it goes.
                let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
                let watched = epoll::add(&self.queue, &fresh, Source::Probe.token(serial), flags);
                if watched.is_err() {
                    return self.look_later(serial, now);
                }
                *probe = Some(fresh);
                self.reschedule(serial);
            }
        }
    }

    pub(super) fn on_probe(&mut self, serial: u64) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let Phase::Starting { probe: Some(probe), .. } = &mut run.phase else { return };
        match probe.step() {
            Verdict::Pending => {}
            Verdict::Ready => {
                let address = probe.address();
                self.ready(serial, address);
            }
            Verdict::NotYet => self.look_later(serial, Instant::now()),
        }
    }

    fn look_later(&mut self, serial: u64, now: Instant) {
        let starting = self.starting;
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let pause = probe::pause(now.duration_since(run.ordered), starting);
        if let Phase::Starting { probe, look_at, .. } = &mut run.phase {
            if let Some(probe) = probe.take() {
                let _ = epoll::delete(&self.queue, &probe);
            }
            *look_at = now + pause;
        }
        self.reschedule(serial);
    }

    pub(super) fn ready(&mut self, serial: u64, address: SocketAddr) {
        let now = Instant::now();
        let Some(run) = self.runs.get(&serial) else { return };
        if let Some(errand) = self.preload(serial, address, now) {
            self.enter(serial, Phase::Warming { address, settled_at: None });
            return self.send_out(serial, errand, Done::Preloaded(Vec::new()));
        }
        match run.spec.settle {
            Span::ZERO => self.serve(serial, address, now),
            _ => self.settle(serial, address, now),
        }
    }

    /// Leaves it alone for a while, if that is wished.
    pub(super) fn settle(&mut self, serial: u64, address: SocketAddr, now: Instant) {
        let Some(run) = self.runs.get(&serial) else { return };
        let settled_at = Some(after(now, run.spec.settle.into()));
        self.enter(serial, Phase::Warming { address, settled_at });
    }

    fn serve(&mut self, serial: u64, address: SocketAddr, now: Instant) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let (instance, took) = (run.instance, now.duration_since(run.ordered).into());
        run.usage_due = now;
        self.enter(serial, Phase::Ready { address });
        (self.wiring.sink)(Event::Ready { instance, address, took });
    }

    /// Goes to another phase and closes what the old one had open.
    pub(super) fn enter(&mut self, serial: u64, phase: Phase) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let starts = matches!(phase, Phase::Starting { .. });
        let old = std::mem::replace(&mut run.phase, phase);
        if let Phase::Starting { probe, .. } = &old {
            self.starting -= 1;
            if let Some(probe) = probe {
                let _ = epoll::delete(&self.queue, probe);
            }
        }
        self.starting += usize::from(starts);
        self.reschedule(serial);
    }

    /// Nothing of the attempt is left: forgets it, then tells.
    pub(super) fn finish(&mut self, serial: u64, outcome: Outcome) {
        let Some(mut run) = self.runs.remove(&serial) else { return };
        self.serials.remove(&run.instance);
        if let Some(due) = run.timer.take() {
            self.timers.remove(&(due, serial));
        }
        if !run.queued {
            self.give_back(run.port);
        }
        if let Some(process) = &run.process {
            if let Some(output) = &process.output {
                let _ = epoll::delete(&self.queue, output);
            }
            // If the spawner has ended, so has its book.
            let _ = self.wiring.jobs.send(Job::Gone { session: process.pid.as_raw_pid() });
        }
        match outcome {
            Outcome::Retry => self.begin(run.instance, run.spec, run.ordered, run.attempt + 1),
            outcome => self.tell(run.instance, outcome),
        }
    }

    /// Gives a port back, or on to the instance that waits for it longest.
    fn give_back(&mut self, port: u16) {
        self.ports.give_back(port);
        let waiting = self.runs.iter().filter(|(_, run)| run.queued && run.port == port).map(|(s, _)| *s);
        let Some(serial) = waiting.min() else { return };
        if let Some(mut run) = self.runs.remove(&serial) {
            if let Some(due) = run.timer.take() {
                self.timers.remove(&(due, serial));
            }
            self.begin(run.instance, run.spec, run.ordered, run.attempt);
        }
    }

    /// Ends an instance's life in the ledger and tells how it ended.
    pub(super) fn tell(&mut self, instance: InstanceId, outcome: Outcome) {
        self.wiring.ledger.lock().unwrap_or_else(PoisonError::into_inner).end(instance);
        (self.wiring.sink)(match outcome {
            Outcome::StartFailed(why) => Event::StartFailed { instance, why },
            Outcome::Died(why) => Event::Died { instance, why },
            Outcome::Stopped | Outcome::Retry => Event::Stopped { instance },
        });
    }

    pub(super) fn reschedule(&mut self, serial: u64) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let due = run.due();
        if due == run.timer {
            return;
        }
        if let Some(old) = std::mem::replace(&mut run.timer, due) {
            self.timers.remove(&(old, serial));
        }
        if let Some(due) = due {
            self.timers.insert((due, serial));
        }
    }

    /// Does all that is due by `now`. Each timer that fires moves to later or goes, so this ends.
    pub(super) fn on_time(&mut self, now: Instant) {
        while let Some((due, serial)) = self.timers.first().copied().filter(|(due, _)| *due <= now) {
            self.timers.remove(&(due, serial));
            if serial == NO_RUN {
                self.on_tick(now);
                continue;
            }
            if let Some(run) = self.runs.get_mut(&serial) {
                run.timer = None;
                self.on_due(serial, now);
                self.reschedule(serial);
            }
        }
    }

    fn on_due(&mut self, serial: u64, now: Instant) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let deadline = run.start_deadline();
        match &mut run.phase {
            Phase::Spawning { .. } if run.queued => {
                let why = format!("another instance had its port {} for all of its start_timeout", run.port);
                self.finish(serial, Outcome::StartFailed(why));
            }
            Phase::Spawning { .. } | Phase::Ready { .. } => {}
            Phase::Warming { settled_at: Some(_), address } => {
                let address = *address;
                self.serve(serial, address, now);
            }
            // Its preload has a deadline of its own.
            Phase::Warming { settled_at: None, .. } => {}
            Phase::Starting { .. } if now >= deadline => {
                let why = why::with_lines(format!("not ready after {}", run.spec.start_timeout), &run.tail);
                self.end(serial, Outcome::StartFailed(why), Duration::ZERO, now);
            }
            Phase::Starting { probe: Some(_), .. } => self.look_later(serial, now),
            Phase::Starting { probe: None, .. } => self.look(serial, now),
            Phase::Ending { kill_at, sweep, .. } => {
                if kill_at.is_some_and(|at| now >= at) {
                    *kill_at = None;
                    // Before its first process is reaped the number is surely its own; after that the sweep kills
                    // what it finds.
                    if sweep.is_none()
                        && let Some(process) = &run.process
                    {
                        process.kill();
                    }
                }
                self.sweep(serial, now);
            }
        }
    }
}
