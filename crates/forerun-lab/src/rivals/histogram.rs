//! The hybrid histogram of "Serverless in the Wild" (Shahrad et al., ATC '20): a histogram of each instance's idle
//! times says when to be there again and how long to stay. Its third part, ARIMA for idle times beyond the
//! histogram, is left out: such instances get the fixed keep-alive.

use crate::gaps::{Begun, GapPolicy, Hold};
use crate::nominal::Use;
use forerun_types::Span;

/// Minutes that the histogram covers: the paper's four hours, in bins of a minute.
const BINS: usize = 240;
/// What is there before this part of the idle times ends, stays until that part has ended.
const HEAD: f64 = 0.05;
const TAIL: f64 = 0.99;
/// Room for error on both.
const MARGIN: f64 = 0.10;
/// Below this coefficient of variation of the bins the histogram tells nothing.
const SPREAD_MIN: f64 = 2.0;
/// So many idle times are known before the histogram is used.
const KNOWN_MIN: u32 = 2;

/// One instance's idle times.
#[derive(Clone)]
struct Histogram {
    bins: [u32; BINS],
    within: u32,
    beyond: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { bins: [0; BINS], within: 0, beyond: 0 }
    }
}

impl Histogram {
    fn learn(&mut self, minutes: usize) {
        match self.bins.get_mut(minutes) {
            Some(bin) => {
                *bin += 1;
                self.within += 1;
            }
            None => self.beyond += 1,
        }
    }

    /// The bin that the head is in, and the end of that of the tail; `None` where the histogram is not to be used.
    fn window(&self) -> Option<(usize, usize)> {
        if self.within < KNOWN_MIN || self.beyond > self.within {
            return None;
        }
        let mean = f64::from(self.within) / BINS as f64;
        let variance = self.bins.iter().map(|&n| (f64::from(n) - mean).powi(2)).sum::<f64>() / BINS as f64;
        if variance.sqrt() / mean < SPREAD_MIN {
            return None;
        }
        let (mut seen, mut low) = (0, None);
        for (bin, &count) in self.bins.iter().enumerate() {
            seen += count;
            if low.is_none() && seen > 0 && f64::from(seen) >= HEAD * f64::from(self.within) {
                low = Some(bin);
            }
            if f64::from(seen) >= TAIL * f64::from(self.within) {
                return Some((low.unwrap_or(bin), bin + 1));
            }
        }
        Some((low.unwrap_or(0), BINS))
    }
}

/// Single requests.
pub(super) struct Gaps<'a> {
    fallback: Span,
    /// How long a start takes by service.
    start: &'a [Span],
    levels: Vec<Histogram>,
    begun: Begun,
}

impl<'a> Gaps<'a> {
    pub(super) fn new(fallback: Span, start: &'a [Span], levels: u32) -> Self {
        Self { fallback, start, levels: vec![Histogram::default(); levels as usize], begun: Begun::default() }
    }
}

impl GapPolicy for Gaps<'_> {
    fn holds(&mut self, gap: &Use, holds: &mut Vec<Hold>) {
        let levels = &mut self.levels;
        self.begun.ended(gap.to, |level, length| {
            levels[level as usize].learn(usize::try_from(length.0 / 60_000_000).unwrap_or(usize::MAX));
        });
        self.begun.begin(gap);
        let Some((low, high)) = levels[gap.level as usize].window() else {
            holds.push((Span::ZERO, self.fallback));
            return;
        };
        let start_s = self.start[gap.service as usize].as_secs_f64();
        // What would have to start before it has stopped stays.
        let from_s = (low as f64 * 60.0 * (1.0 - MARGIN) - start_s).max(0.0);
        let from_s = if low > 0 { from_s } else { 0.0 };
        let to_s = high as f64 * 60.0 * (1.0 + MARGIN);
        holds.push((Span::from_secs_f64(from_s), Span::from_secs_f64(to_s)));
    }
}

/// Whole minutes: instances wanted by app and minute.
pub(super) fn minutes(needs: &[Vec<u32>], fallback: usize) -> Vec<Vec<u32>> {
    let one = |need: &Vec<u32>| {
        let mut wanted = vec![0; need.len()];
        for level in 1..=need.iter().copied().max().unwrap_or(0) {
            level_minutes(need, level, fallback, &mut wanted);
        }
        wanted
    };
    needs.iter().map(one).collect()
}

fn level_minutes(need: &[u32], level: u32, fallback: usize, wanted: &mut [u32]) {
    let mut histogram = Histogram::default();
    let mut used = (0..need.len()).filter(|&m| need[m] >= level).peekable();
    while let Some(last) = used.next() {
        let (from, to) = match histogram.window() {
            None => (0, fallback),
            Some((low, high)) => {
                let (low, high) = (low as f64 * (1.0 - MARGIN), high as f64 * (1.0 + MARGIN));
                (low.floor() as usize, high.ceil() as usize)
            }
        };
        // The first idle minute, or the next one in use, is the one after the last in use.
        let next = used.peek().copied();
        let stop = next.map_or(need.len(), |next| next + 1);
        let held = (last + 1 + from).min(stop)..last.saturating_add(to).saturating_add(1).min(stop);
        wanted[held].iter_mut().for_each(|w| *w += 1);
        if let Some(next) = next {
            histogram.learn(next - last - 1);
        }
    }
}
