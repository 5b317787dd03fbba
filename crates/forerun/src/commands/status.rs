//! `forerun status`: what a running Forerun says of itself.

use crate::cli::StatusArgs;
use crate::config::{Config, FILE, lower_first};
use crate::failure::Failure;
use crate::terminal::{self, bytes};
use forerun_api::{ServiceStatus, Status};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::time::Duration;

/// The API answers from memory; longer than this it does not answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Ten thousand services take some 5 MB.
const ANSWER_BYTES_MAX: u64 = 64 << 20;

pub(crate) fn run(args: &StatusArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let address = address(args)?;
    let body = get(address, "/v1/status")?;
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

/// Where to ask: what was said, what the configuration says, the default.
fn address(args: &StatusArgs) -> Result<SocketAddr, Failure> {
    if let Some(address) = args.api {
        return Ok(address);
    }
    let path = match &args.file.config {
        Some(path) => path,
        None if Path::new(FILE).is_file() => Path::new(FILE),
        None => return Ok(SocketAddr::from(([127, 0, 0, 1], 7070))),
    };
    Ok(Config::load(path)?.api.listen)
}

/// The body of a successful answer.
fn get(address: SocketAddr, path: &str) -> Result<Vec<u8>, Failure> {
    let failed = |error: std::io::Error| match error.kind() {
        ErrorKind::ConnectionRefused => {
            Failure::Running(format!("nothing listens on {address}; is `forerun up` running?"))
        }
        ErrorKind::WouldBlock | ErrorKind::TimedOut => Failure::Running(format!(
            "{address} does not answer within {}s; is it forerun's api?",
            TIMEOUT.as_secs()
        )),
        _ => Failure::Running(format!("cannot ask {address}: {}", lower_first(&error.to_string()))),
    };
    let mut stream = TcpStream::connect_timeout(&address, TIMEOUT).map_err(failed)?;
    stream.set_read_timeout(Some(TIMEOUT)).map_err(failed)?;
    stream.set_write_timeout(Some(TIMEOUT)).map_err(failed)?;
    // With HTTP/1.0 the answer comes in one piece and ends with the connection.
    let head = format!("GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    stream.write_all(head.as_bytes()).map_err(failed)?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES_MAX).read_to_end(&mut answer).map_err(failed)?;
    body(&answer).map_err(|what| Failure::Running(format!("{address} {what}; is it forerun's api?")))
}

fn body(answer: &[u8]) -> Result<Vec<u8>, String> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n").ok_or("does not speak http")?;
    let head = String::from_utf8_lossy(&answer[..end]);
    let first = head.lines().next().unwrap_or_default();
    let status = first.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    match status {
        Some("200") => Ok(answer[end + 4..].to_vec()),
        Some(status) => Err(format!("answers with status {status}")),
        None => Err("does not speak http".to_owned()),
    }
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
    if let Some(why) = &status.journal.broken {
        let lost = status.journal.steps_lost;
        text += &format!("the journal cannot be written: {why}; {lost} steps are not in it\n");
    }
    let headers = [
        "SERVICE",
        "MODE",
        "WANTED",
        "READY",
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
    }
    text + "\n" + &terminal::lines(&table)
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
        service.reason.clone(),
    ]
}

fn seconds(seconds: f64) -> String {
    forerun_types::Span::from_secs_f64(seconds).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_api::{Instances, JournalStatus, NextChange, SiteStatus, Waits};

    #[test]
    fn answers_are_taken_apart() {
        for (answer, expect) in [
            ("HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\n{}", Ok("{}")),
            ("HTTP/1.1 200 OK\r\n\r\n", Ok("")),
            ("HTTP/1.0 503 Service Unavailable\r\n\r\nx", Err("answers with status 503")),
            ("HTTP/1.0 200 OK\r\n", Err("does not speak http")),
            ("SSH-2.0-x\r\n\r\n", Err("does not speak http")),
            ("", Err("does not speak http")),
        ] {
            let got = body(answer.as_bytes());
            assert_eq!(got.as_deref().map_err(String::as_str), expect.map(str::as_bytes), "{answer}");
        }
    }

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
            services: vec![
                ServiceStatus {
                    name: "web".to_owned(),
                    mode: "act".to_owned(),
                    wanted: 2,
                    instances: Instances { starting: 1, ready: 1, draining: 0 },
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
        assert_eq!(lines[2].join(" "), "the journal cannot be written: no room; 7 steps are not in it");
        assert_eq!(
            lines[5].join(" "),
            "web act 2 1 1 0 3 0 40 5 0s 250ms 61MB 1 in 60s 2 needed at the load of now"
        );
        assert_eq!(lines[6].join(" "), "idle 0 0 0 0 0 0 0 0 - - 0B -");
        assert_eq!(lines.len(), 7);
    }
}
