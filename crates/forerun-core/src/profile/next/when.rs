//! How long until a user's next step.
//!
//! The logs of gaps are counted in bins, after contexts of several kinds; each context speaks twice, with its bins as
//! they are and smeared over their neighbours, and what they say is blended by how well each has done so far, as in
//! the first stage of the next item. A user who has not come back yet has no gap to count: how many steps still wait
//! for their next one says how likely it is that none comes ([`When::chance_of_return`]).

use super::fast::exp;
use super::history::History;
use super::profile::Contexts;
use super::store::{Store, join};
use serde::{Deserialize, Serialize};

/// Width of a bin, in ln(1 + seconds).
const WIDTH: f32 = 0.125;
/// Up to e^20 seconds, fifteen years.
const BINS: usize = 160;
const CONTEXTS: usize = 16;
/// Bins over which a smeared count reaches to each side, at most. Below a few seconds it reaches less: times are whole
/// seconds, so "at once", one second and two stand apart, with nothing in between.
const REACH: usize = 5;
/// The bin of one second.
const ONE_SECOND: usize = 5;
const EXPERTS: usize = 2 * CONTEXTS + 1;
const TOTALS: usize = 8;
const RATE: f32 = 0.5;
const RATE_PLAIN: f32 = 0.2;
const OWN_FADE: u32 = 128;
const ALL_FADE: u32 = 20_000;
/// The quantiles that are told: .05, .1, ... .95.
pub const QUANTILES: usize = 19;

/// What is known of gaps, and the answer to the last question.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct When {
    store: Store,
    by_trust: Vec<f32>,
    plain: Vec<f32>,
    /// Gaps that ended, and steps that were somebody's first.
    ended: u64,
    begun: u64,
    #[serde(skip)]
    keys: [u64; CONTEXTS],
    #[serde(skip)]
    said: Vec<Said>,
    #[serde(skip)]
    chances: Vec<f32>,
}

#[derive(Clone, Debug, PartialEq)]
struct Said {
    expert: usize,
    trust: usize,
    weight: f32,
    bins: Vec<f32>,
}

impl When {
    /// A model that never takes more than about `bytes_max`.
    #[must_use]
    pub fn new(bytes_max: usize) -> Self {
        let mut by_trust = Vec::with_capacity(EXPERTS * TOTALS);
        for expert in 0..EXPERTS {
            for trust in 0..TOTALS {
                // Smeared counts are to be trusted sooner.
                let raw = if expert % 2 == 0 { -2.0 } else { 0.0 };
                by_trust.push(0.3 * trust as f32 + raw);
            }
        }
        Self {
            store: Store::new(bytes_max),
            by_trust,
            plain: vec![0.0; EXPERTS],
            ended: 0,
            begun: 0,
            keys: [0; CONTEXTS],
            said: Vec::new(),
            chances: vec![1.0 / BINS as f32; BINS],
        }
    }

    /// Asks how long it will be from a user's last step to the next.
    pub fn ask(&mut self, user: u64, group: u64, history: &History) {
        self.keys = keys(user, group, history);
        let mut used = 0;
        for k in 0..CONTEXTS {
            let Some(at) = (self.keys[k] != 0).then(|| self.store.find(self.keys[k])).flatten() else {
                continue;
            };
            let total = self.store.slot(at).total();
            let trust = (31 - total.max(1).leading_zeros() as usize).min(TOTALS - 1);
            for smeared in [false, true] {
                if self.said.len() == used {
                    self.said.push(Said { expert: 0, trust: 0, weight: 0.0, bins: vec![0.0; BINS] });
                }
                let said = &mut self.said[used];
                (said.expert, said.trust) = (2 * k + usize::from(smeared), trust);
                spread_counts(&self.store, at, smeared, &mut said.bins);
                used += 1;
            }
        }
        if self.said.len() == used {
            self.said.push(Said { expert: 0, trust: 0, weight: 0.0, bins: vec![0.0; BINS] });
        }
        let even = &mut self.said[used];
        (even.expert, even.trust) = (EXPERTS - 1, 0);
        even.bins.fill(1.0 / BINS as f32);
        self.said.truncate(used + 1);
        self.blend();
    }

    fn blend(&mut self) {
        let mut highest = f32::MIN;
        for said in &mut self.said {
            said.weight = self.by_trust[said.expert * TOTALS + said.trust] + self.plain[said.expert];
            highest = highest.max(said.weight);
        }
        let mut sum = 0.0;
        for said in &mut self.said {
            said.weight = exp(said.weight - highest);
            sum += said.weight;
        }
        self.chances.clear();
        self.chances.resize(BINS, 0.0);
        for said in &mut self.said {
            said.weight /= sum;
            for (chance, bin) in self.chances.iter_mut().zip(&said.bins) {
                *chance += said.weight * bin;
            }
        }
    }

    /// Learns how long it was from a user's last step to the next; `None`: it is the user's first.
    pub fn learn(&mut self, user: u64, group: u64, history: &History, gap_s: Option<i64>) {
        let Some(gap_s) = gap_s else {
            self.begun += 1;
            return;
        };
        self.ended += 1;
        self.ask(user, group, history);
        let bin = bin(gap_s);
        let p = self.chances[bin].max(1e-6);
        for said in &self.said {
            let better = said.weight * (said.bins[bin] / p - 1.0);
            self.by_trust[said.expert * TOTALS + said.trust] += RATE * better;
            self.plain[said.expert] += RATE_PLAIN * better;
        }
        for (k, key) in self.keys.into_iter().enumerate().filter(|(_, key)| *key != 0) {
            let (owner, fade) = if OWN.contains(&k) { (user, OWN_FADE) } else { (0, ALL_FADE) };
            self.store.add(key, owner, bin as u32, fade);
        }
    }

    /// Quantiles .05 to .95 of ln(1 + seconds), rising.
    #[must_use]
    pub fn quantiles(&self) -> [f32; QUANTILES] {
        let mut out = [0.0; QUANTILES];
        let total: f32 = self.chances.iter().sum();
        let (mut below, mut bin) = (0.0, 0);
        for (i, out) in out.iter_mut().enumerate() {
            let wanted = total * (i + 1) as f32 / (QUANTILES + 1) as f32;
            while bin + 1 < BINS && below + self.chances[bin] < wanted {
                below += self.chances[bin];
                bin += 1;
            }
            let inside = ((wanted - below) / self.chances[bin].max(1e-12)).clamp(0.0, 1.0);
            // The first bin is "within the same second".
            *out = if bin == 0 { 0.0 } else { (bin as f32 + inside) * WIDTH };
        }
        out
    }

    /// The chance that the gap ends within so many seconds, if it ends.
    #[must_use]
    pub fn within(&self, seconds: f64) -> f64 {
        let place = (libm::log1p(seconds.max(0.0)) as f32 / WIDTH).min(BINS as f32);
        let whole = (place as usize).min(BINS - 1);
        let below: f32 = self.chances[..whole].iter().sum();
        let inside = (place - whole as f32).clamp(0.0, 1.0);
        let total: f32 = self.chances.iter().sum();
        f64::from(((below + inside * self.chances[whole]) / total).clamp(0.0, 1.0))
    }

    /// The share of steps that have been followed by another of the same user.
    #[must_use]
    pub fn chance_of_return(&self) -> f64 {
        (self.ended as f64 + 1.0) / ((self.ended + self.begun) as f64 + 2.0)
    }

    /// The chance that a user who was last seen `age_s` ago comes within the next `within_s`: neither having come since,
    /// nor having left for good, is taken for granted.
    #[must_use]
    pub fn chance(&self, age_s: f64, within_s: f64) -> f64 {
        let returns = self.chance_of_return();
        let (gone, then) = (self.within(age_s), self.within(age_s + within_s.max(0.0)));
        let left = 1.0 - returns * gone;
        if left <= 0.0 { 0.0 } else { (returns * (then - gone).max(0.0) / left).clamp(0.0, 1.0) }
    }

    /// Bytes of memory that contexts take.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.store.bytes()
    }

    /// What is a user's own, to be taken to another site.
    #[must_use]
    pub fn profile(&self, user: u64) -> Contexts {
        self.store.owned(user)
    }

    /// Takes in what another site knows of a user, instead of what was known here.
    pub fn adopt(&mut self, user: u64, profile: &Contexts) {
        self.store.replace(user, profile);
    }

    /// Drops a user's own contexts; what everyone's contexts have counted stays, sums without an identity.
    pub fn forget(&mut self, user: u64) {
        self.store.forget(user);
    }
}

/// The bin of a gap; one that would be negative is none at all.
fn bin(gap_s: i64) -> usize {
    let y = libm::log1p(gap_s.max(0) as f64) as f32;
    ((y / WIDTH) as usize).min(BINS - 1)
}

/// A context's counts as shares of bins, each as it is or smeared over its neighbours.
fn spread_counts(store: &Store, at: usize, smeared: bool, bins: &mut [f32]) {
    bins.fill(0.0);
    let (items, counts) = store.followers(at);
    let held: u32 = counts.iter().map(|c| u32::from(*c)).sum();
    let each = 1.0 / held.max(1) as f32;
    for (item, count) in items.iter().zip(counts) {
        let (bin, share) = (*item as usize, f32::from(*count) * each);
        if !smeared {
            bins[bin.min(BINS - 1)] += share;
            continue;
        }
        let reach = REACH.min(bin.saturating_sub(ONE_SECOND) / 2);
        let part = share / ((reach + 1) * (reach + 1)) as f32;
        for d in 0..=2 * reach {
            let weight = (reach + 1 - d.abs_diff(reach)) as f32;
            let to = (bin + d).saturating_sub(reach).min(BINS - 1);
            bins[to] += part * weight;
        }
    }
}

/// Contexts that are a user's own.
const OWN: [usize; 4] = [1, 3, 8, 9];

fn keys(user: u64, group: u64, h: &History) -> [u64; CONTEXTS] {
    let step = |back: usize| if h.len() > back { u64::from(h.back(back)) + 1 } else { 0 };
    let (last, before) = (step(0), step(1));
    let gap = h.gap_s.map_or(0, |gap| 1 + bin(gap) as u64 / 8);
    let fine = h.gap_s.map_or(0, |gap| 1 + bin(gap) as u64 / 3);
    let hour = h.last_s.map_or(0, |at| 1 + at.div_euclid(3600).rem_euclid(24) as u64);
    let day = h.last_s.map_or(0, |at| 1 + at.div_euclid(86_400).rem_euclid(7) as u64);
    let place = u64::from(h.seen().min(20));
    let key = |kind: u64, a: u64, b: u64| join(join(0x3e00 + kind, a), b);
    let own = |kind: u64, a: u64| if user == 0 { 0 } else { join(key(kind, a, 0), user) };
    [
        key(0, 0, 0),
        own(1, 0),
        key(2, last, 0),
        own(3, last),
        key(4, fine, 0),
        key(5, last, hour),
        key(6, last, before),
        key(7, place, 0),
        own(8, gap),
        own(9, hour),
        key(10, last, gap),
        key(11, hour, day),
        key(12, last, place),
        key(13, last, join(gap, before)),
        if group == 0 { 0 } else { key(14, group, last) },
        key(15, gap, h.gap_before_s.map_or(0, |gap| 1 + bin(gap) as u64 / 8)),
    ]
}
