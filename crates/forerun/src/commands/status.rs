//! `forerun status`: what a running Forerun says of itself.

use crate::ask::Asked;
use crate::cli::StatusArgs;
use crate::failure::Failure;
use crate::terminal::{self, bytes};
use forerun_api::{BudgetStatus, Instances, KeyStatus, ServiceStatus, Status};
use std::io::Write;

pub(crate) fn run(args: &StatusArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let asked = Asked::of(&args.api)?;
    let address = asked.address();
    let body = asked.get("/v1/status")?;
    let odd = |what: String| {
        Failure::Running(format!("the api at {address} {what}; is it this version of forerun?"))
    };
    let status: Status = serde_json::from_slice(&body).map_err(|e| odd(format!("gives no status: {e}")))?;
    if args.json {
        let text = serde_json::to_string_pretty(&status).map_err(|e| odd(e.to_string()))?;
        return Ok(writeln!(out, "{text}")?);
    }
    Ok(out.write_all(table(&status).as_bytes())?)
}

fn table(status: &Status) -> String {
    let mut text = format!("forerun {}, up for {}\n", status.version, seconds(status.uptime_seconds));
    for site in &status.sites {
        let of = match site.memory_capacity_bytes {
            0 => String::new(),
            all => format!(" of {}", bytes(all)),
        };
        let reserved = bytes(site.memory_reserved_bytes);
        let plural = if site.instances == 1 { "" } else { "s" };
        let price = match site.shadow_price {
            price if price > 0.0 => format!(", full: a GB more would save {price:.1} GB-s an hour"),
            _ => String::new(),
        };
        text +=
            &format!("{}: {} instance{plural}, {reserved}{of} reserved{price}\n", site.name, site.instances);
    }
    for budget in &status.budgets {
        text += &budget_line(budget);
    }
    if let Some(why) = &status.journal.broken {
        let lost = status.journal.steps_lost;
        text += &format!("the journal cannot be written: {why}; {lost} steps are not in it\n");
    }
    let headers = [
        "SERVICE",
        "MODE",
        "WANTED",
        "READY",
        "PAUSED",
        "STARTING",
        "DRAINING",
        "IN FLIGHT",
        "WAITING",
        "REQUESTS",
        "COLD",
        "P50",
        "P99",
        "MEMORY",
        "NEXT",
        "WHY",
    ];
    let mut table = terminal::table(headers);
    for service in &status.services {
        table.add_row(row(service, status.at));
        // Keys that have nothing now are in `--json`.
        let some = |k: &&KeyStatus| k.wanted + k.waiting > 0 || k.instances != Instances::default();
        for key in service.keys.iter().filter(some) {
            table.add_row(key_row(key));
        }
    }
    text += "\n";
    text += &terminal::lines(&table);
    for (what, lines) in [("left alone", &status.problems), ("notice", &status.notices)] {
        if !lines.is_empty() {
            text += "\n";
        }
        text.extend(lines.iter().map(|line| format!("{what}: {line}\n")));
    }
    text
}

fn budget_line(budget: &BudgetStatus) -> String {
    let BudgetStatus { class, requests, cold_starts, .. } = budget;
    let (allowed, spent) = (budget.cold_start_budget * 100.0, (budget.spent * 100.0).round());
    let dearer = match budget.dearer {
        times if times > 1.0 => format!("; a cold start counts {times} times its price"),
        _ => String::new(),
    };
    format!(
        "class {class}: {cold_starts} of {requests} requests of a day were cold starts, {spent}% of what {allowed}% \
         allows{dearer}\n"
    )
}

/// Why it is as it is: what a person said or did stands before what the plan thinks.
pub(crate) fn why(service: &ServiceStatus, now: f64) -> String {
    let mut parts = Vec::new();
    if let Some(down) = &service.down {
        parts.push(format!("{} ago: {}", seconds((now - down.at).max(0.0)), down.why));
    }
    if let Some(word) = &service.word {
        let until = match word.until {
            Some(until) => format!("for {} more", seconds((until - now).max(0.0))),
            None => "until resumed".to_owned(),
        };
        parts.push(format!("held at {} by a person {until}", word.instances));
    }
    if let Some(word) = &service.mode_word {
        parts.push(format!("told to {} {} ago", word.mode, seconds((now - word.since).max(0.0))));
    }
    if !service.progress.is_empty() {
        parts.push(service.progress.clone());
    }
    match &service.would {
        Some(would) => parts.push(would.clone()),
        None if !service.reason.is_empty() => parts.push(service.reason.clone()),
        None => {}
    }
    if !service.needed_by.is_empty() {
        parts.push(format!("needed by {}", service.needed_by.join(", ")));
    }
    parts.join("; ")
}

fn row(service: &ServiceStatus, now: f64) -> Vec<String> {
    let wait = |pick: fn(&forerun_api::Waits) -> f64| {
        service.wait_seconds.as_ref().map_or("-".to_owned(), |w| seconds(pick(w)))
    };
    let next = match &service.next_change {
        Some(change) => format!("{} in {}", change.wanted, seconds((change.at - now).max(0.0))),
        None => "-".to_owned(),
    };
    vec![
        service.name.clone(),
        service.mode.clone(),
        service.wanted.to_string(),
        service.instances.ready.to_string(),
        service.instances.paused.to_string(),
        service.instances.starting.to_string(),
        service.instances.draining.to_string(),
        service.in_flight.to_string(),
        service.waiting.to_string(),
        service.requests.to_string(),
        service.cold_starts.to_string(),
        wait(|w| w.p50),
        wait(|w| w.p99),
        bytes(service.memory_bytes),
        next,
        why(service, now),
    ]
}

/// The part of a service's line that one key has.
fn key_row(key: &KeyStatus) -> Vec<String> {
    let none = || "-".to_owned();
    vec![
        format!("  @{}", key.key),
        none(),
        key.wanted.to_string(),
        key.instances.ready.to_string(),
        key.instances.paused.to_string(),
        key.instances.starting.to_string(),
        key.instances.draining.to_string(),
        key.in_flight.to_string(),
        key.waiting.to_string(),
        none(),
        none(),
        none(),
        none(),
        bytes(key.memory_bytes),
        none(),
        key.reason.clone(),
    ]
}

pub(crate) fn seconds(seconds: f64) -> String {
    forerun_types::Span::from_secs_f64(seconds).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_api::{Down, Instances, JournalStatus, ModeWord, NextChange, SiteStatus, Waits, Word};

    #[test]
    fn table_has_a_line_for_each_service() {
        let status = Status {
            version: "1.2.3".to_owned(),
            at: 1_000.0,
            uptime_seconds: 600.0,
            journal: JournalStatus {
                broken: Some("no room".to_owned()),
                steps_lost: 7,
                ..JournalStatus::default()
            },
            sites: vec![SiteStatus {
                name: "local".to_owned(),
                memory_capacity_bytes: 8_000_000_000,
                memory_reserved_bytes: 512_000_000,
                instances: 1,
                shadow_price: 0.0,
            }],
            budgets: vec![BudgetStatus {
                class: "gold".to_owned(),
                cold_start_budget: 0.01,
                requests: 1_000,
                cold_starts: 8,
                spent: 0.8,
                dearer: 2.75,
            }],
            problems: vec!["container x: forerun.maxx: unknown key".to_owned()],
            notices: Vec::new(),
            services: vec![
                ServiceStatus {
                    name: "web".to_owned(),
                    mode: "act".to_owned(),
                    wanted: 2,
                    instances: Instances { starting: 1, ready: 1, draining: 0, paused: 2 },
                    in_flight: 3,
                    requests: 40,
                    cold_starts: 5,
                    wait_seconds: Some(Waits { p50: 0.0, p99: 0.25 }),
                    memory_bytes: 61_000_000,
                    reason: "2 needed at the load of now".to_owned(),
                    next_change: Some(NextChange { at: 1_060.0, wanted: 1 }),
                    ..ServiceStatus::default()
                },
                ServiceStatus { name: "idle".to_owned(), ..ServiceStatus::default() },
            ],
        };
        let text = table(&status);
        let lines: Vec<Vec<&str>> = text.lines().map(|l| l.split_whitespace().collect()).collect();
        assert_eq!(lines[0].join(" "), "forerun 1.2.3, up for 10m");
        assert_eq!(lines[1].join(" "), "local: 1 instance, 512MB of 8.0GB reserved");
        assert_eq!(
            lines[2].join(" "),
            "class gold: 8 of 1000 requests of a day were cold starts, 80% of what 1% allows; a cold start counts 2.75 times its \
             price"
        );
        assert_eq!(lines[3].join(" "), "the journal cannot be written: no room; 7 steps are not in it");
        assert_eq!(
            lines[6].join(" "),
            "web act 2 1 2 1 0 3 0 40 5 0s 250ms 61MB 1 in 60s 2 needed at the load of now"
        );
        assert_eq!(lines[7].join(" "), "idle 0 0 0 0 0 0 0 0 0 - - 0B -");
        assert_eq!(lines[9].join(" "), "left alone: container x: forerun.maxx: unknown key");
        assert_eq!(lines.len(), 10);
    }

    #[test]
    fn what_a_person_said_comes_first() {
        let base = ServiceStatus { reason: "1 needed".to_owned(), ..ServiceStatus::default() };
        let word = |until| Some(Word { instances: 2, since: 900.0, until });
        let mode_word = Some(ModeWord { mode: "act".to_owned(), since: 940.0 });
        let down = Some(Down { at: 970.0, why: "stopped by hand".to_owned() });
        for (service, expect) in [
            (base.clone(), "1 needed"),
            (
                ServiceStatus { word: word(Some(1_030.0)), ..base.clone() },
                "held at 2 by a person for 30s more; 1 needed",
            ),
            (
                ServiceStatus { word: word(None), ..base.clone() },
                "held at 2 by a person until resumed; 1 needed",
            ),
            (ServiceStatus { mode_word, ..base.clone() }, "told to act 60s ago; 1 needed"),
            (ServiceStatus { down, ..base.clone() }, "30s ago: stopped by hand; 1 needed"),
            (
                ServiceStatus { would: Some("would stop 1: idle".to_owned()), ..base.clone() },
                "would stop 1: idle",
            ),
            (
                ServiceStatus {
                    progress: "pulling 40%".to_owned(),
                    needed_by: vec!["web".to_owned(), "api".to_owned()],
                    ..base
                },
                "pulling 40%; 1 needed; needed by web, api",
            ),
        ] {
            assert_eq!(why(&service, 1_000.0), expect);
        }
    }
}
