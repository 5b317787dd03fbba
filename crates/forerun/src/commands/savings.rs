//! `forerun savings`: what the traffic of a live run costs by Forerun, and what it would have cost by others.
//!
//! The journal's requests are decided anew by each, in one and the same world, so that what differs is the policy alone.

use super::journal_folder;
use crate::cli::SavingsArgs;
use crate::failure::Failure;
use crate::replay::{self, ReplayArgs};
use clap::Parser;
use forerun_trace::{parse_duration, parse_instant};
use forerun_types::Time;
use std::ffi::OsString;
use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

/// # Errors
/// A `--since` that is no time, a journal that cannot be read or has no request since then.
pub(crate) fn run(args: &SavingsArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(Time(0), |d| Time(d.as_micros() as u64));
    let since = args.since.as_deref().map(|text| since(text, now)).transpose()?;
    let (journal, config) = journal_folder(args.journal.as_deref(), &args.file)?;
    let mut words: Vec<OsString> = vec!["replay".into(), "--journal".into(), journal.into_os_string()];
    words.extend(["--policy".into(), format!("forerun,{}", args.against.join(",")).into()]);
    if let Some(config) = config {
        words.extend(["--config".into(), config.into_os_string()]);
    }
    if let Some(since) = &since {
        words.extend(["--split".into(), since.into()]);
    }
    if let Some(page) = &args.html {
        words.extend(["--html".into(), page.clone().into_os_string()]);
    }
    if args.json {
        words.push("--json".into());
    }
    let Replay { args: replayed } =
        Replay::try_parse_from(words).map_err(|e| Failure::Arguments(e.to_string()))?;
    // What it says of its own arguments is about this command's.
    replay::run(&replayed, out).map_err(|failure| match failure {
        Failure::Arguments(text) => Failure::Arguments(text.replace("--split", "--since")),
        other => other,
    })
}

/// The arguments of `forerun replay`, which does the work.
#[derive(Debug, Parser)]
struct Replay {
    #[command(flatten)]
    args: ReplayArgs,
}

/// A date, as `replay --split` takes it: what lies before teaches, and is not counted.
fn since(text: &str, now: Time) -> Result<String, Failure> {
    if let Ok(back) = parse_duration(text) {
        let micros = i64::try_from(now.minus(back).0).unwrap_or(i64::MAX);
        let from = jiff::Timestamp::from_microsecond(micros);
        return from.map(|t| t.to_string()).map_err(|e| Failure::Arguments(format!("--since: {e}")));
    }
    match parse_instant(text.as_bytes()) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => {
            Err(Failure::Arguments(format!("--since: {text:?} is neither a time back, as 30d, nor a date")))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn since_is_a_time_back_or_a_date() {
        let now = Time(1_000_000_000 * 1_000_000);
        let told = |text: &str| since(text, now).ok();
        assert_eq!(told("30d").as_deref(), Some("2001-08-10T01:46:40Z"));
        assert_eq!(told("90s").as_deref(), Some("2001-09-09T01:45:10Z"));
        assert_eq!(told("2026-11-01").as_deref(), Some("2026-11-01"));
        assert_eq!(told("a while"), None);
        assert_eq!(told("99999999d").as_deref(), Some("1970-01-01T00:00:00Z"));
    }
}
