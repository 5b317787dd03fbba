//! Cold starts against memory, as a picture.

use super::{escaped, named};
use crate::replay::rows::{Row, Table};
use std::fmt::Write;

const WIDTH: f64 = 940.0;
const HEIGHT: f64 = 380.0;
/// Room for the values at the left and below.
const LEFT: f64 = 70.0;
const BELOW: f64 = 48.0;
/// Marks keep off the edges.
const EDGE: f64 = 14.0;
/// Colours there are.
const COLOURS: usize = 8;
/// Named beside their marks up to so many; more would be a blot.
const NAMED_MAX: usize = 24;
/// Ends further apart than this factor are shown by their logarithms.
const WIDE: f64 = 20.0;

/// One axis: values to places between 0 and 1.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
}

impl Axis {
    fn of(values: impl Iterator<Item = f64> + Clone) -> Self {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
        // One more than nothing is nothing, so that zero has a place.
        let logarithmic = (high + 1.0) / (low + 1.0) > WIDE;
        let low = if logarithmic { low } else { 0.0 };
        Self { low, high: if high > low { high } else { low + 1.0 }, logarithmic }
    }

    fn scaled(&self, value: f64) -> f64 {
        if self.logarithmic { (value + 1.0).log10() } else { value }
    }

    fn place(&self, value: f64) -> f64 {
        let (low, high) = (self.scaled(self.low), self.scaled(self.high));
        (self.scaled(value) - low) / (high - low)
    }

    /// Values to be marked, some five of them.
    fn marks(&self) -> Vec<f64> {
        if self.logarithmic {
            let powers = (0..16).map(|n| 10_f64.powi(n));
            let finer = powers.flat_map(|p| [p, 3.0 * p]);
            let all: Vec<f64> = finer.filter(|v| (self.low..=self.high).contains(v)).collect();
            let every = all.len().div_ceil(6).max(1);
            return all.into_iter().step_by(every).collect();
        }
        let rough = (self.high - self.low) / 5.0;
        let power = 10_f64.powf(rough.log10().floor());
        let step =
            [1.0, 2.0, 5.0, 10.0].map(|f| f * power).into_iter().find(|s| *s >= rough).unwrap_or(rough);
        (0..8).map(|n| f64::from(n) * step).filter(|v| *v <= self.high * 1.0001).collect()
    }
}

fn short(value: f64) -> String {
    match value {
        v if v >= 1e9 => format!("{:.1}G", v / 1e9),
        v if v >= 1e6 => format!("{:.1}M", v / 1e6),
        v if v >= 1e4 => format!("{:.0}k", v / 1e3),
        v if v >= 10.0 || v == 0.0 => format!("{v:.0}"),
        v => format!("{v:.2}"),
    }
}

/// Appends the picture.
pub(super) fn draw(table: &Table, page: &mut String) {
    let rows = &table.rows;
    let hours = |row: &Row| row.scores.memory_gb_seconds.total / 3600.0;
    let cold = |row: &Row| row.scores.cold_starts as f64;
    let (across, up) = (Axis::of(rows.iter().map(hours)), Axis::of(rows.iter().map(cold)));
    let x = |v: f64| LEFT + EDGE + across.place(v) * (WIDTH - 2.0 * EDGE);
    let y = |v: f64| HEIGHT - EDGE - up.place(v) * (HEIGHT - 2.0 * EDGE);
    let (wide, tall) = (LEFT + WIDTH + 10.0, HEIGHT + BELOW);
    let _ = write!(
        page,
        "<div class=\"scroll\"><svg viewBox=\"0 -6 {wide} {tall}\" role=\"img\" aria-label=\"cold starts against memory\">\
<rect class=\"ground\" x=\"{LEFT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
    );
    for value in across.marks() {
        let (at, foot) = (x(value), HEIGHT + 16.0);
        let _ = write!(
            page,
            "<line class=\"grid\" x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"0\" y2=\"{HEIGHT}\"/>\
<text class=\"mid\" x=\"{at:.1}\" y=\"{foot}\">{}</text>",
            short(value)
        );
    }
    for value in up.marks() {
        let (at, side, end) = (y(value), LEFT - 6.0, LEFT + WIDTH);
        let _ = write!(
            page,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{end}\" y1=\"{at:.1}\" y2=\"{at:.1}\"/>\
<text class=\"end\" x=\"{side}\" y=\"{:.1}\">{}</text>",
            at + 4.0,
            short(value)
        );
    }
    let (middle, foot) = (LEFT + WIDTH / 2.0, HEIGHT + 36.0);
    let _ = write!(
        page,
        "<text class=\"mid\" x=\"{middle}\" y=\"{foot}\">memory of all that existed, GB-hours</text>\
<text class=\"mid\" transform=\"translate(14 {:.1}) rotate(-90)\">cold starts</text>",
        HEIGHT / 2.0
    );
    let mut front: Vec<(f64, f64)> =
        rows.iter().filter(|r| !r.dominated && !r.bound).map(|r| (x(hours(r)), y(cold(r)))).collect();
    front.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let front: Vec<String> = front.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = write!(page, "<polyline class=\"front\" points=\"{}\"/>", front.join(" "));
    marks(rows, &|row| (x(hours(row)), y(cold(row))), page);
    page.push_str("</svg></div>");
}

/// The runs themselves, a colour for each policy's name.
fn marks(rows: &[Row], place: &dyn Fn(&Row) -> (f64, f64), page: &mut String) {
    let mut families: Vec<&str> = Vec::new();
    let mut taken: Vec<(f64, f64)> = Vec::new();
    for row in rows {
        let family = row.scores.policy.split('=').next().unwrap_or_default();
        let colour = families.iter().position(|f| *f == family).unwrap_or_else(|| {
            families.push(family);
            families.len() - 1
        }) % COLOURS;
        let (at, up) = place(row);
        let fill = if row.bound { "none".to_owned() } else { format!("var(--c{colour})") };
        let faint = if row.dominated { " opacity=\".5\"" } else { "" };
        let name = escaped(&named(row));
        let _ = write!(
            page,
            "<circle cx=\"{at:.1}\" cy=\"{up:.1}\" r=\"5\" fill=\"{fill}\" stroke=\"var(--c{colour})\" stroke-width=\"1.5\"{faint}>\
<title>{name}: {} cold starts, {:.1} GB-hours</title></circle>",
            row.scores.cold_starts,
            row.scores.memory_gb_seconds.total / 3600.0
        );
        if rows.len() > NAMED_MAX {
            continue;
        }
        // To the side where there is room, and below what is written there already.
        let right = at < LEFT + WIDTH * 0.75;
        let (mut down, side) = (up + 4.0, if right { at + 9.0 } else { at - 9.0 });
        while taken.iter().any(|(x, y)| (x - side).abs() < 130.0 && (y - down).abs() < 12.0) {
            down += 12.5;
        }
        taken.push((side, down));
        let class = if right { "start" } else { "end" };
        let _ = write!(
            page,
            "<text class=\"{class}\" x=\"{side:.1}\" y=\"{down:.1}\" style=\"fill:var(--c{colour})\">{name}</text>"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_their_ends_and_round_marks() {
        let even = Axis::of([20.0, 100.0].into_iter());
        assert_eq!((even.place(0.0), even.place(100.0)), (0.0, 1.0));
        assert_eq!(even.marks(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        let wide = Axis::of([0.0, 9_999.0].into_iter());
        assert_eq!((wide.place(0.0), wide.place(9_999.0), wide.place(99.0)), (0.0, 1.0, 0.5));
        assert!(wide.marks().contains(&1_000.0) && wide.marks().len() <= 6, "{:?}", wide.marks());
        let point = Axis::of([0.0].into_iter());
        assert_eq!(point.place(0.0), 0.0);
        assert!(point.marks().iter().all(|m| m.is_finite()));
    }
}
