//! The page of `forerun replay --html`: what each policy cost and saved, cold starts against memory, and the table.
//! Nothing is fetched from anywhere, and there is no script.

mod chart;

use super::print::{columns, sentence};
use super::rows::{Row, Table};
use super::times::Times;
use crate::config::Prices;
use forerun_trace::Recorded;
use forerun_types::Span;
use std::fmt::Write;

const STYLE: &str = ":root{color-scheme:light dark;--ground:#f6f6f6;--line:#ccc;--dim:#777;--good:#15803d;--bad:#b91c1c;\
--c0:#2563eb;--c1:#c2410c;--c2:#15803d;--c3:#9333ea;--c4:#0e7490;--c5:#a16207;--c6:#be185d;--c7:#475569}\
@media(prefers-color-scheme:dark){:root{--ground:#1c1c1c;--line:#444;--dim:#999;--good:#4ade80;--bad:#f87171;\
--c0:#8ab4ff;--c1:#fdba74;--c2:#86efac;--c3:#d8b4fe;--c4:#67e8f9;--c5:#fde047;--c6:#f9a8d4;--c7:#cbd5e1}}\
body{font:15px/1.45 system-ui,sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}h1,h2{overflow-wrap:anywhere}\
.scroll{overflow-x:auto}svg{width:100%;min-width:560px;height:auto}.ground{fill:var(--ground)}\
.grid{stroke:var(--line);stroke-width:1}.front{fill:none;stroke:var(--dim);stroke-width:1.5;stroke-dasharray:5 4}\
text{font-size:12px;fill:currentColor}.end{text-anchor:end}.mid{text-anchor:middle}\
table{border-collapse:collapse;font-variant-numeric:tabular-nums}td,th{padding:.2em .8em .2em 0;text-align:right;\
white-space:nowrap}th{font-weight:600;border-bottom:1px solid var(--line)}td:first-child,th:first-child{text-align:left}\
.dim{color:var(--dim)}.good{color:var(--good)}.bad{color:var(--bad)}";

/// The whole page. `prices` are those of a configuration, for figures in money.
pub(super) fn page(
    name: &str,
    recorded: &Recorded,
    times: &Times,
    table: &Table,
    prices: Option<Prices>,
) -> String {
    let name = escaped(name);
    let mut page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
<meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Replay: {name}</title>\
<style>{STYLE}</style><h1>Replay: {name}</h1><p>{}</p>",
        escaped(&sentence(recorded, times, table))
    );
    saved(table, prices, &mut page);
    if table.compares() {
        page.push_str(
            "<h2>Cold starts against memory</h2><p>Left and down is better. The dashed line joins the runs that no other \
beats in both; hollow marks knew the future, which nobody can run.</p>",
        );
        chart::draw(table, &mut page);
    }
    page.push_str("<h2>All figures</h2><p>A run is dominated when another has no more cold starts and no more memory, and less \
of one of them. Cost is the cold starts at their price and the memory that was idle or starting, in GB-seconds.</p>\
<div class=\"scroll\"><table><tr>");
    let (headers, rows) = columns(table);
    for header in headers {
        let _ = write!(page, "<th>{}", header.to_lowercase());
    }
    for (row, cells) in table.rows.iter().zip(rows) {
        page.push_str(if row.dominated || row.bound { "<tr class=\"dim\">" } else { "<tr>" });
        for cell in cells {
            let _ = write!(page, "<td>{}", escaped(&cell));
        }
    }
    page.push_str("</table></div></html>\n");
    page
}

/// What each run would have cost, and how much less that is than the baseline's.
fn saved(table: &Table, prices: Option<Prices>, page: &mut String) {
    page.push_str("<h2>What it would have cost, and saved</h2>");
    let against = table.rows.first().and_then(|row| table.baseline(row));
    match against {
        Some(baseline) => {
            let _ = write!(
                page,
                "<p>Saved is against <b>{}</b> on the same traffic; of bounds, how much there was to save. In \
brackets where 95 of 100 such traces would lie, had they had other services of the same kinds; not told of fewer than five.</p>",
                escaped(&baseline.scores.policy)
            );
        }
        None => page.push_str(
            "<p>Nothing to compare with: ask for a fixed keep-alive too, as in --policy forerun,keep-alive=10m.</p>",
        ),
    }
    let money = prices.map(|p| p.memory_gb_hour);
    page.push_str(
        "<div class=\"scroll\"><table><tr><th>policy<th>cold starts<th>waited in all<th>memory, GB-hours",
    );
    if let Some(price) = money {
        let _ = write!(page, "<th>memory at {price} a GB-hour");
    }
    page.push_str("<th>cost, GB-hours<th>cold starts saved<th>memory saved<th>cost saved");
    for row in &table.rows {
        let (s, m) = (&row.scores, &row.scores.memory_gb_seconds);
        let hours = m.total / 3600.0;
        let waited = Span::from_secs_f64(s.added_wait_seconds.mean * s.requests as f64);
        let class = if row.bound { " class=\"dim\"" } else { "" };
        let _ = write!(
            page,
            "<tr{class}><td>{}<td>{}<td>{waited}<td>{hours:.1}",
            escaped(&named(row)),
            s.cold_starts
        );
        if let Some(price) = money {
            let _ = write!(page, "<td>{:.2}", hours * price);
        }
        let _ = write!(page, "<td>{:.1}", s.cost / 3600.0);
        match table.saved(row) {
            None => page.push_str("<td><td><td>"),
            Some((base, saved)) => {
                let of = &base.scores;
                for (before, now) in [
                    (of.cold_starts as f64, s.cold_starts as f64),
                    (of.memory_gb_seconds.total, m.total),
                    (of.cost, s.cost),
                ] {
                    share(before, now, page);
                }
                if let Some((low, high)) = saved.between {
                    let _ = write!(page, " ({:.0} to {:.0}%)", 100.0 * low, 100.0 * high);
                }
            }
        }
    }
    page.push_str("</table></div>");
}

/// How much less, of what was before; more is shown as such.
fn share(before: f64, now: f64, page: &mut String) {
    if before <= 0.0 {
        page.push_str("<td>");
        return;
    }
    let percent = 100.0 * (before - now) / before;
    let class = if percent >= 0.05 {
        "good"
    } else if percent <= -0.05 {
        "bad"
    } else {
        "dim"
    };
    // Words as well as colours: more is no saving.
    let (amount, word) = if percent < 0.0 { (-percent, " more") } else { (percent, "") };
    let _ = write!(page, "<td class=\"{class}\">{amount:.1}%{word}");
}

/// The policy, and what of the world was swept.
fn named(row: &Row) -> String {
    let mut name = row.scores.policy.clone();
    if row.told.price {
        let _ = write!(name, " at {}", row.scores.cold_start_cost);
    }
    if let Some(capacity) = &row.told.capacity {
        let _ = write!(name, ", capacity {capacity}");
    }
    if let Some(start) = &row.told.start {
        let _ = write!(name, ", start {start}");
    }
    name
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::sweep::Told;
    use forerun_lab::Scores;
    use forerun_trace::Trace;
    use forerun_types::Time;

    fn row(policy: &str, cold_starts: u64, total: f64, bound: bool) -> Row {
        let mut scores = Scores { policy: policy.to_owned(), cold_starts, requests: 10, ..Scores::default() };
        scores.memory_gb_seconds.total = total;
        scores.cost = total + cold_starts as f64;
        Row::new(scores, &Told::default(), bound)
    }

    #[test]
    fn the_page_is_whole_and_tells_what_was_saved() {
        let rows = vec![
            row("forerun<", 5, 3600.0, false),
            row("keep-alive=10m", 10, 7200.0, false),
            row("belady", 0, 100.0, true),
        ];
        let mut table = Table { rows, speed: 1.0 };
        table.weigh();
        let recorded = Recorded::Requests(Trace::default());
        let times = Times { origin_us: None, zero: Time(0), length: Span::from_secs(60) };
        let prices = Some(Prices { memory_gb_hour: 0.5, cpu_hour: 0.0 });
        let page = page("a\"b<c", &recorded, &times, &table, prices);
        for part in [
            "<title>Replay: a&quot;b&lt;c</title>",
            "Saved is against <b>keep-alive=10m</b>",
            "forerun&lt;",
            "<td>1.0<td>0.50",
            "<td class=\"good\">50.0%",
            "<polyline class=\"front\"",
            "prefers-color-scheme:dark",
        ] {
            assert!(page.contains(part), "no {part} in {page}");
        }
        assert!(!page.contains("<script") && !page.contains("http"), "nothing runs, nothing is fetched");
        assert!(!page.contains("NaN") && !page.contains("inf"), "{page}");
    }

    #[test]
    fn one_run_alone_has_no_chart() {
        let mut table = Table { rows: vec![row("forerun", 0, 0.0, false)], speed: 1.0 };
        table.weigh();
        let times = Times { origin_us: None, zero: Time(0), length: Span::ZERO };
        let page = page("x", &Recorded::Requests(Trace::default()), &times, &table, None);
        assert!(page.contains("Nothing to compare with") && !page.contains("<svg"), "{page}");
    }
}
