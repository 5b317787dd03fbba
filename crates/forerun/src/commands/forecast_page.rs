//! The page of `forerun forecast --html`: a picture for each series, nothing fetched from anywhere.

use super::forecast::{Found, short, told_weights};
use std::fmt::Write;

/// Series that are drawn; a page of thousands is read by nobody.
const SERIES_MAX: usize = 50;
/// Steps before the first forecast that are drawn.
const BEFORE: usize = 200;
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 220.0;

const STYLE: &str = "body{font:14px system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em}\
svg{width:100%;height:auto;background:#fafafa}.a{fill:#2563eb22}.b{fill:#2563eb33}.m{stroke:#2563eb}\
.y{stroke:#111}polyline{fill:none;stroke-width:1.5}";

/// The whole page.
pub(super) fn page(found: &Found) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Forecast</title><style>{STYLE}</style><h1>Forecast</h1>\
<p>Black: what came. Blue: the median, 0.1 to 0.9, and up to 0.99.</p>"
    );
    for series in 0..found.all.len().min(SERIES_MAX) {
        picture(found, series, &mut page);
    }
    if found.all.len() > SERIES_MAX {
        let _ = write!(page, "<p>And {} more series.</p>", found.all.len() - SERIES_MAX);
    }
    page.push_str("</html>\n");
    page
}

fn picture(found: &Found, at: usize, page: &mut String) {
    let (series, told) = (&found.all[at], &found.told[at]);
    let (Some(first), Some(last)) = (series.asked.first(), series.asked.last()) else { return };
    let (from, to) = (first.origin.saturating_sub(BEFORE), last.origin + last.horizon);
    let came = (from..=to).filter_map(|t| Some((t, *series.values.get(t)?))).filter(|(_, v)| v.is_finite());
    let came: Vec<(usize, f64)> = came.collect();
    let quantiles = || series.asked.iter().zip(told).flat_map(|(a, t)| (a.origin + 1..).zip(&t.steps));
    let all = came.iter().map(|c| c.1).chain(quantiles().flat_map(|(_, q)| *q));
    let (low, high) = all.fold((f64::MAX, f64::MIN), |(l, h), v| (l.min(v), h.max(v)));
    let x = |t: usize| (t - from) as f64 / (to - from).max(1) as f64 * WIDTH;
    let y = |v: f64| HEIGHT - 5.0 - (v - low) / (high - low).max(1e-300) * (HEIGHT - 10.0);
    let _ = write!(
        page,
        "<h2>{}</h2><p>{} to {}; from {} to {}.</p><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">",
        escaped(&series.name),
        found.time(at, from),
        found.time(at, to),
        short(low),
        short(high)
    );
    for (asked, told) in series.asked.iter().zip(told) {
        let line = |level: usize| -> Vec<String> {
            (asked.origin + 1..)
                .zip(&told.steps)
                .map(|(t, q)| format!("{:.1},{:.1}", x(t), y(q[level])))
                .collect()
        };
        for (class, below, above) in [("a", 2, 4), ("b", 0, 2)] {
            let mut outline = line(above);
            outline.extend(line(below).into_iter().rev());
            let _ = write!(page, "<polygon class=\"{class}\" points=\"{}\"/>", outline.join(" "));
        }
        let _ = write!(page, "<polyline class=\"m\" points=\"{}\"/>", line(1).join(" "));
    }
    let points: Vec<String> = came.iter().map(|(t, v)| format!("{:.1},{:.1}", x(*t), y(*v))).collect();
    let _ = write!(page, "<polyline class=\"y\" points=\"{}\"/></svg>", points.join(" "));
    let _ = write!(page, "<p>Models: {}.</p>", told_weights(&found.weights(at)));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
