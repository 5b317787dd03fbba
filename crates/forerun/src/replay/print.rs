//! Scores as programs and people read them.

use super::rows::{Row, Table};
use super::times::Times;
use super::whatif::Journal;
use super::{ReplayArgs, report, size};
use crate::terminal;
use forerun_trace::Recorded;
use forerun_types::Span;
use serde_json::{Value, json};

pub(super) fn document(
    args: &ReplayArgs,
    recorded: &Recorded,
    times: &Times,
    table: &Table,
    journal: Option<&Journal>,
) -> Value {
    let report = report(recorded);
    let (requests, services) = size(recorded);
    let minutes = matches!(recorded, Recorded::Minutes(_));
    let first = report.first_offender.as_ref().map(|o| format!("{}:{}: {}", o.file, o.line, o.why));
    let mut document = json!({
        "trace": {
            "files": args.traces,
            "world": if minutes { "minutes" } else { "requests" },
            "requests": if minutes { table.rows.first().map_or(0, |r| r.scores.requests) } else { requests },
            "services": services.len(),
            "seconds": times.length.as_secs_f64(),
            "lines": report.lines,
            "skipped": report.skipped,
            "first_skipped": first,
            "out_of_order": report.out_of_order,
        },
        "policies": table.rows.iter().map(|row| scores(table, row)).collect::<Vec<_>>(),
        "events_per_second": table.speed,
        "peak_rss_bytes": peak_rss_bytes(),
    });
    if let Some(journal) = journal {
        document["trace"]["journal"] = json!({
            "path": args.journal,
            "measured_starts": journal.measured_starts,
            "unfinished": journal.unfinished,
            "torn_bytes": journal.torn_bytes,
            "lost_segments": journal.lost,
        });
    }
    document
}

/// A run's scores; of several also where it stands among them, and what of the world was swept.
fn scores(table: &Table, row: &Row) -> Value {
    let mut scores = json!(row.scores);
    if table.compares() {
        scores["dominated"] = row.dominated.into();
        scores["knows_the_future"] = row.bound.into();
    }
    if let Some((against, saved)) = table.saved(row) {
        let (low, high) = saved.between.unzip();
        scores["saved"] = json!({
            "against": against.scores.policy,
            "cost": saved.cost,
            "low": low,
            "high": high,
        });
    }
    if let Some(capacity) = &row.told.capacity {
        scores["capacity"] = capacity.as_str().into();
    }
    if let Some(start) = &row.told.start {
        scores["start"] = start.as_str().into();
    }
    scores
}

/// The most memory that this process has had; 0 where the system does not tell.
pub(super) fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

/// A table's head, and how its rows are filled.
const COLUMNS: [&str; 15] = [
    "POLICY",
    "COLD STARTS",
    "OF ALL",
    "WAIT P50",
    "P95",
    "P99",
    "MEAN",
    "BUSY GB-S",
    "IDLE GB-S",
    "STARTING",
    "TOTAL",
    "STARTED",
    "PRECISION",
    "RECALL",
    "COST GB-S",
];

fn cells(row: &Row) -> Vec<String> {
    let s = &row.scores;
    let wait = |seconds: f64| Span::from_secs_f64(seconds).to_string();
    let (w, m) = (&s.added_wait_seconds, &s.memory_gb_seconds);
    vec![
        s.policy.clone(),
        s.cold_starts.to_string(),
        format!("{:.1}%", s.cold_start_ratio * 100.0),
        wait(w.p50),
        wait(w.p95),
        wait(w.p99),
        wait(w.mean),
        format!("{:.0}", m.busy),
        format!("{:.0}", m.idle),
        format!("{:.0}", m.starting),
        format!("{:.0}", m.total),
        s.instances_started.to_string(),
        format!("{:.0}%", s.prewarm_precision * 100.0),
        format!("{:.0}%", s.prewarm_recall * 100.0),
        format!("{:.0}", s.cost),
    ]
}

/// The table's head and rows, with the columns that a sweep and a comparison add.
pub(super) fn columns(table: &Table) -> (Vec<&'static str>, Vec<Vec<String>>) {
    let (price, capacity, start) =
        (table.told(|t| t.price), table.told(|t| t.capacity.is_some()), table.told(|t| t.start.is_some()));
    let swept = [(price, "AT PRICE"), (capacity, "CAPACITY"), (start, "START")];
    let mut headers = COLUMNS.to_vec();
    headers.splice(1..1, swept.iter().filter(|s| s.0).map(|s| s.1));
    if table.compares() {
        headers.push("DOMINATED");
    }
    let row = |row: &Row| {
        let mut cells = cells(row);
        let told = [
            price.then(|| row.scores.cold_start_cost.to_string()),
            row.told.capacity.clone(),
            row.told.start.clone(),
        ];
        cells.splice(1..1, told.into_iter().flatten());
        if table.compares() {
            cells.push(
                if row.bound {
                    "knew"
                } else if row.dominated {
                    "yes"
                } else {
                    "no"
                }
                .to_owned(),
            );
        }
        cells
    };
    (headers, table.rows.iter().map(row).collect())
}

/// What the first run saved against each other one of its world.
fn saved(table: &Table) -> String {
    let Some((first, others)) = table.rows.split_first() else { return String::new() };
    let percent = |part: f64| format!("{:.0}%", part * 100.0);
    let told = |other: &Row| {
        let saved = table.against(first, other)?;
        let how = if saved.cost < 0.0 { "more" } else { "less" };
        let between = saved.between.map_or_else(String::new, |(low, high)| {
            format!(", 95 in 100 such traces from {} to {} less", percent(low), percent(high))
        });
        let names = (&first.scores.policy, &other.scores.policy);
        Some(format!("{} cost {} {how} than {}{between}\n", names.0, percent(saved.cost.abs()), names.1))
    };
    others.iter().filter_map(told).collect()
}

/// What each SLA class got from each policy that the core decides by; empty where no configuration says what classes
/// there are, or there is but one and it is promised nothing.
fn classes(table: &Table) -> String {
    let tells = |row: &&Row| {
        let classes = &row.scores.classes;
        classes.len() > 1 || classes.iter().any(|c| c.guarantee > 0.0)
    };
    let policies =
        table.rows.iter().filter(tells).flat_map(|row| row.scores.classes.iter().map(move |c| (row, c)));
    let wait = |seconds: f64| Span::from_secs_f64(seconds).to_string();
    let rows: Vec<Vec<String>> = policies
        .map(|(row, c)| {
            vec![
                row.scores.policy.clone(),
                c.class.clone(),
                c.requests.to_string(),
                c.cold_starts.to_string(),
                c.refused.to_string(),
                wait(c.added_wait_seconds.p50),
                wait(c.added_wait_seconds.p99),
                wait(c.latency_seconds),
                format!("{:.1}%", c.share_held * 100.0),
                format!("{:.1}%", c.guarantee * 100.0),
                wait(c.share_short_seconds),
            ]
        })
        .collect();
    if rows.is_empty() {
        return String::new();
    }
    let mut shown = terminal::table(vec![
        "POLICY",
        "CLASS",
        "REQUESTS",
        "COLD STARTS",
        "REFUSED",
        "WAIT P50",
        "P99",
        "TARGET",
        "HELD",
        "GUARANTEED",
        "SHORT OF IT",
    ]);
    shown.add_rows(rows);
    for column in shown.column_iter_mut().skip(2) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    format!("\n{}", terminal::lines(&shown))
}

/// What was replayed, in a line.
pub(super) fn sentence(recorded: &Recorded, times: &Times, table: &Table) -> String {
    let (requests, services) = size(recorded);
    let what = match recorded {
        Recorded::Requests(_) => format!("{requests} requests"),
        Recorded::Minutes(trace) => format!("{} whole minutes", trace.minutes()),
    };
    format!("{what}, {} services, {}; {:.0} a second", services.len(), times.length, table.speed)
}

/// What the last column says.
const WEIGHED: &str = "dominated: another has no more cold starts and no more memory, and less of one; \
                       knew: knows the future, a bound";

pub(super) fn people(recorded: &Recorded, times: &Times, table: &Table, journal: Option<&Journal>) -> String {
    let (headers, rows) = columns(table);
    let mut shown = terminal::table(headers);
    shown.add_rows(rows);
    for column in shown.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    let journal = journal.map_or_else(String::new, |j| format!("{}\n", j.sentences()));
    let weighed = if table.compares() { format!("\n{WEIGHED}\n\n{}", saved(table)) } else { String::new() };
    let (sentence, lines) = (sentence(recorded, times, table), terminal::lines(&shown));
    format!("{sentence}\n{journal}\n{lines}{weighed}{}", classes(table))
}
