//! The world of requests: plays decisions by fixed rules and counts what they cost.
//!
//! At one instant come first finishes and instances that are ready, then decisions, then arrivals. A request takes
//! the free ready instance that was used last; else the starting one with room that is ready soonest; else it has
//! one started, which goes again when done unless it is wanted. Above what is wanted, idle and unclaimed instances
//! stop, the least recently used first; busy ones go when done. At capacity a request first stops the idle instance
//! of any service that was used least recently; if all are busy it queues, first come first served.

use crate::instances::{Instances, Key};
use crate::requests::Requests;
use crate::steer::{Listed, Placed, Steer};
use crate::tally::{Part, Tally, Window};
use crate::{Capacity, Decision, World};
use forerun_types::{ServiceId, Span, Time};
use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

/// Plays `decisions` (in order of time) over the requests. `progress` is told of requests done, now and then.
pub(crate) fn play(
    requests: &Requests<'_>,
    decisions: &[Decision],
    world: &World,
    progress: &mut dyn FnMut(u64),
) -> Tally {
    steered(requests, Listed(decisions), world, requests.horizon, progress).tally
}

/// What came of a run, and what was wanted in it.
pub(crate) struct Steered {
    pub(crate) tally: Tally,
    /// Played by themselves, they lead to the same run.
    pub(crate) decisions: Vec<Decision>,
}

/// Plays the requests with what `steer` wants, which it is asked up to `until`.
pub(crate) fn steered<S: Steer>(
    requests: &Requests<'_>,
    steer: S,
    world: &World,
    until: Time,
    progress: &mut dyn FnMut(u64),
) -> Steered {
    let mut play = Play::new(requests, world, steer);
    let mut arrivals = requests.trace.events.iter().peekable();
    let mut wants = Vec::new();
    let mut done: u64 = 0;
    loop {
        let end = play.ends.peek().map_or(Time::NEVER, |e| e.0.at);
        let asked = play.steer.next();
        let decision = if asked <= until { asked } else { Time::NEVER };
        let arrival = arrivals.peek().map_or(Time::NEVER, |a| a.at);
        if end == Time::NEVER && decision == Time::NEVER && arrival == Time::NEVER {
            break;
        }
        if end <= decision && end <= arrival {
            play.end();
        } else if decision <= arrival {
            play.steer.decide(decision, &play.instances, &mut wants);
            for want in wants.drain(..) {
                play.want(&want);
            }
        } else if let Some(event) = arrivals.next() {
            let scored = event.at >= requests.from && requests.scored[event.service.0 as usize];
            let duration = requests.duration(event);
            play.arrive(Held { at: event.at, service: event.service.0, duration, scored });
            done += 1;
            if done.is_multiple_of(1 << 16) {
                progress(done);
            }
        }
    }
    let decisions = last_of_instants(std::mem::take(&mut play.record));
    play.close();
    Steered { tally: play.tally, decisions }
}

/// The last word on each service at each instant, in the order of first words.
fn last_of_instants(all: Vec<Decision>) -> Vec<Decision> {
    let mut kept: Vec<Decision> = Vec::with_capacity(all.len());
    let mut instant = 0;
    for decision in all {
        if kept.get(instant).is_some_and(|d| d.at != decision.at) {
            instant = kept.len();
        }
        match kept[instant..].iter_mut().find(|d| d.service == decision.service) {
            Some(earlier) => *earlier = decision,
            None => kept.push(decision),
        }
    }
    kept
}

/// A request that is not answered yet.
#[derive(Clone, Copy, Debug)]
struct Held {
    at: Time,
    service: u32,
    duration: Span,
    scored: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct End {
    at: Time,
    seq: u64,
    instance: Key,
}

struct Play<'a, S> {
    requests: &'a Requests<'a>,
    steer: S,
    record: Vec<Decision>,
    capacity: Capacity,
    window: Window,
    instances: Instances,
    wanted: Vec<u32>,
    /// Services below what is wanted for lack of room, by the rank of their names.
    short: BTreeSet<u32>,
    name_rank: Vec<u32>,
    by_rank: Vec<u32>,
    memory_used: u64,
    queue: VecDeque<Held>,
    ends: BinaryHeap<Reverse<End>>,
    seq: u64,
    tally: Tally,
}

impl<'a, S: Steer> Play<'a, S> {
    fn new(requests: &'a Requests<'a>, world: &World, steer: S) -> Self {
        let services = requests.services();
        let mut by_rank: Vec<u32> = (0..services as u32).collect();
        by_rank.sort_by_key(|&s| &requests.trace.services[s as usize]);
        let mut name_rank = vec![0; services];
        for (rank, &service) in by_rank.iter().enumerate() {
            name_rank[service as usize] = rank as u32;
        }
        Self {
            requests,
            steer,
            record: Vec::new(),
            capacity: world.capacity,
            window: Window { from: requests.from, to: requests.horizon },
            instances: Instances::new(&requests.slots, world.capacity != Capacity::Unlimited),
            wanted: vec![0; services],
            short: BTreeSet::new(),
            name_rank,
            by_rank,
            memory_used: 0,
            queue: VecDeque::new(),
            ends: BinaryHeap::new(),
            seq: 0,
            tally: Tally { services: vec![Part::default(); services], ..Tally::default() },
        }
    }

    fn end(&mut self) {
        let Some(Reverse(End { at, instance, .. })) = self.ends.pop() else { return };
        if let Some(busy_since) = self.instances.finish(instance, at) {
            let service = self.instances.get(instance).service;
            let busy = self.cost(service, busy_since, at, |t| &mut t.busy);
            self.tally.services[service as usize].waste -= busy;
        }
        let service = self.instances.get(instance).service;
        while let Some(&held) = self.queue.front() {
            if !self.serve(at, held) {
                break;
            }
            self.queue.pop_front();
        }
        // The instance may have been evicted, and its place taken, for one that queued.
        if self.instances.is_idle(instance) {
            self.trim(service, at);
        }
        self.refill(at);
    }

    fn want(&mut self, decision: &Decision) {
        let (at, service) = (decision.at, decision.service.0);
        self.wanted[service as usize] = decision.wanted;
        if S::RECORDS {
            self.record.push(*decision);
        }
        self.instances.touch(service);
        while self.instances.count(service) < decision.wanted && self.room(service) {
            self.start(service, at, false);
        }
        if self.instances.count(service) < decision.wanted {
            self.short.insert(self.name_rank[service as usize]);
        }
        self.trim(service, at);
        self.refill(at);
    }

    fn arrive(&mut self, held: Held) {
        self.steer.arrived(held.at, held.service);
        if held.scored {
            self.tally.requests += 1;
            self.tally.services[held.service as usize].requests += 1;
        }
        if !self.queue.is_empty() || !self.serve(held.at, held) {
            self.tally.queued += u64::from(held.scored);
            self.queue.push_back(held);
        }
    }

    /// Places a request; false if all that there is room for is busy.
    fn serve(&mut self, now: Time, held: Held) -> bool {
        self.instances.touch(held.service);
        if let Some(warm) = self.instances.most_recent_ready(held.service, now) {
            self.place(warm, now, held, false);
            return true;
        }
        let scored = u64::from(held.scored);
        if let Some(starting) = self.instances.soonest_ready(held.service, now) {
            self.tally.late += scored;
            self.place(starting, now, held, true);
            return true;
        }
        if !self.room(held.service) && !self.make_room(held.service, now) {
            return false;
        }
        let instance = self.start(held.service, now, true);
        self.place(instance, now, held, true);
        true
    }

    fn place(&mut self, key: Key, now: Time, held: Held, cold: bool) {
        let ready = self.instances.get(key).ready;
        let begin = now.max(ready);
        self.instances.take(key, begin);
        let instance = self.instances.get_mut(key);
        let first_ahead = !instance.for_request && !std::mem::replace(&mut instance.served, true);
        let counts_ahead = first_ahead && instance.born >= self.window.from;
        let tally = &mut self.tally;
        if counts_ahead && self.requests.scored[held.service as usize] {
            tally.ahead_used += 1;
            tally.ahead_met += u64::from(!cold);
        }
        if held.scored {
            tally.cold += u64::from(cold);
            tally.services[held.service as usize].cold += u64::from(cold);
            let wait = begin.since(held.at);
            if wait > Span::ZERO {
                tally.waits.push(wait.0);
            }
        }
        self.seq += 1;
        let end = begin + held.duration;
        self.steer.placed(&Placed { service: held.service, instance: key, begin, end });
        self.ends.push(Reverse(End { at: end, seq: self.seq, instance: key }));
    }

    fn start(&mut self, service: u32, now: Time, for_request: bool) -> Key {
        self.memory_used += self.requests.memory[service as usize];
        if now >= self.window.from && self.requests.scored[service as usize] {
            self.tally.starts += 1;
            self.tally.ahead += u64::from(!for_request);
        }
        let ready = now + self.requests.start[service as usize];
        let key = self.instances.add(service, now, ready, for_request);
        self.note_count(service, now);
        key
    }

    /// Where nothing but evictions stop anything, what exists is what was wanted.
    fn note_count(&mut self, service: u32, at: Time) {
        if S::KEEPS {
            let wanted = self.instances.count(service);
            self.record.push(Decision { at, service: ServiceId(service), wanted });
        }
    }

    fn stop(&mut self, key: Key, now: Time) {
        let instance = self.instances.remove(key);
        self.memory_used -= self.requests.memory[instance.service as usize];
        let there = self.cost(instance.service, instance.born, now, |t| &mut t.alloc);
        self.tally.services[instance.service as usize].waste += there;
        self.cost(instance.service, instance.born, now.min(instance.ready), |t| &mut t.starting);
        self.note_count(instance.service, now);
    }

    /// Memory that counts between two instants, byte-microseconds.
    fn cost(&mut self, service: u32, from: Time, to: Time, of: impl Fn(&mut Tally) -> &mut u128) -> i128 {
        if !self.requests.scored[service as usize] {
            return 0;
        }
        let memory = u128::from(self.requests.memory[service as usize]);
        let cost = memory * u128::from(self.window.span(from, to).0);
        *of(&mut self.tally) += cost;
        i128::try_from(cost).unwrap_or(i128::MAX)
    }

    fn room(&self, service: u32) -> bool {
        match self.capacity {
            Capacity::Unlimited => true,
            Capacity::Instances(most) => self.instances.total() < most,
            Capacity::Bytes(most) => self.memory_used + self.requests.memory[service as usize] <= most,
        }
    }

    /// Stops idle instances, the least recently used first unless the policy has an order of its own, until there is
    /// room; false, and nothing is stopped, if that does not suffice.
    fn make_room(&mut self, service: u32, now: Time) -> bool {
        if let Capacity::Bytes(most) = self.capacity {
            let memory = &self.requests.memory;
            let idle: u64 =
                self.instances.idle().map(|key| memory[self.instances.get(key).service as usize]).sum();
            if self.memory_used + memory[service as usize] > most + idle {
                return false;
            }
        }
        while !self.room(service) {
            let Some(victim) = self.steer.victim(now, &self.instances) else { return false };
            self.stop(victim, now);
        }
        true
    }

    fn trim(&mut self, service: u32, now: Time) {
        if S::KEEPS {
            return;
        }
        while self.instances.count(service) > self.wanted[service as usize] {
            let Some(victim) = self.instances.least_recent_idle(service) else { return };
            self.stop(victim, now);
        }
    }

    /// Starts what was wanted and had no room.
    fn refill(&mut self, now: Time) {
        let mut next = 0;
        while let Some(&rank) = self.short.range(next..).next() {
            next = rank + 1;
            let service = self.by_rank[rank as usize];
            let wanted = self.wanted[service as usize];
            while self.instances.count(service) < wanted && self.room(service) {
                self.start(service, now, false);
            }
            if self.instances.count(service) >= wanted {
                self.short.remove(&rank);
            }
            if matches!(self.capacity, Capacity::Instances(most) if self.instances.total() >= most) {
                return;
            }
        }
    }

    /// All that still exists costs up to the end of the trace.
    fn close(&mut self) {
        let horizon = self.requests.horizon;
        for key in self.instances.all() {
            self.stop(key, horizon);
        }
    }
}
