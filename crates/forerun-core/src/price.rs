//! What an idle instance is worth, by foresight and by the reactive rule beneath it.

use crate::forecast::{LevelChances, Step};
use crate::policy::{Frozen, LevelValue, View, density};
use crate::trust::{Costs, Track};
use forerun_types::{Reason, Span};

/// What is to be started must be worth more than its cost by a sixteenth: estimates differ by as much from one moment to
/// the next, and what is let go at once was started for nothing.
const START_MARGIN: f64 = 1.0 / 16.0;
/// Bytes times microseconds in a thousandth of a GB-second.
const BYTE_US_PER_MILLI_GBS: f64 = 1e12;

/// Prices that hold for all chances of a level, hot or frozen; thousandths of a GB-second.
#[derive(Clone, Copy, Debug)]
struct Prices {
    /// What an instance saves that is there when it is needed: the cold starts, and what the start would have taken.
    gain: f64,
    /// What it costs while it idles, a microsecond.
    idle_us: f64,
    /// What a start ahead of the need costs until it is done.
    start: f64,
}

/// A stretch of keeping, summed up for people.
#[derive(Clone, Copy, Debug, Default)]
struct Stretch {
    chance: f64,
    idle_us: f64,
    until_us: f64,
}

impl Prices {
    /// What it is worth to have an instance over the first of these steps and to do the best after, over not having it
    /// then and doing the best after; and how long it would be kept.
    ///
    /// Backward induction over the steps (Bellman, *Dynamic Programming*, 1957): one that is there may be kept, which
    /// costs its idling until the need, or let go; one that is not there may be started ahead of the next step.
    fn best(&self, steps: impl DoubleEndedIterator<Item = Step>) -> (f64, Stretch) {
        let (mut there, mut gone, mut first) = (0.0f64, 0.0f64, 0.0);
        let mut stretch = Stretch::default();
        for step in steps.rev() {
            let (needed, width) = (step.chance, step.within.0 as f64);
            let idle = 1.0 - needed;
            let keep =
                needed * (self.gain - self.idle_us * width / 2.0) + idle * (there - self.idle_us * width);
            let wait = idle * gone.max(there - self.start);
            let after = if there > gone { stretch } else { Stretch::default() };
            stretch = Stretch {
                chance: needed + idle * after.chance,
                idle_us: needed * width / 2.0 + idle * (width + after.idle_us),
                until_us: width + idle * after.until_us,
            };
            (there, gone, first) = (keep.max(wait), wait, keep - wait);
        }
        (first, stretch)
    }
}

impl Prices {
    /// What it is worth to have one instance more, that is there or is not yet, and for how long it would be kept.
    fn net(&self, level: &LevelChances, up: bool) -> (f64, Stretch) {
        let (net, stretch) = self.best(level.steps(!up));
        if up { (net, stretch) } else { ((net - self.start) * level.idle_until_ready(), stretch) }
    }

    /// The most that it brings in proportion to the time that it takes: what counts where there is not room for all.
    /// The same whether it is there or not, or two that compete for room would evict one another without end.
    fn densest(&self, level: &LevelChances) -> (f64, f64) {
        let (mut idle, mut net, mut until) = (1.0, 0.0, 0.0);
        let mut best = (f64::NEG_INFINITY, 1.0);
        for step in level.steps(false) {
            let (needed, width) = (idle * step.chance, step.within.0 as f64);
            net += needed * self.gain - self.idle_us * (idle * width - needed * width / 2.0);
            until += idle * width;
            idle -= needed;
            // Cross-multiplied: net / until > best.0 / best.1.
            if until > 0.0 && (best.0 == f64::NEG_INFINITY || net * best.1 > best.0 * until) {
                best = (net, until);
            }
        }
        if best.0 == f64::NEG_INFINITY { (0.0, 1.0) } else { best }
    }
}

/// What an instance saves that is there for those who come at once, without its start: as its class counts a cold start
/// now, in millionths of a thousandth of a GB-second.
fn cold_ppm(view: &View<'_>, crowd: f64) -> f64 {
    let dearer = f64::from(view.dearer_milli) / 1e3;
    view.spec.sla.cold_start_milli_gbs as f64 * dearer * crowd * f64::from(view.saves_ppm)
}

/// What one idle level is worth. Frozen it costs only its memory, and saves all of the cold start but the share that
/// thawing takes of it. A generic one that is to become a key's saves all of the cold start but the share that the
/// change takes.
pub(crate) fn price(
    level: &LevelChances,
    up: bool,
    view: &View<'_>,
    crowd: f64,
    core_milli_gb: u64,
) -> LevelValue {
    let per_us = |bytes: u64| bytes as f64 / BYTE_US_PER_MILLI_GBS;
    let memory = per_us(view.memory_bytes);
    let core = per_us(view.idle_cpu_milli.saturating_mul(core_milli_gb).saturating_mul(1_000));
    let start = memory * view.start.0 as f64;
    let cold = cold_ppm(view, crowd) / 1e6;
    let margin = 1.0 + START_MARGIN;
    let hot = Prices { gain: cold + start, idle_us: memory + core, start: start * margin };
    let (worth_more, stretch) = hot.net(level, up);
    let within = Span(stretch.until_us as u64);
    let reason = Reason::Priced {
        chance_ppm: (stretch.chance.min(1.0) * 1e6) as u32,
        within,
        worth_milli_gbs: (stretch.chance * hot.gain) as u64,
        cost_milli_gbs: (stretch.idle_us * hot.idle_us) as u64,
    };
    // Those who compare densities rely on that it is positive for what is wanted and for nothing else.
    let density = |prices: &Prices, net_milli_gbs: i64| {
        let (net, until) = prices.densest(level);
        let density = density(net.floor() as i64, Span(until as u64), view.spec);
        if net_milli_gbs > 0 { density.max(1) } else { density.min(0) }
    };
    let net_milli_gbs = worth_more.floor() as i64;
    let value = LevelValue { net_milli_gbs, density: density(&hot, net_milli_gbs), reason, frozen: None };
    let Some(resume) = view.resume else { return value };
    let thawing = (resume.0 as f64 / view.start.0.max(1) as f64).min(1.0);
    let frozen = Prices { gain: cold * (1.0 - thawing) + start, idle_us: memory, start: hot.start };
    let net_milli_gbs = frozen.net(level, up).0.floor() as i64;
    LevelValue { frozen: Some(Frozen { net_milli_gbs, density: density(&frozen, net_milli_gbs) }), ..value }
}

/// What an instance costs a microsecond while it idles: bytes of memory, its idle cores' worth included.
fn idle_bytes(view: &View<'_>, core_milli_gb: u64) -> u64 {
    let core = view.idle_cpu_milli.saturating_mul(core_milli_gb).saturating_mul(1_000);
    view.memory_bytes.saturating_add(core)
}

/// The prices by which foresight and the reactive rule are judged: those of [`price`].
pub(crate) fn costs(view: &View<'_>, crowd: f64, core_milli_gb: u64) -> Costs {
    let start = u128::from(view.memory_bytes) * u128::from(view.start.0) / 1_000_000_000;
    Costs {
        idle_bytes: idle_bytes(view, core_milli_gb),
        cold: (cold_ppm(view, crowd) / 1e3) as u64,
        start: u64::try_from(start).unwrap_or(u64::MAX),
        takes: view.start,
    }
}

/// What an idle level is worth by the reactive rule: what is left of its time. Who goes first where there is not room
/// for all is told by foresight as before, for want of better: the rule knows nothing of other services.
pub(crate) fn reactive(
    foresight: &LevelValue,
    kept: bool,
    view: &View<'_>,
    (idle, keep): (Span, Span),
    core_milli_gb: u64,
    track: Track,
) -> LevelValue {
    let left = u128::from((keep - idle.min(keep)).0);
    let worth = u128::from(idle_bytes(view, core_milli_gb)) * left / 1_000_000_000_000;
    let worth = i64::try_from(worth).unwrap_or(i64::MAX).max(1);
    let reason = Reason::Reactive {
        idle,
        keep,
        foresight_milli_gbs: track.foresight / 1_000,
        reactive_milli_gbs: track.reactive / 1_000,
    };
    let (net_milli_gbs, density) = match kept {
        true => (worth, foresight.density.max(1)),
        false => (0, 0),
    };
    LevelValue { net_milli_gbs, density, reason, frozen: None }
}
