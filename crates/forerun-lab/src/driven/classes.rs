//! What each SLA class got: how its requests waited, and what it held of the capacity.
//!
//! Counted in the world that the core decides in, where who waits for room is served in the order that the core says;
//! the world that scores decisions knows no classes.

use super::Fleet;
use crate::options::Capacity;
use crate::requests::Requests;
use crate::scores::{ClassScores, waits};
use crate::{Options, scores::ratio};
use forerun_types::{Span, Time};
use std::collections::BTreeMap;

/// One class's account.
#[derive(Debug)]
struct Account {
    name: String,
    latency: Span,
    guarantee_milli: u32,
    /// Instances or bytes that are its own.
    own: u64,
    held: u64,
    requests: u64,
    cold: u64,
    refused: u64,
    waits: Vec<u64>,
    /// Instances or bytes, times microseconds.
    held_us: u128,
    short: Span,
}

#[derive(Debug)]
pub(super) struct Accounts {
    classes: Vec<Account>,
    /// By service: its class, and how long a router would hold its requests.
    of: Vec<(usize, Span)>,
    /// Instances or bytes that one instance takes, by service.
    takes: Vec<u64>,
    capacity: u64,
    scored: Vec<bool>,
    from: Time,
    horizon: Time,
}

impl Accounts {
    /// `None` where the configuration says nothing of any service.
    pub(super) fn new(requests: &Requests<'_>, options: &Options) -> Option<Self> {
        if options.services.is_empty() {
            return None;
        }
        let capacity = match options.world.capacity {
            Capacity::Unlimited => 0,
            Capacity::Instances(most) => u64::from(most),
            Capacity::Bytes(most) => most,
        };
        let specs: Vec<_> = requests.trace.services.iter().map(|name| options.services.get(name)).collect();
        let class = |at: usize| specs[at].map(|s| s.sla.clone()).unwrap_or_default();
        let mut by_name: BTreeMap<String, usize> = BTreeMap::new();
        let (mut classes, mut of) = (Vec::new(), Vec::new());
        for (at, spec) in specs.iter().enumerate() {
            let sla = class(at);
            let next = classes.len();
            let number = *by_name.entry(sla.name.clone()).or_insert(next);
            if number == next {
                let own = (u128::from(capacity) * u128::from(sla.guarantee_milli) / 1_000) as u64;
                classes.push(Account {
                    name: sla.name,
                    latency: sla.latency,
                    guarantee_milli: sla.guarantee_milli,
                    own,
                    held: 0,
                    requests: 0,
                    cold: 0,
                    refused: 0,
                    waits: Vec::new(),
                    held_us: 0,
                    short: Span::ZERO,
                });
            }
            let hold = spec.map(|s| s.hold).unwrap_or_default();
            of.push((number, hold.timeout));
        }
        let takes = match options.world.capacity {
            Capacity::Bytes(_) => requests.memory_known.clone(),
            _ => vec![1; of.len()],
        };
        let scored = requests.scored.clone();
        Some(Self { classes, of, takes, capacity, scored, from: requests.from, horizon: requests.horizon })
    }

    /// An instance of a service is reserved for from now on, or no longer.
    pub(super) fn reserved(&mut self, service: usize, is: bool) {
        let (held, takes) = (&mut self.classes[self.of[service].0].held, self.takes[service]);
        *held = if is { *held + takes } else { held.saturating_sub(takes) };
    }

    /// A request that came at `at` was placed after `waited`; `cold` if nothing that takes it was there when it came.
    pub(super) fn placed(&mut self, service: usize, at: Time, waited: Span, cold: bool) {
        if at < self.from || !self.scored[service] {
            return;
        }
        let (class, hold) = self.of[service];
        let account = &mut self.classes[class];
        account.requests += 1;
        account.cold += u64::from(cold);
        account.refused += u64::from(waited > hold);
        if waited > Span::ZERO {
            account.waits.push(waited.0);
        }
    }

    /// Time passes while requests of some services wait with no instance on its way for them.
    fn pass(&mut self, from: Time, to: Time, lacking: impl Iterator<Item = usize>) {
        let (from, to) = (from.max(self.from), to.min(self.horizon));
        let span = if to > from { to.since(from) } else { return };
        for account in &mut self.classes {
            account.held_us += u128::from(account.held) * u128::from(span.0);
        }
        let mut short: Vec<usize> = Vec::new();
        for service in lacking {
            let class = self.of[service].0;
            let account = &self.classes[class];
            if account.held + self.takes[service] <= account.own && !short.contains(&class) {
                short.push(class);
            }
        }
        short.into_iter().for_each(|class| self.classes[class].short = self.classes[class].short + span);
    }

    fn scores(self) -> Vec<ClassScores> {
        let all = u128::from(self.capacity) * u128::from(self.horizon.since(self.from).0);
        let mut scores: Vec<ClassScores> = self
            .classes
            .into_iter()
            .map(|account| ClassScores {
                class: account.name,
                guarantee: f64::from(account.guarantee_milli) / 1e3,
                latency_seconds: account.latency.as_secs_f64(),
                requests: account.requests,
                cold_starts: account.cold,
                cold_start_ratio: ratio(account.cold, account.requests),
                refused: account.refused,
                added_wait_seconds: waits(account.waits, account.requests),
                share_held: if all == 0 { 0.0 } else { account.held_us as f64 / all as f64 },
                share_short_seconds: account.short.as_secs_f64(),
            })
            .collect();
        scores.sort_by(|a, b| a.class.cmp(&b.class));
        scores
    }
}

impl Fleet {
    /// Before the time is another.
    pub(super) fn account_until(&mut self, at: Time) {
        let Some(accounts) = &mut self.classes else { return };
        let lacking = self.services.iter().enumerate().filter(|(_, s)| !s.unbound.is_empty());
        accounts.pass(self.now, at, lacking.map(|(at, _)| at));
    }

    /// What was never placed has waited to the end; then the accounts are closed.
    pub(super) fn close_accounts(&mut self, requests: &Requests<'_>) {
        let Some(mut accounts) = self.classes.take() else { return };
        let unbound = self.services.iter().flat_map(|s| s.unbound.iter().copied());
        let bound = self.instances.iter().flat_map(|i| i.bound.iter().copied());
        for request in unbound.chain(bound) {
            let event = &requests.trace.events[request as usize];
            accounts.placed(event.service.0 as usize, event.at, self.now.since(event.at), true);
        }
        self.out.classes = accounts.scores();
    }
}
