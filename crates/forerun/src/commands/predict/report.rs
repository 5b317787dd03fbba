//! The scores of predictions for people: as text, and as a page.

use forerun_lab::PredictScores;
use std::fmt::Write;

/// Side of the calibration plot in pixels.
const SIDE: f64 = 320.0;

pub(super) fn people(steps: u64, items: usize, s: &PredictScores, speed: f64) -> String {
    let mut text = format!(
        "{steps} steps, {items} items; {} steps of {} users scored\n\
         right at once          {:6.1}%\n\
         right within five      {:6.1}%\n\
         mean of 1/rank         {:7.3}\n\
         bits a step            {:7.3}\n\
         calibration error      {:7.3}\n\
         new to everyone        {:6.1}%\n",
        s.scored,
        s.users,
        100.0 * s.acc1,
        100.0 * s.acc5,
        s.mrr10,
        s.bits,
        s.ece,
        100.0 * s.new_share
    );
    if let Some(when) = &s.when {
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "when: off by {:.3} in ln(1 + seconds), CRPS {:.3}, {:.1}% within the 80% range",
            when.mean_abs_log_error,
            when.crps_log,
            100.0 * when.cover_10_90
        );
    }
    let _ = writeln!(text, "{speed:.0} steps a second, {} bytes a user", s.bytes_per_user);
    text
}

const STYLE: &str = ":root{color-scheme:light dark;--dot:#2563eb;--line:#888}\
@media(prefers-color-scheme:dark){:root{--dot:#8ab4ff}}\
body{font:15px/1.4 system-ui,sans-serif;max-width:60em;margin:2em auto;padding:0 1em}h1{overflow-wrap:anywhere}\
td,th{padding:.1em 1em .1em 0;text-align:right;vertical-align:top}td:first-child,th:first-child{text-align:left}\
svg{max-width:100%;height:auto}svg text{font-size:12px;text-anchor:end;fill:currentColor}svg .across{text-anchor:middle}\
rect,line{fill:none;stroke:var(--line)}circle{fill:var(--dot);opacity:.8}";

/// Experts that weigh less than this are not listed one by one.
const WEIGHT_LEAST: f64 = 0.005;

/// A page that needs nothing else: the scores, and how often what was said to be so likely came.
pub(super) fn page(name: &str, s: &PredictScores) -> String {
    let mut dots = String::new();
    let mut rows = String::new();
    for (n, chance, right) in s.calibration.iter().filter(|(n, ..)| *n > 0) {
        let radius = 2.0 + 10.0 * (*n as f64 / s.scored.max(1) as f64).sqrt();
        let _ = write!(
            dots,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\"><title>said {:.0}%, came {:.0}%, {n} steps</title></circle>",
            SIDE * chance,
            SIDE * (1.0 - right),
            100.0 * chance,
            100.0 * right
        );
        let _ = write!(rows, "<tr><td>{:.1}%<td>{:.1}%<td>{n}", 100.0 * chance, 100.0 * right);
    }
    let axes = axes();
    let name = escape(name);
    let (figures, weights) = (figures(s), weights(s));
    format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\
         <title>Next activity: {name}</title><style>{STYLE}</style>\
         <h1>Next activity: {name}</h1><p>Before each step of a user, every item was given a chance of being the next. \
         {} steps of {} users were scored; those before them were only learned from.</p><table>{figures}</table>\
         <h2>Does what is said to be likely come?</h2><p>Each dot is a group of steps whose likeliest item was given about the \
         same chance. On the line it came as often as was said; above it more often, below it less. A larger dot is more \
         steps.</p>\
         <svg width=\"400\" height=\"400\" viewBox=\"-60 -20 400 400\" role=\"img\" aria-label=\"chance said against how \
         often it came\"><rect width=\"{SIDE}\" height=\"{SIDE}\"/><line x1=\"0\" y1=\"{SIDE}\" x2=\"{SIDE}\" y2=\"0\"/>\
         {axes}{dots}</svg>\
         <table><tr><th>said<th>came<th>steps{rows}</table>\
         <h2>What the predictions went by</h2><p>Each way of looking at what came before has its own guess; the prediction \
         is a weighted mean of the guesses, then corrected. Mean weights over the scored steps; the weights are learned on \
         the way. An order of n looks at the last n steps.</p><table><tr><th>way of looking<th>weight{weights}</table></html>\n",
        s.scored, s.users
    )
}

fn weights(s: &PredictScores) -> String {
    let (listed, rest): (Vec<_>, Vec<_>) = s.experts.iter().partition(|(_, w)| *w >= WEIGHT_LEAST);
    let mut rows: String =
        listed.iter().map(|(name, w)| format!("<tr><td>{}<td>{:.1}%", escape(name), 100.0 * w)).collect();
    if !rest.is_empty() {
        let sum: f64 = rest.iter().map(|(_, w)| w).sum();
        let _ = write!(rows, "<tr><td>{} others<td>{:.1}%", rest.len(), 100.0 * sum);
    }
    rows
}

/// The marks of both axes, in quarters: dots at their ends stay whole, as the plot has a margin.
fn axes() -> String {
    let mark = |quarter: u32| {
        let (share, percent) = (f64::from(quarter) / 4.0, 25 * quarter);
        let (x, y) = (SIDE * share, SIDE * (1.0 - share));
        format!(
            "<text class=\"across\" x=\"{:.1}\" y=\"{:.1}\">{percent}%</text><text x=\"-6\" y=\"{:.1}\">{percent}%</text>",
            x,
            SIDE + 18.0,
            y + 4.0
        )
    };
    let names = format!(
        "<text class=\"across\" x=\"{:.1}\" y=\"{:.1}\">chance that was said</text>\
         <text class=\"across\" transform=\"translate(-46 {:.1}) rotate(-90)\">how often it came</text>",
        SIDE / 2.0,
        SIDE + 38.0,
        SIDE / 2.0
    );
    (0..=4).map(mark).chain([names]).collect()
}

/// The scores as rows of a table, each with what it means.
fn figures(s: &PredictScores) -> String {
    let percent = |share: f64| format!("{:.1}%", 100.0 * share);
    let mut rows = vec![
        ("the likeliest item came", percent(s.acc1)),
        ("one of the five likeliest came", percent(s.acc5)),
        ("mean of 1/rank of what came, within ten", format!("{:.3}", s.mrr10)),
        ("bits a step (0: always sure and right)", format!("{:.3}", s.bits)),
        ("how far chances are from how often it came, on average", percent(s.ece)),
        ("steps to an item that nobody had turned to before", percent(s.new_share)),
    ];
    if let Some(when) = &s.when {
        let factor = when.mean_abs_log_error.exp();
        rows.push(("the time to the next step is off by a factor of about", format!("{factor:.1}")));
        rows.push((
            "error of the time's whole distribution (CRPS of ln(1 + seconds))",
            format!("{:.3}", when.crps_log),
        ));
        rows.push(("times within the range that 80% should be in", percent(when.cover_10_90)));
    }
    rows.into_iter().map(|(what, value)| format!("<tr><td>{what}<td>{value}")).collect()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_write_into_the_page() {
        let scores = PredictScores {
            scored: 1,
            users: 1,
            acc1: 1.0,
            acc5: 1.0,
            mrr10: 1.0,
            bits: 0.5,
            ece: 0.1,
            new_share: 0.0,
            when: None,
            bytes: 1,
            bytes_per_user: 1,
            calibration: vec![(1, 0.75, 1.0)],
            experts: vec![("own order 1".to_owned(), 0.5)],
        };
        let page = page("<script>", &scores);
        assert!(!page.contains("<script>") && page.contains("&lt;script&gt;"), "{page}");
        assert!(page.contains("cx=\"240.0\" cy=\"0.0\"") && page.contains("own order 1"), "{page}");
        assert!(page.contains("<text x=\"-6\" y=\"84.0\">75%</text>"), "{page}");
    }
}
