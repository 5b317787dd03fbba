//! The instances of the world of requests, found in constant time by the rules that ask for them.

use forerun_types::{Span, Time};
use std::collections::{BTreeMap, VecDeque};

/// A place in the table, and which instance is meant if the place has been given again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    place: u32,
    seq: u64,
}

impl Key {
    /// Given to another once the instance is gone.
    pub(crate) fn place(self) -> usize {
        self.place as usize
    }
}

/// How far back [`Instances::ready_by`] looks.
const YOUNG: Span = Span::from_secs(60);

#[derive(Clone, Copy, Debug)]
pub(crate) struct Instance {
    pub(crate) service: u32,
    pub(crate) born: Time,
    pub(crate) ready: Time,
    /// Started because a request waited for it.
    pub(crate) for_request: bool,
    pub(crate) served: bool,
    active: u32,
    /// When its last request ended, or it was born.
    pub(crate) used: Time,
    busy_since: Time,
    seq: u64,
}

/// Free instances of a service are listed in order of last use: only the present is ever appended.
#[derive(Debug, Default)]
struct Service {
    free: VecDeque<Key>,
    count: u32,
    /// Those that were not ready a while ago, and when they are, in that order.
    young: VecDeque<(Time, Key)>,
    /// Order in which services were first asked about: it decides between instances used at the same instant.
    rank: Option<u32>,
}

#[derive(Debug)]
pub(crate) struct Instances {
    table: Vec<Instance>,
    places: Vec<u32>,
    services: Vec<Service>,
    slots: Vec<u32>,
    total: u32,
    seq: u64,
    ranks: u32,
    /// Idle instances of all services in order of last use, kept only where evictions occur.
    idle: Option<BTreeMap<(Time, u32, u64), u32>>,
}

impl Instances {
    /// `slots` are the requests that an instance of each service serves at a time.
    pub(crate) fn new(slots: &[u32], evicting: bool) -> Self {
        let mut all = Vec::new();
        all.resize_with(slots.len(), Service::default);
        Self {
            table: Vec::new(),
            places: Vec::new(),
            services: all,
            slots: slots.to_vec(),
            total: 0,
            seq: 0,
            ranks: 0,
            idle: evicting.then(BTreeMap::new),
        }
    }

    pub(crate) fn get(&self, key: Key) -> &Instance {
        &self.table[key.place as usize]
    }

    pub(crate) fn get_mut(&mut self, key: Key) -> &mut Instance {
        &mut self.table[key.place as usize]
    }

    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    pub(crate) fn count(&self, service: u32) -> u32 {
        self.services[service as usize].count
    }

    /// How many of what exists of a service were ready at a time, which is no longer ago than a minute.
    pub(crate) fn ready_by(&self, service: u32, at: Time) -> u32 {
        let s = &self.services[service as usize];
        let later = s.young.iter().rev().take_while(|y| y.0 > at);
        s.count - later.filter(|y| self.get(y.1).seq == y.1.seq).count() as u32
    }

    /// Requests that an instance of a service serves at a time.
    pub(crate) fn slots(&self, service: u32) -> u32 {
        self.slots[service as usize]
    }

    pub(crate) fn touch(&mut self, service: u32) {
        let rank = &mut self.services[service as usize].rank;
        if rank.is_none() {
            *rank = Some(self.ranks);
            self.ranks += 1;
        }
    }

    /// Still there, and with nothing to do.
    pub(crate) fn is_idle(&self, key: Key) -> bool {
        let instance = self.get(key);
        instance.seq == key.seq && instance.active == 0
    }

    pub(crate) fn add(&mut self, service: u32, now: Time, ready: Time, for_request: bool) -> Key {
        self.seq += 1;
        let instance = Instance {
            service,
            born: now,
            ready,
            for_request,
            served: false,
            active: 0,
            used: now,
            busy_since: now,
            seq: self.seq,
        };
        let place = match self.places.pop() {
            Some(place) => {
                self.table[place as usize] = instance;
                place
            }
            None => {
                self.table.push(instance);
                self.table.len() as u32 - 1
            }
        };
        let key = Key { place, seq: self.seq };
        self.total += 1;
        let s = &mut self.services[service as usize];
        s.count += 1;
        s.free.push_back(key);
        while s.young.front().is_some_and(|y| y.0 + YOUNG < now) {
            s.young.pop_front();
        }
        s.young.push_back((ready, key));
        self.idle_insert(key);
        key
    }

    /// Takes an idle instance out.
    pub(crate) fn remove(&mut self, key: Key) -> Instance {
        self.idle_remove(key);
        self.unlist(key);
        let instance = *self.get(key);
        // No key that is still about means this place any more.
        self.get_mut(key).seq = 0;
        self.places.push(key.place);
        self.total -= 1;
        self.services[instance.service as usize].count -= 1;
        instance
    }

    /// One more request, which begins at `begin`.
    pub(crate) fn take(&mut self, key: Key, begin: Time) {
        let slots = self.slots(self.get(key).service);
        if self.get(key).active == 0 {
            self.idle_remove(key);
            self.get_mut(key).busy_since = begin;
        }
        let instance = self.get_mut(key);
        instance.active += 1;
        if instance.active == slots {
            self.unlist(key);
        }
    }

    /// One request less; since when it was busy if that was the last.
    pub(crate) fn finish(&mut self, key: Key, now: Time) -> Option<Time> {
        if self.get(key).active < self.slots(self.get(key).service) {
            self.unlist(key);
        }
        let instance = self.get_mut(key);
        instance.active -= 1;
        instance.used = now;
        let (service, idle, since) = (instance.service, instance.active == 0, instance.busy_since);
        self.services[service as usize].free.push_back(key);
        if idle {
            self.idle_insert(key);
        }
        idle.then_some(since)
    }

    /// The free ready instance that was used last; of several, the oldest.
    pub(crate) fn most_recent_ready(&self, service: u32, now: Time) -> Option<Key> {
        let mut best: Option<(Time, Key)> = None;
        for &key in self.services[service as usize].free.iter().rev() {
            let instance = self.get(key);
            if best.is_some_and(|(used, _)| instance.used < used) {
                break;
            }
            if instance.ready <= now && best.is_none_or(|(_, b)| key.seq < b.seq) {
                best = Some((instance.used, key));
            }
        }
        best.map(|(_, key)| key)
    }

    /// The starting instance with room that is ready first. Those that start were last "used" when they were born,
    /// so they too stand in order.
    pub(crate) fn soonest_ready(&self, service: u32, now: Time) -> Option<Key> {
        self.services[service as usize].free.iter().copied().find(|&key| self.get(key).ready > now)
    }

    /// The idle instance of a service that was used least recently; of several, the oldest.
    pub(crate) fn least_recent_idle(&self, service: u32) -> Option<Key> {
        let mut best: Option<(Time, Key)> = None;
        for &key in &self.services[service as usize].free {
            let instance = self.get(key);
            if best.is_some_and(|(used, _)| instance.used > used) {
                break;
            }
            if instance.active == 0 && best.is_none_or(|(_, b)| key.seq < b.seq) {
                best = Some((instance.used, key));
            }
        }
        best.map(|(_, key)| key)
    }

    /// Idle instances of all services, the least recently used first. Only where evictions occur.
    pub(crate) fn idle(&self) -> impl Iterator<Item = Key> + '_ {
        self.idle.iter().flatten().map(|(&(_, _, seq), &place)| Key { place, seq })
    }

    /// All that exist.
    pub(crate) fn all(&self) -> Vec<Key> {
        let key =
            |(place, i): (usize, &Instance)| (i.seq > 0).then_some(Key { place: place as u32, seq: i.seq });
        self.table.iter().enumerate().filter_map(key).collect()
    }

    /// Out of the free list; those at its ends, which are asked for most, are found at once.
    fn unlist(&mut self, key: Key) {
        let free = &mut self.services[self.table[key.place as usize].service as usize].free;
        if free.front() == Some(&key) {
            free.pop_front();
        } else if let Some(at) = free.iter().rposition(|k| *k == key) {
            free.remove(at);
        }
    }

    fn idle_key(&self, key: Key) -> (Time, u32, u64) {
        let instance = self.get(key);
        (instance.used, self.services[instance.service as usize].rank.unwrap_or_default(), key.seq)
    }

    fn idle_insert(&mut self, key: Key) {
        let at = self.idle_key(key);
        if let Some(idle) = &mut self.idle {
            idle.insert(at, key.place);
        }
    }

    fn idle_remove(&mut self, key: Key) {
        let at = self.idle_key(key);
        if let Some(idle) = &mut self.idle {
            idle.remove(&at);
        }
    }
}
