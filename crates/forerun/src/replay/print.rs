//! Scores as programs and people read them.

use super::{ReplayArgs, Times, report, size};
use crate::terminal;
use forerun_lab::Scores;
use forerun_trace::Recorded;
use forerun_types::Span;

pub(super) fn document(
    args: &ReplayArgs,
    recorded: &Recorded,
    times: &Times,
    scores: &[Scores],
    speed: f64,
) -> serde_json::Value {
    let report = report(recorded);
    let (requests, services) = size(recorded);
    let minutes = matches!(recorded, Recorded::Minutes(_));
    let first = report.first_offender.as_ref().map(|o| format!("{}:{}: {}", o.file, o.line, o.why));
    serde_json::json!({
        "trace": {
            "files": args.traces,
            "world": if minutes { "minutes" } else { "requests" },
            "requests": if minutes { scores.first().map_or(0, |s| s.requests) } else { requests },
            "services": services.len(),
            "seconds": times.length.as_secs_f64(),
            "lines": report.lines,
            "skipped": report.skipped,
            "first_skipped": first,
            "out_of_order": report.out_of_order,
        },
        "policies": scores,
        "events_per_second": speed,
        "peak_rss_bytes": peak_rss_bytes(),
    })
}

/// The most memory that this process has had; 0 where the system does not tell.
fn peak_rss_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:"));
    line.and_then(|l| l.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok()).unwrap_or(0) * 1024
}

pub(super) fn people(
    recorded: &Recorded,
    times: &Times,
    scores: &[Scores],
    speed: f64,
    sweep: bool,
) -> String {
    let (requests, services) = size(recorded);
    let what = match recorded {
        Recorded::Requests(_) => format!("{requests} requests"),
        Recorded::Minutes(trace) => format!("{} whole minutes", trace.minutes()),
    };
    let mut headers = vec![
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
    if sweep {
        headers.insert(1, "AT PRICE");
    }
    let mut table = terminal::table(headers);
    for s in scores {
        let wait = |seconds: f64| Span::from_secs_f64(seconds).to_string();
        let (w, m) = (&s.added_wait_seconds, &s.memory_gb_seconds);
        let mut row = vec![
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
        ];
        if sweep {
            row.insert(1, s.cold_start_cost.to_string());
        }
        table.add_row(row);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(comfy_table::CellAlignment::Right);
    }
    format!(
        "{what}, {} services, {}; {speed:.0} a second\n\n{}",
        services.len(),
        times.length,
        terminal::lines(&table)
    )
}
