//! The nominal timeline: when each instance of a service would be in use if no request ever waited.

use crate::requests::Requests;
use forerun_types::{Span, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Shorter requests count as this long, so that no use is without length.
const USE_MIN: Span = Span::from_millis(1);

/// One use of one level, the l-th instance of a service at once, and the gap that follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Use {
    pub(crate) service: u32,
    /// Levels of all services, numbered through.
    pub(crate) level: u32,
    pub(crate) from: Time,
    pub(crate) to: Time,
    /// When the same level is used again.
    pub(crate) next: Option<Time>,
    /// Levels of a service in the order in which they were first free again.
    rank: u32,
}

#[derive(Default)]
struct Service {
    /// Requests that one instance serves at a time.
    slots: u32,
    running: u32,
    freed: u32,
    levels: Vec<Level>,
}

#[derive(Clone, Copy, Default)]
struct Level {
    from: Time,
    number: u32,
    rank: u32,
    last: Option<usize>,
}

/// All uses in order of their ends.
pub(crate) fn uses(requests: &Requests<'_>) -> (Vec<Use>, u32) {
    let service = |&slots| Service { slots, ..Service::default() };
    let services = requests.slots.iter().map(service).collect();
    let mut line = Line { services, ..Line::default() };
    let mut ends: BinaryHeap<Reverse<(Time, u32)>> = BinaryHeap::new();
    for event in &requests.trace.events {
        while let Some(&Reverse((at, service))) = ends.peek()
            && at <= event.at
        {
            ends.pop();
            line.end(at, service);
        }
        line.begin(event.at, event.service.0);
        ends.push(Reverse((event.at + requests.duration(event).max(USE_MIN), event.service.0)));
    }
    while let Some(Reverse((at, service))) = ends.pop() {
        line.end(at, service);
    }
    // Stable, and all but done: only uses that end at one instant are put in order.
    line.uses.sort_by_key(|u| (u.to, u.service, u.rank));
    (line.uses, line.levels)
}

#[derive(Default)]
struct Line {
    services: Vec<Service>,
    uses: Vec<Use>,
    levels: u32,
}

impl Service {
    fn needed(&self, requests: u32) -> usize {
        requests.div_ceil(self.slots) as usize
    }
}

impl Line {
    fn begin(&mut self, at: Time, service: u32) {
        let s = &mut self.services[service as usize];
        let (before, after) = (s.needed(s.running), s.needed(s.running + 1));
        s.running += 1;
        if after == before {
            return;
        }
        if s.levels.len() < after {
            s.levels.push(Level { number: self.levels, ..Level::default() });
            self.levels += 1;
        }
        let level = &mut s.levels[before];
        level.from = at;
        if let Some(last) = level.last {
            self.uses[last].next = Some(at);
        }
    }

    fn end(&mut self, at: Time, service: u32) {
        let s = &mut self.services[service as usize];
        let (before, after) = (s.needed(s.running), s.needed(s.running - 1));
        s.running -= 1;
        if after == before {
            return;
        }
        let level = &mut s.levels[after];
        if level.last.is_none() {
            level.rank = s.freed;
            s.freed += 1;
        }
        level.last = Some(self.uses.len());
        let Level { from, number, rank, .. } = *level;
        self.uses.push(Use { service, level: number, from, to: at, next: None, rank });
    }
}
