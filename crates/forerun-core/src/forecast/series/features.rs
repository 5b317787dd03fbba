//! What the trees are told of an origin and a step: shapes in local scales around the recent level.

use super::points::{RECENT, RULES, period};
use super::{Past, mean};

/// How many features a row has.
pub const FEATURES: usize = ORIGIN + STEP;
/// Features that are the same for all steps of an origin.
const ORIGIN: usize = RECENT + 4 * WINDOWS + 4;
const WINDOWS: usize = 4;
/// Features of a step.
const STEP: usize = 20;

/// One row.
pub type Row = [f32; FEATURES];

/// What an origin is measured by.
#[derive(Clone, Copy, Debug)]
pub struct Frame {
    /// The mean of the last values.
    pub centre: f64,
    /// How much the series moves now, mixed with what is usual for it; above 0.
    pub local: f64,
    /// A period of the series' own, if it has one.
    pub period: Option<usize>,
    origin: [f32; ORIGIN],
}

impl Frame {
    pub fn new(past: &Past<'_>) -> Frame {
        let centre = mean(past.tail(RECENT).iter().copied());
        let window = past.tail((2 * past.horizon).max(36));
        let middle = mean(window.iter().copied());
        let spread = mean(window.iter().map(|v| (v - middle).abs()));
        let local = 0.5 * (spread + past.scale);
        let mut frame = Frame { centre, local, period: period(past.values), origin: [0.0; ORIGIN] };
        let mut origin = [0.0; ORIGIN];
        let last = past.tail(RECENT);
        for (slot, value) in origin.iter_mut().zip(last.iter().rev()) {
            *slot = frame.shape(*value);
        }
        let windows = [3, RECENT, 36, past.season.max(2 * past.horizon)];
        let mut at = RECENT;
        for n in windows {
            let values = past.tail(n);
            let m = mean(values.iter().copied());
            let deviation = mean(values.iter().map(|v| (v - m) * (v - m))).sqrt();
            let low = values.iter().copied().fold(f64::MAX, f64::min);
            let high = values.iter().copied().fold(f64::MIN, f64::max);
            origin[at] = frame.shape(m);
            origin[at + 1] = ratio(deviation, local);
            origin[at + 2] = frame.shape(low);
            origin[at + 3] = frame.shape(high);
            at += 4;
        }
        origin[at] = ratio(centre, local);
        origin[at + 1] = ratio(past.scale, local);
        let hour = past.tail(60);
        origin[at + 2] = mean(hour.iter().map(|v| f64::from(u8::from(*v == 0.0)))) as f32;
        origin[at + 3] = mean(hour.windows(2).map(|w| f64::from(u8::from(w[0] == w[1])))) as f32;
        frame.origin = origin;
        frame
    }

    fn shape(&self, value: f64) -> f32 {
        ratio(value - self.centre, self.local)
    }

    /// What a step is measured by: less than `local` where the same time of other days has moved less.
    pub fn local_at(&self, past: &Past<'_>, step: usize) -> f64 {
        if past.season < 2 {
            return self.local;
        }
        let (mut values, mut n) = ([0.0; 7], 0);
        for (slot, d) in values.iter_mut().zip(1..) {
            let Some(value) = past.same_time(step, d, past.season) else { break };
            *slot = value;
            n += 1;
        }
        if n < 3 {
            return self.local;
        }
        let middle = mean(values[..n].iter().copied());
        let apart = mean(values[..n].iter().map(|v| (v - middle).abs()));
        self.local.min(0.15 * self.local + 1.5 * apart)
    }

    /// The row of a step: `said` is what each point rule says of it, `point` their mixture.
    pub fn row(&self, past: &Past<'_>, step: usize, said: &[f64; RULES], point: f64, local: f64) -> Row {
        let mut row = [0.0; FEATURES];
        row[..ORIGIN].copy_from_slice(&self.origin);
        let season = past.season.max(1);
        let time = past.values.len() - 1 + step;
        let same = |periods: usize| {
            let value = if season > 1 { past.same_time(step, periods, season) } else { None };
            value.map_or(0.0, |v| self.shape(v))
        };
        let own = |periods: usize| {
            let value = self.period.and_then(|p| past.same_time(step, periods, p));
            value.map_or(f32::MIN, |v| self.shape(v))
        };
        let spread = mean(said.iter().map(|s| (s - point).abs()));
        row[ORIGIN..].copy_from_slice(&[
            step as f32,
            self.shape(point),
            ratio(spread, self.local),
            same(1),
            same(2),
            same(7),
            self.shape(said[4]),
            self.shape(said[5]),
            self.shape(said[6]),
            self.shape(said[7]),
            (time % season) as f32 / season as f32,
            ((time / season) % 7) as f32,
            // Timers of this hour: was the same minute of the last hours busier?
            self.shape(past.same_time(step, 1, 60).unwrap_or(self.centre)),
            self.shape(said[8]),
            self.shape(said[9]),
            self.shape(said[10]),
            self.shape(said[11]),
            own(1),
            own(2),
            ratio(local, self.local),
        ]);
        row
    }
}

fn ratio(value: f64, by: f64) -> f32 {
    (value / by).clamp(-1e6, 1e6) as f32
}
