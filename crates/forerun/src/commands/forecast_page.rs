//! The page of `forerun forecast --html`: a picture for each series, nothing fetched from anywhere.

use super::forecast::{Found, short, told_weights};
use forerun_lab::forecast::scores;
use std::fmt::Write;

/// Series that are drawn; a page of thousands is read by nobody.
const SERIES_MAX: usize = 50;
/// Steps before the first forecast that are drawn.
const BEFORE: usize = 200;
const WIDTH: f64 = 900.0;
const HEIGHT: f64 = 220.0;

/// Room for the values at the left and the times below.
const LEFT: f64 = 60.0;
const BELOW: f64 = 20.0;

const STYLE: &str = ":root{color-scheme:light dark;--came:#111;--said:#2563eb;--ground:#f6f6f6}\
@media(prefers-color-scheme:dark){:root{--came:#eee;--said:#8ab4ff;--ground:#1c1c1c}}\
body{font:15px/1.4 system-ui,sans-serif;max-width:960px;margin:2em auto;padding:0 1em}h2{overflow-wrap:anywhere}\
.scroll{overflow-x:auto}svg{width:100%;min-width:560px;height:auto}rect{fill:var(--ground)}\
polygon{fill:var(--said)}.a{opacity:.18}.b{opacity:.3}.m{stroke:var(--said)}.y{stroke:var(--came)}\
polyline{fill:none;stroke-width:1.5}text{font-size:12px;fill:currentColor}.left{text-anchor:end}\
.right{text-anchor:end}td,th{padding:.1em 1em .1em 0;text-align:right}";

/// The whole page.
pub(super) fn page(found: &Found) -> String {
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Forecast</title><style>{STYLE}</style>\
<h1>Forecast</h1><p>The black line (white on a dark page) is what came. The blue line is the forecast's median: \
half of the values should lie under it. Eight in ten should lie in the stronger band (quantiles 0.1 to 0.9), and one in a hundred above the fainter one (0.99).</p>"
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
    let x = |t: usize| LEFT + (t - from) as f64 / (to - from).max(1) as f64 * WIDTH;
    let y = |v: f64| HEIGHT - 5.0 - (v - low) / (high - low).max(1e-300) * (HEIGHT - 10.0);
    let (wide, tall, foot) = (LEFT + WIDTH, HEIGHT + BELOW, HEIGHT + 15.0);
    let name = if series.name.is_empty() { "the series".to_owned() } else { escaped(&series.name) };
    let _ = write!(
        page,
        "<h2>{name}</h2><div class=\"scroll\"><svg viewBox=\"0 0 {wide} {tall}\" role=\"img\" aria-label=\"{name}\">\
<rect x=\"{LEFT}\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>"
    );
    for share in [0.0, 0.5, 1.0] {
        let value = low + share * (high - low);
        let _ = write!(
            page,
            "<text class=\"left\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
            LEFT - 6.0,
            y(value) + 4.0,
            short(value)
        );
    }
    let _ = write!(
        page,
        "<text x=\"{LEFT}\" y=\"{foot}\">{}</text><text class=\"right\" x=\"{wide}\" y=\"{foot}\">{}</text>",
        found.time(at, from),
        found.time(at, to)
    );
    let mut medians = Vec::new();
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
        medians.push(line(1).join(" "));
    }
    let points: Vec<String> = came.iter().map(|(t, v)| format!("{:.1},{:.1}", x(*t), y(*v))).collect();
    let _ = write!(page, "<polyline class=\"y\" points=\"{}\"/>", points.join(" "));
    // Above what came, or it would not be seen.
    for median in medians {
        let _ = write!(page, "<polyline class=\"m\" points=\"{median}\"/>");
    }
    page.push_str("</svg></div>");
    if let Some(s) = scores(series, told) {
        let _ = write!(
            page,
            "<p>Of what came, {:.1}% was at or under quantile 0.9 (90% is right; more where many values are the same, such as 0) \
and {:.1}% at or under 0.99. The median was off by {} times the usual change over a season (MASE).</p>",
            100.0 * s.coverage_90,
            100.0 * s.coverage_99,
            short(s.mase)
        );
    }
    let _ =
        write!(page, "<p>What each model weighed in the median: {}.</p>", told_weights(&found.weights(at)));
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
