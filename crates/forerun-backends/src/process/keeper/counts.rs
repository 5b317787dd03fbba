//! What counts of the process table are for: usage, memory limits, and the proof that an instance is gone.

use super::{Keeper, NO_RUN};
use crate::process::census::Count;
use crate::process::procfs::{self, Session};
use crate::process::run::{Phase, Run, over_limit};
use crate::process::why;
use forerun_types::Event;
use rustix::process::Signal;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// Between looks at memory where it is limited. An instance can pass its limit by what it takes in that time.
const LIMIT_CHECK: Duration = Duration::from_millis(200);

impl Keeper {
    /// Asks for a count that begins after now and returns its number. One is under way at a time.
    fn ask_for_count(&mut self) -> u64 {
        if let Some(number) = self.counting {
            self.count_again = true;
            return number + 1;
        }
        self.last_count += 1;
        self.counting = Some(self.last_count);
        let sessions = self.runs.values().filter_map(Run::watched).collect();
        if self.wiring.counts.send(Count { number: self.last_count, sessions }).is_err() {
            tracing::error!("the census thread has ended: instances can no longer be seen to end");
        }
        self.last_count
    }

    pub(super) fn on_counted(&mut self, number: u64, sessions: &HashMap<i32, Session>, now: Instant) {
        self.counting = None;
        if std::mem::take(&mut self.count_again) {
            self.ask_for_count();
        }
        let serials: Vec<u64> = self.runs.keys().copied().collect();
        for serial in serials {
            let Some(run) = self.runs.get(&serial) else { continue };
            let Some(session) = run.session() else { continue };
            let found = sessions.get(&session);
            match &run.phase {
                Phase::Spawning { .. } => {}
                Phase::Starting { .. } | Phase::Warming { .. } | Phase::Ready { .. } => {
                    if let Some(found) = found {
                        self.on_usage(serial, found, now);
                    }
                }
                Phase::Ending { sweep, .. } => {
                    if sweep.and_then(|sweep| sweep.count).is_some_and(|wanted| wanted <= number) {
                        self.on_swept(serial, session, found, now);
                    }
                }
            }
        }
    }

    /// Asks for the count that shows whether anything of an ended session is left, when that is due.
    pub(super) fn sweep(&mut self, serial: u64, now: Instant) {
        let due = match self.runs.get(&serial).map(|run| &run.phase) {
            Some(Phase::Ending { sweep: Some(sweep), .. }) => sweep.count.is_none() && sweep.due <= now,
            _ => false,
        };
        if !due {
            return;
        }
        let number = self.ask_for_count();
        if let Some(run) = self.runs.get_mut(&serial)
            && let Phase::Ending { sweep: Some(sweep), .. } = &mut run.phase
        {
            sweep.count = Some(number);
        }
    }

    /// A session whose first process has ended is gone, or what is left of it is waited for, or killed.
    fn on_swept(&mut self, serial: u64, session: i32, found: Option<&Session>, now: Instant) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let Phase::Ending { outcome, kill_at, sweep: Some(sweep) } = &mut run.phase else { return };
        let Some(found) = found else {
            let outcome = outcome.clone();
            return self.finish(serial, outcome);
        };
        if kill_at.is_none() {
            procfs::kill_session(session, found);
            if let Some(group) = run.process.as_ref().and_then(|process| process.group.as_ref()) {
                group.kill();
            }
        } else if !std::mem::replace(&mut sweep.asked, true) {
            // The first group was asked already, with its first process.
            for member in found.members.iter().filter(|member| member.process_group != session) {
                procfs::signal_member(member, Signal::TERM);
                procfs::signal_member(member, Signal::CONT);
            }
        }
        *sweep = sweep.again(now);
        self.reschedule(serial);
    }

    fn on_usage(&mut self, serial: u64, found: &Session, now: Instant) {
        let Some(run) = self.runs.get_mut(&serial) else { return };
        let limit = run.spec.resources.memory_bytes;
        // What the kernel limits need not be watched, and is not summed up alike; but one process less may leave the
        // rest running.
        let limited = run
            .process
            .as_ref()
            .and_then(|process| process.group.as_ref())
            .is_some_and(|g| g.limits_memory());
        let watched =
            self.wiring.settings.limit_memory && limit > 0 && !limited && found.memory_bytes > limit;
        if watched || found.oom.kills > 0 {
            let used = if watched { found.memory_bytes } else { found.oom.peak_bytes };
            let what = over_limit(used, limit);
            let outcome = run.faulted(why::with_lines(what, &run.tail));
            return self.end(serial, outcome, Duration::ZERO, now);
        }
        run.cpu = run.cpu.max(found.cpu);
        run.see_cpu(now);
        if !matches!(run.phase, Phase::Ready { .. }) || now < run.usage_due {
            return;
        }
        // Counts come at about this pace themselves: one that is a little early must not be passed over.
        let every: Duration = self.wiring.settings.usage_every.into();
        run.usage_due = now + every * 9 / 10;
        let (instance, cpu) = (run.instance, run.cpu);
        (self.wiring.sink)(Event::InstanceUsage { instance, memory_bytes: found.memory_bytes, cpu });
    }

    pub(super) fn on_tick(&mut self, now: Instant) {
        self.tick = None;
        if self.runs.values().any(|run| run.process.is_some()) {
            self.ask_for_count();
            self.set_tick(now);
        }
    }

    pub(super) fn set_tick(&mut self, now: Instant) {
        let usage: Duration = self.wiring.settings.usage_every.into();
        // A hundredth of a second is a count that costs a good part of a core.
        let usage = usage.max(Duration::from_millis(10));
        let every = if self.wiring.settings.limit_memory { usage.min(LIMIT_CHECK) } else { usage };
        self.tick = Some(now + every);
        self.timers.insert((now + every, NO_RUN));
    }
}
