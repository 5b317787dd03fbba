//! The rival "hazard of idle age": how often an idle instance is needed again at its age, given that it was not
//! before, from its own gaps and with a small weight from everyone's; held while that chance times the price of a
//! cold start is more than the memory. One rule for whole minutes, one for the continuous world.

use crate::gaps::{Begun, GapPolicy, Hold};
use crate::nominal::Use;
use forerun_trace::MinuteTrace;
use forerun_types::{Span, Time};

/// Ages in bins whose edges are 0, 1 s and on by factors of the square root of 2, to 2^19.5 s: six days.
const BINS: usize = 41;

fn edge_s(bin: usize) -> f64 {
    match bin {
        0 => 0.0,
        n => {
            let half_powers = n as i32 - 1;
            let odd = if half_powers % 2 == 1 { std::f64::consts::SQRT_2 } else { 1.0 };
            f64::from(1 << (half_powers / 2)) * odd
        }
    }
}

pub(crate) struct EventHazard<'a> {
    price_gbs: f64,
    /// Weight of everyone's gaps beside the level's own.
    kappa: f64,
    /// How long a start takes by service.
    start: &'a [Span],
    memory: &'a [u64],
    edges: [f64; BINS],
    own: Vec<[u32; BINS]>,
    pool: [u64; BINS],
    begun: Begun,
}

impl<'a> EventHazard<'a> {
    pub(crate) fn new(price_gbs: f64, start: &'a [Span], memory: &'a [u64], levels: u32) -> Self {
        Self {
            price_gbs,
            kappa: 2.0,
            start,
            memory,
            edges: std::array::from_fn(edge_s),
            own: vec![[0; BINS]; levels as usize],
            pool: [0; BINS],
            begun: Begun::default(),
        }
    }

    fn learn_until(&mut self, now: Time) {
        let (own, pool, edges) = (&mut self.own, &mut self.pool, &self.edges);
        self.begun.ended(now, |level, length| {
            let length = length.as_secs_f64();
            let bin = edges.partition_point(|&edge| edge <= length) - 1;
            own[level as usize][bin] += 1;
            pool[bin] += 1;
        });
    }

    /// For each bin of age whether it pays to hold on.
    fn pays(&self, level: u32, memory_gb: f64) -> [bool; BINS] {
        let own = &self.own[level as usize];
        let (mut risk_own, mut risk_pool) = (0.0, 0.0);
        let mut pays = [false; BINS];
        // From the longest age down: who is idle at a bin is who ends in it or later.
        for bin in (0..BINS - 1).rev() {
            let (ends_own, ends_pool) = (f64::from(own[bin]), self.pool[bin] as f64);
            risk_own += ends_own;
            risk_pool += ends_pool;
            let width = self.edges[bin + 1] - self.edges[bin];
            // Ends per time at risk in the bin; those that end in it count half.
            let rate_pool = (ends_pool + 0.5) / ((risk_pool - 0.5 * ends_pool + 1.0) * width);
            let rate = (ends_own + self.kappa * rate_pool * width)
                / ((risk_own - 0.5 * ends_own + self.kappa) * width);
            pays[bin] = rate * self.price_gbs > memory_gb;
        }
        pays
    }
}

impl GapPolicy for EventHazard<'_> {
    fn holds(&mut self, gap: &Use, holds: &mut Vec<Hold>) {
        self.learn_until(gap.to);
        self.begun.begin(gap);
        let start_s = self.start[gap.service as usize].as_secs_f64();
        let memory_gb = self.memory[gap.service as usize] as f64 / 1e9;
        let mut last: Option<(f64, f64)> = None;
        for (bin, pays) in self.pays(gap.level, memory_gb).into_iter().enumerate() {
            if !pays {
                continue;
            }
            let (low, high) = (self.edges[bin], self.edges[bin + 1]);
            last = match last {
                // What would have to start again at once may as well stay.
                Some((from, to)) if low - to <= 2.0 * start_s => Some((from, high)),
                before => {
                    holds.extend(before.map(micros));
                    Some((if low > 0.0 { (low - start_s).max(0.0) } else { 0.0 }, high))
                }
            };
        }
        holds.extend(last.map(micros));
    }
}

fn micros((from, to): (f64, f64)) -> Hold {
    (Span::from_secs_f64(from), Span::from_secs_f64(to))
}

/// One level of one app in the world of minutes.
struct MinuteLevel {
    app: usize,
    level: u32,
    last: Option<usize>,
    /// Own gaps by length, and of them those at least as long as the present age.
    own: Vec<u32>,
    at_risk: u32,
    gaps: u32,
}

/// Instances wanted by app and minute; each minute from earlier ones only.
pub(crate) fn minutes(trace: &MinuteTrace, needs: &[Vec<u32>], price_gbs: f64) -> Vec<Vec<u32>> {
    let minutes = trace.minutes();
    let memory: Vec<f64> = trace.apps.iter().map(|a| a.memory_mb / 1e3).collect();
    // Everyone's gaps: how many ended at an age, of how many that reached it; begun at 1/(2 + age).
    let mut ends = vec![1.0; minutes + 1];
    let mut risk: Vec<f64> = (0..=minutes).map(|age| 2.0 + age as f64).collect();
    let mut levels = Vec::new();
    for (app, need) in needs.iter().enumerate() {
        let most = need.iter().copied().max().unwrap_or(0);
        let level = |level| MinuteLevel { app, level, last: None, own: Vec::new(), at_risk: 0, gaps: 0 };
        levels.extend((1..=most).map(level));
    }
    let mut wanted: Vec<Vec<u32>> = needs.iter().map(|need| vec![0; need.len()]).collect();
    for minute in 0..minutes {
        for l in &mut levels {
            let Some(age) = l.last.map(|last| minute - last - 1) else { continue };
            if let Some(now) = wanted[l.app].get_mut(minute) {
                *now += u32::from(l.pays(age, ends[age] / risk[age], memory[l.app], price_gbs));
            }
        }
        // Only now is the minute known.
        for l in &mut levels {
            let used = needs[l.app].get(minute).is_some_and(|&need| need >= l.level);
            if let Some(last) = l.last {
                let age = minute - last - 1;
                risk[age] += 1.0;
                ends[age] += f64::from(u8::from(used));
            }
            l.learn(minute, used);
        }
    }
    wanted
}

impl MinuteLevel {
    fn pays(&self, age: usize, pool: f64, memory_gb: f64, price_gbs: f64) -> bool {
        const KAPPA: f64 = 0.3;
        let own = f64::from(self.own.get(age).copied().unwrap_or(0));
        let chance = (own + KAPPA * pool) / (f64::from(self.at_risk) + KAPPA);
        chance * (price_gbs + 30.0 * memory_gb) > 60.0 * memory_gb
    }

    fn learn(&mut self, minute: usize, used: bool) {
        let age = self.last.map(|last| minute - last - 1);
        match (used, age) {
            (true, Some(length)) => {
                if self.own.len() <= length {
                    self.own.resize(length + 1, 0);
                }
                self.own[length] += 1;
                self.gaps += 1;
            }
            (false, Some(age)) => self.at_risk -= self.own.get(age).copied().unwrap_or(0),
            _ => {}
        }
        if used {
            self.last = Some(minute);
            self.at_risk = self.gaps;
        }
    }
}
