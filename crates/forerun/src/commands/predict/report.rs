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

/// A page that needs nothing else: the scores, and how often what was said to be so likely came.
pub(super) fn page(name: &str, s: &PredictScores) -> String {
    let mut dots = String::new();
    let mut rows = String::new();
    for (n, chance, right) in s.calibration.iter().filter(|(n, ..)| *n > 0) {
        let radius = 2.0 + 10.0 * (*n as f64 / s.scored.max(1) as f64).sqrt();
        let _ = write!(
            dots,
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"{radius:.1}\"><title>{n} steps</title></circle>",
            SIDE * chance,
            SIDE * (1.0 - right)
        );
        let _ = write!(rows, "<tr><td>{n}<td>{chance:.3}<td>{right:.3}");
    }
    let axes = axes();
    let name = escape(name);
    let figures = escape(&figures(s));
    let weights: String =
        s.experts.iter().map(|(name, w)| format!("<tr><td>{}<td>{w:.4}", escape(name))).collect();
    format!(
        "<!doctype html><meta charset=\"utf-8\"><title>Next activity: {name}</title>\
         <style>body{{font:15px sans-serif;margin:2em;max-width:60em}}td,th{{padding:.1em 1em .1em 0;text-align:right}}\
         td:first-child{{text-align:left}}svg text{{font-size:12px;text-anchor:end}}circle{{fill:#36c;opacity:.7}}</style>\
         <h1>Next activity: {name}</h1><pre>{figures}</pre>\
         <h2>Calibration</h2><p>Across: the chance that was given to the likeliest item. Up: how often it came. On the \
         line the two agree; a dot's size is its share of the steps.</p>\
         <svg width=\"400\" height=\"400\" viewBox=\"-50 -20 400 400\"><rect width=\"{SIDE}\" height=\"{SIDE}\" fill=\"none\" \
         stroke=\"#888\"/><line x1=\"0\" y1=\"{SIDE}\" x2=\"{SIDE}\" y2=\"0\" stroke=\"#888\"/>{axes}{dots}</svg>\
         <table><tr><th>steps<th>said<th>came{rows}</table>\
         <h2>Weights</h2><p>What each expert's word weighed in the first stage, on average over the scored steps.</p>\
         <table><tr><th>expert<th>weight{weights}</table>\n"
    )
}

/// The marks of both axes, in quarters: dots at their ends stay whole, as the plot has a margin.
fn axes() -> String {
    let mark = |quarter: u32| {
        let share = f64::from(quarter) / 4.0;
        let (x, y) = (SIDE * share, SIDE * (1.0 - share));
        format!(
            "<text x=\"{:.1}\" y=\"{:.1}\">{share:.2}</text><text x=\"-6\" y=\"{:.1}\">{share:.2}</text>",
            x + 12.0,
            SIDE + 18.0,
            y + 4.0
        )
    };
    (0..=4).map(mark).collect()
}

fn figures(s: &PredictScores) -> String {
    let mut text = format!(
        "scored {} steps of {} users\nacc@1 {:.4}  acc@5 {:.4}  mrr {:.4}  bits {:.4}  calibration error {:.4}",
        s.scored, s.users, s.acc1, s.acc5, s.mrr10, s.bits, s.ece
    );
    if let Some(when) = &s.when {
        let _ = write!(text, "\nwhen: error {:.4}  CRPS {:.4}", when.mean_abs_log_error, when.crps_log);
    }
    text
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
        assert!(page.contains("<text x=\"-6\" y=\"84.0\">0.75</text>"), "{page}");
    }
}
