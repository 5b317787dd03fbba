//! `forerun why SERVICE --at TIME`: what was up then and why, from the journal alone.

use super::journal_folder;
use crate::cli::WhyArgs;
use crate::config::nearest;
use crate::failure::Failure;
use forerun_engine::journal::{Account, Entry, HistoryError, Stage, Standing, What, account};
use forerun_types::{StopWhy, Time};
use serde_json::{Value, json};
use std::io::Write;

/// # Errors
/// A time that is none, a journal that cannot be read, a service or a time that it does not know.
pub(crate) fn run(args: &WhyArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let at = time(&args.at)?;
    let (journal, _) = journal_folder(args.journal.as_deref(), &args.file)?;
    let changes = args.changes.min(CHANGES_MAX);
    let account = account(&journal, &args.service, at, changes).map_err(|e| failure(&args.service, &e))?;
    for lost in &account.lost {
        // A closed stderr is no reason not to answer.
        let _ = writeln!(std::io::stderr(), "forerun: not read: {lost}");
    }
    if args.json {
        let text =
            serde_json::to_string_pretty(&document(&account)).map_err(|e| Failure::Running(e.to_string()))?;
        return Ok(writeln!(out, "{text}")?);
    }
    Ok(out.write_all(people(&account).as_bytes())?)
}

/// Nobody reads more than this, and a program reads the journal itself.
const CHANGES_MAX: usize = 100_000;

fn time(text: &str) -> Result<Time, Failure> {
    let wrong = |why: String| Failure::Arguments(format!("--at: {why}"));
    let micros = forerun_trace::parse_instant(text.as_bytes()).map_err(wrong)?;
    u64::try_from(micros).map(Time).map_err(|_| wrong(format!("{text} is before 1970")))
}

fn failure(service: &str, error: &HistoryError) -> Failure {
    let hint = match error {
        HistoryError::NoService { known, .. } => nearest(service, known.iter().map(String::as_str))
            .map_or_else(String::new, |near| format!("; did you mean `{near}`?")),
        _ => String::new(),
    };
    Failure::Running(format!("{error}{hint}"))
}

fn date(at: Time) -> String {
    let micros = i64::try_from(at.0).unwrap_or(i64::MAX);
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(instant) => instant.strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string(),
        Err(_) => format!("{:.3}", at.as_secs_f64()),
    }
}

/// The clock of a moment on the same day as another; else the whole date.
fn clock(at: Time, day_of: Time) -> String {
    let (text, other) = (date(at), date(day_of));
    match (text.split_once(' '), other.split_once(' ')) {
        (Some((day, clock)), Some((same, _))) if day == same => clock.trim_end_matches(" UTC").to_owned(),
        _ => text,
    }
}

fn people(a: &Account) -> String {
    let mut text = format!("{} at {}\n", a.service, date(a.at));
    let because = |reason: &str| if reason.is_empty() { String::new() } else { format!(": {reason}") };
    let since = a.wanted.since.map_or_else(
        || "from before what was read".to_owned(),
        |since| format!("since {}", clock(since, a.at)),
    );
    text += &format!("wanted: {} {since}{}\n", a.wanted.instances, because(&a.wanted.reason));
    if a.instances.is_empty() {
        text += "up: none\n";
    }
    for i in &a.instances {
        text += &format!(
            "up: {} {} since {}, started because {}\n",
            i.instance,
            stage(i.stage),
            clock(i.since, a.at),
            if i.reason.is_empty() { "(not recorded)" } else { &i.reason }
        );
    }
    text += if a.entries.is_empty() { "no change before that is known\n" } else { "changes before:\n" };
    for entry in &a.entries {
        text += &format!("  {}  {}{}\n", clock(entry.at, a.at), sentence(entry), because(&entry.reason));
    }
    if let Some(last) = a.last_step {
        text += &format!("last record: {} before\n", a.at.since(last));
    }
    if a.torn_bytes > 0 {
        text += &format!("{} bytes at the segment's end could not be read\n", a.torn_bytes);
    }
    text
}

fn stage(stage: Stage) -> &'static str {
    match stage {
        Stage::Starting => "starting",
        Stage::Ready => "ready",
        Stage::Draining => "draining",
        Stage::Stopping => "stopping",
        Stage::Paused => "paused",
    }
}

fn stop_why(why: StopWhy) -> &'static str {
    match why {
        StopWhy::Plan => "no longer wanted",
        StopWhy::Evicted => "evicted",
        StopWhy::StartTimeout => "not ready in time",
        StopWhy::ShutDown => "shutting down",
        StopWhy::Wedged => "it answers nothing",
    }
}

fn sentence(entry: &Entry) -> String {
    match entry.what {
        None => "forerun began, with nothing running".to_owned(),
        Some(What::Wanted(n)) => format!("{n} wanted"),
        Some(What::Started(i)) => format!("{i} started"),
        Some(What::Ready(i)) => format!("{i} ready"),
        Some(What::StartFailed(i)) => format!("{i} failed to start"),
        Some(What::Died(i)) => format!("{i} died"),
        Some(What::StopOrdered(i, why)) => format!("{i} told to stop, {}", stop_why(why)),
        Some(What::Stopped(i)) => format!("{i} stopped"),
        Some(What::Adopted(i)) => format!("{i} taken over"),
        Some(What::PauseOrdered(i)) => format!("{i} told to pause"),
        Some(What::Paused(i)) => format!("{i} paused"),
        Some(What::ResumeOrdered(i)) => format!("{i} told to go on"),
        Some(What::Resumed(i)) => format!("{i} goes on"),
        Some(What::NotChanged(i)) => format!("{i} stayed as it was"),
        Some(What::SpecialiseOrdered(i)) => format!("{i} told to serve one key"),
        Some(What::Specialised(i)) => format!("{i} serves one key"),
        Some(What::StoppedByHand(i)) => format!("{i} stopped by hand"),
        Some(What::Completed(i)) => format!("{i} has done its work"),
        Some(What::LetGo(i)) => format!("{i} let go"),
        Some(What::Refused(i)) => format!("an order for {i} refused by the plan checker"),
        Some(What::WouldStart(n)) => format!("would start {n}, and only advises"),
        Some(What::WouldStop(n)) => format!("would stop {n}, and only advises"),
    }
}

fn document(a: &Account) -> Value {
    let instance = |i: &Standing| {
        json!({
            "instance": i.instance.to_string(),
            "state": stage(i.stage),
            "since": i.since.as_secs_f64(),
            "reason": i.reason,
        })
    };
    json!({
        "service": a.service,
        "at": a.at.as_secs_f64(),
        "wanted": {
            "instances": a.wanted.instances,
            "since": a.wanted.since.map(Time::as_secs_f64),
            "reason": a.wanted.reason,
        },
        "instances": a.instances.iter().map(instance).collect::<Vec<_>>(),
        "changes": a.entries.iter().map(change).collect::<Vec<_>>(),
        "last_record": a.last_step.map(Time::as_secs_f64),
        "torn_bytes": a.torn_bytes,
        "lost": a.lost,
    })
}

fn change(entry: &Entry) -> Value {
    let (what, instance, wanted) = match entry.what {
        None => ("began", None, None),
        Some(What::Wanted(n)) => ("wanted", None, Some(n)),
        Some(What::Started(i)) => ("started", Some(i), None),
        Some(What::Ready(i)) => ("ready", Some(i), None),
        Some(What::StartFailed(i)) => ("start_failed", Some(i), None),
        Some(What::Died(i)) => ("died", Some(i), None),
        Some(What::StopOrdered(i, _)) => ("stop_ordered", Some(i), None),
        Some(What::Stopped(i)) => ("stopped", Some(i), None),
        Some(What::Adopted(i)) => ("adopted", Some(i), None),
        Some(What::PauseOrdered(i)) => ("pause_ordered", Some(i), None),
        Some(What::Paused(i)) => ("paused", Some(i), None),
        Some(What::ResumeOrdered(i)) => ("resume_ordered", Some(i), None),
        Some(What::Resumed(i)) => ("resumed", Some(i), None),
        Some(What::NotChanged(i)) => ("not_changed", Some(i), None),
        Some(What::SpecialiseOrdered(i)) => ("specialise_ordered", Some(i), None),
        Some(What::Specialised(i)) => ("specialised", Some(i), None),
        Some(What::StoppedByHand(i)) => ("stopped_by_hand", Some(i), None),
        Some(What::Completed(i)) => ("completed", Some(i), None),
        Some(What::LetGo(i)) => ("let_go", Some(i), None),
        Some(What::Refused(i)) => ("refused", Some(i), None),
        Some(What::WouldStart(_)) => ("would_start", None, None),
        Some(What::WouldStop(_)) => ("would_stop", None, None),
    };
    json!({
        "at": entry.at.as_secs_f64(),
        "what": what,
        "instance": instance.map(|i| i.to_string()),
        "wanted": wanted,
        "instances": match entry.what {
            Some(What::WouldStart(n) | What::WouldStop(n)) => Some(n),
            _ => None,
        },
        "reason": entry.reason,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{InstanceId, Span};

    #[test]
    fn times_are_dates_or_seconds() {
        for (text, expect) in [
            ("1700000000.5", Some(1_700_000_000_500_000)),
            ("2023-11-14T22:13:20Z", Some(1_700_000_000_000_000)),
            ("2023-11-14 22:13:20", Some(1_700_000_000_000_000)),
            ("-5", None),
            ("yesterday", None),
            ("", None),
        ] {
            let got = time(text);
            assert_eq!(got.as_ref().ok().map(|t| t.0), expect, "{text}: {got:?}");
            if let Err(error) = got {
                assert!(error.to_string().starts_with("--at: "), "{error}");
            }
        }
    }

    #[test]
    fn people_read_it_in_sentences() {
        let at = Time(1_700_000_000_000_000);
        let started = at.minus(Span::from_secs(60));
        let account = Account {
            service: "web".to_owned(),
            at,
            wanted: forerun_engine::journal::Wanted {
                instances: 1,
                since: Some(started),
                reason: "1 needed at the load of now".to_owned(),
            },
            instances: vec![Standing {
                instance: InstanceId(5),
                stage: Stage::Ready,
                since: started + Span::from_secs(1),
                reason: "1 request(s) held with no instance to take them".to_owned(),
            }],
            entries: vec![
                Entry { at: at.minus(Span::from_secs(86_400)), what: None, reason: String::new() },
                Entry { at: started, what: Some(What::Started(InstanceId(5))), reason: "held".to_owned() },
            ],
            last_step: Some(at.minus(Span::from_millis(250))),
            torn_bytes: 0,
            lost: Vec::new(),
        };
        let expect = "web at 2023-11-14 22:13:20.000 UTC\n\
             wanted: 1 since 22:12:20.000: 1 needed at the load of now\n\
             up: i5 ready since 22:12:21.000, started because 1 request(s) held with no instance to take them\n\
             changes before:\n  2023-11-13 22:13:20.000 UTC  forerun began, with nothing running\n  \
             22:12:20.000  i5 started: held\nlast record: 250ms before\n";
        assert_eq!(people(&account), expect);
        let document = document(&account);
        assert_eq!(document["instances"][0]["state"], "ready");
        assert_eq!(document["changes"][1]["what"], "started");
        assert_eq!(document["changes"][0]["instance"], Value::Null);
    }
}
