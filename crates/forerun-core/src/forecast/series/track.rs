//! One series over time: what was said at its origins, learned from once the whole horizon is past.

use super::boost::{Booster, Rows, hash};
use super::conformal::{self, Widths};
use super::features::{Frame, Row};
use super::forest::Forest;
use super::live::Grower;
use super::members::{Member, Residuals, Window};
use super::mix::{self, MEMBERS, OUTSIDE, Weights};
use super::points::{self, RULES, Record};
use super::{LEVELS, Past, Quantiles};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;

/// What all series share.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(from = "Kept")]
pub struct Shared {
    /// One for each level; none before the first fit.
    trees: Vec<Booster>,
    weights: Weights,
    widths: Widths,
    /// What the trees are asked through, made of them.
    #[serde(skip)]
    forest: Option<Forest>,
}

/// What is written down of [`Shared`].
#[derive(Deserialize)]
struct Kept {
    trees: Vec<Booster>,
    weights: Weights,
    widths: Widths,
}

impl From<Kept> for Shared {
    fn from(Kept { trees, weights, widths }: Kept) -> Self {
        let forest = Forest::new(&trees);
        Self { trees, weights, widths, forest }
    }
}

impl Shared {
    /// Has the trees of a new fit say what they say from now on, with what others of their like have weighed.
    pub fn plant(&mut self, trees: Vec<Booster>) {
        self.forest = Forest::new(&trees);
        self.trees = trees;
    }

    /// As [`Shared::plant`]; the first begin beside the best of the other members.
    pub fn renew(&mut self, trees: Vec<Booster>) {
        if self.trees.is_empty() {
            self.weights.welcome(mix::TREES);
        }
        self.plant(trees);
    }
}

/// Who learns with a series: what all share, and how many series teach it.
#[derive(Debug)]
pub struct Teaches<'a> {
    pub shared: &'a mut Shared,
    pub series: usize,
    /// Where rows for trees are gathered, and the steps of a season.
    pub rows: Option<(&'a mut Grower, usize)>,
}

/// A forecast: the quantiles of each step, and how the members weighed in them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Told {
    pub steps: Vec<Quantiles>,
    pub shares: [[f64; MEMBERS]; LEVELS.len()],
}

/// What was said at an origin, until its horizon is past.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Said {
    origin: usize,
    scale: f64,
    locals: Vec<f64>,
    rules: Vec<[f64; RULES]>,
    points: Vec<f64>,
    members: [Vec<Quantiles>; MEMBERS],
    mixed: Vec<Quantiles>,
    told: Told,
}

impl Said {
    /// Makes rows of some of its steps, those whose outcome is known.
    fn rows(
        &self,
        past: &Past<'_>,
        frame: &Frame,
        (outcomes, known): (&[f64], &[bool]),
        (steps, draw): (usize, u64),
        mut push: impl FnMut(&Row, f64, f64),
    ) {
        let horizon = self.points.len();
        for k in 0..steps.min(horizon) {
            // One draw from each of so many equal parts of the horizon.
            let (low, high) = (k * horizon / steps.min(horizon), (k + 1) * horizon / steps.min(horizon));
            let i = low + (hash(draw, k as u64) % (high - low).max(1) as u64) as usize;
            if known.get(i) == Some(&true) && outcomes.len() > i {
                let local = self.locals[i];
                let row = frame.row(past, i + 1, &self.rules[i], self.points[i], local);
                let target = ((outcomes[i] - self.points[i]) / local).clamp(-1e3, 1e3);
                push(&row, target, (local / past.scale).clamp(0.1, 5.0));
            }
        }
    }
}

/// Forecasts that wait for their outcome; older ones are given up.
const WAITING_MAX: usize = 64;

/// What is known of one series.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Track {
    record: Record,
    residuals: Residuals,
    weights: Weights,
    widths: Widths,
    waiting: VecDeque<Said>,
    /// Whether a value below 0 has been seen up to `seen`.
    negative: bool,
    seen: usize,
    /// Whether the trees have a weight of this series' own.
    with_trees: bool,
}

impl Track {
    /// Learns from what was said whose horizon `values` has passed; the shared part too if it may.
    pub fn learn(&mut self, values: &[f64], known: &[bool], mut teaches: Option<Teaches<'_>>) {
        self.negative |= values[self.seen.min(values.len())..].iter().any(|v| *v < 0.0);
        self.seen = values.len();
        while let Some(said) = self.waiting.front() {
            let (from, to) = (said.origin + 1, said.origin + 1 + said.points.len());
            if to > values.len() {
                break;
            }
            let Some(said) = self.waiting.pop_front() else { break };
            let (came, known) = (&values[from..to], &known[from..to]);
            self.record.learn(&said.rules, came, known, said.scale);
            self.residuals.learn(&said.points, came, known, &said.locals);
            if let Some(Teaches { series, rows: Some((grower, season)), .. }) = &mut teaches {
                let horizon = said.points.len();
                let steps = grower.steps(*series, *season, horizon);
                if steps > 0 {
                    let values = &values[..from];
                    let past = Past { values, season: *season, horizon, scale: said.scale };
                    let (frame, steps) = (Frame::new(&past), (steps, grower.looked()));
                    said.rows(&past, &frame, (came, known), steps, |row, target, weight| {
                        grower.push(row, target, weight);
                    });
                }
            }
            if said.mixed.is_empty() {
                continue;
            }
            let shares = &said.told.shares;
            let gradient = mix::gradient(&said.members, &said.mixed, shares, came, known, said.scale);
            self.weights.learn(&gradient, mix::OWN_RATE, true);
            self.widths.learn(&said.told.steps, came, known, conformal::OWN_RATE);
            if let Some(Teaches { shared, series, .. }) = &mut teaches {
                shared.weights.learn(&gradient, mix::SHARED_RATE, false);
                shared.widths.learn(&said.told.steps, came, known, conformal::shared_rate(*series));
            }
        }
    }

    /// The cheap part of an origin: what the points say, so that their record goes on.
    fn points(&self, past: &Past<'_>) -> (Said, Frame) {
        let frame = Frame::new(past);
        let mut said = Said {
            origin: past.values.len() - 1,
            scale: past.scale,
            locals: Vec::new(),
            rules: Vec::new(),
            points: Vec::new(),
            members: Default::default(),
            mixed: Vec::new(),
            told: Told::default(),
        };
        points::of(past, frame.period, &mut said.rules);
        said.locals.extend((1..=said.rules.len()).map(|step| frame.local_at(past, step)));
        self.record.mix(&said.rules, &mut said.points);
        (said, frame)
    }

    fn wait(&mut self, said: Said) {
        if self.waiting.len() == WAITING_MAX {
            self.waiting.pop_front();
        }
        self.waiting.push_back(said);
    }

    /// An origin at which nobody asks.
    pub fn pass(&mut self, past: &Past<'_>) {
        let (said, _) = self.points(past);
        self.wait(said);
    }

    /// An origin to train at: as [`Track::pass`], and rows for some of its steps, those whose outcome lies in
    /// `outcomes`. Rows are weighed by how much the series moves beside its usual.
    pub fn train(
        &mut self,
        past: &Past<'_>,
        outcomes: &[f64],
        known: &[bool],
        steps: usize,
        rows: &mut Rows,
    ) {
        let (said, frame) = self.points(past);
        let draw = said.origin as u64;
        said.rows(past, &frame, (outcomes, known), (steps, draw), |row, target, weight| {
            rows.push(row, target, weight);
        });
        self.wait(said);
    }

    /// Whether the last forecast still waits for its outcome.
    pub fn waits(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The first `n` values of the series are kept no more: all that follow have moved to the front by as many.
    pub fn drop_oldest(&mut self, n: usize) {
        self.seen = self.seen.saturating_sub(n);
        self.waiting.retain_mut(|said| match said.origin.checked_sub(n) {
            Some(origin) => {
                said.origin = origin;
                true
            }
            None => false,
        });
    }

    /// A forecast that is learned from once its horizon is past. `outside` is what a model elsewhere says of the same
    /// steps; empty, or a step short, it says nothing.
    pub fn forecast(&mut self, past: &Past<'_>, shared: &Shared, outside: &[Quantiles]) -> Told {
        if !self.with_trees && !shared.trees.is_empty() {
            self.with_trees = true;
            self.weights.welcome(mix::TREES);
        }
        let said = self.say(past, shared, outside);
        let told = said.told.clone();
        self.wait(said);
        told
    }

    /// A forecast that nothing is learned from.
    pub fn look(&self, past: &Past<'_>, shared: &Shared, outside: &[Quantiles]) -> Told {
        self.say(past, shared, outside).told
    }

    fn say(&self, past: &Past<'_>, shared: &Shared, outside: &[Quantiles]) -> Said {
        let (mut said, frame) = self.points(past);
        let (points, locals) = (&said.points, &said.locals);
        if let Some(forest) = &shared.forest {
            let row = |i: usize| frame.row(past, i + 1, &said.rules[i], points[i], locals[i]);
            let rows: Vec<Row> = (0..points.len()).map(row).collect();
            said.members[mix::TREES].extend(forest.predict(&rows).iter().enumerate().map(|(i, said)| {
                let mut told = said.map(|said| points[i] + locals[i] * said);
                told.sort_unstable_by(f64::total_cmp);
                told
            }));
        }
        self.residuals.forecast(past, points, locals, &mut said.members[1]);
        Window { horizons: 2 }.forecast(past, points, locals, &mut said.members[2]);
        Window { horizons: 12 }.forecast(past, points, locals, &mut said.members[3]);
        if outside.len() >= points.len() {
            let sorted = |mut told: Quantiles| {
                told.sort_unstable_by(f64::total_cmp);
                told
            };
            said.members[OUTSIDE].extend(outside[..points.len()].iter().copied().map(sorted));
        }
        self.finish(&mut said, shared);
        said
    }

    /// From what the members say to what is told.
    fn finish(&self, said: &mut Said, shared: &Shared) {
        let says = said.members.each_ref().map(|m| !m.is_empty());
        let mut shares = [[0.0; MEMBERS]; LEVELS.len()];
        for (l, share) in shares.iter_mut().enumerate() {
            *share = shared.weights.shares(&self.weights, l, &says);
        }
        for i in 0..said.points.len() {
            let mut mixed = [0.0; LEVELS.len()];
            for (l, q) in mixed.iter_mut().enumerate() {
                *q = said.members.iter().zip(shares[l]).filter_map(|(m, s)| Some(m.get(i)?[l] * s)).sum();
            }
            mixed.sort_unstable_by(f64::total_cmp);
            let mut told = shared.widths.apply(&self.widths, said.locals[i], &mixed);
            if !self.negative {
                told = told.map(|q| q.max(0.0));
            }
            said.mixed.push(mixed);
            said.told.steps.push(told);
        }
        said.told.shares = shares;
    }
}
