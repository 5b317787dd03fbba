//! `forerun demo`: a live race between a fixed keep-alive and Forerun, over real processes or
//! containers, on a real trace.
//!
//! Absent on purpose: anything scripted. What the table says was measured while it ran.

mod arrivals;
#[cfg(feature = "docker")]
mod image;
mod instances;
mod learn;
mod manifest;
mod race;
mod report;
mod show;

pub use instances::RunsOn;
pub use report::{Act, Report, Traffic, Wins};

use forerun_core::AnyPolicy;
use forerun_types::{Span, Time};
use instances::Instances;
use manifest::Services;
use race::Side;
use show::Screen;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between the end of what was learned and the first request: both sides bring up what they would have up by then.
const WARM_UP: Duration = Duration::from_secs(3);
const LEARNING_BYTES_MAX: u64 = 64 << 20;

/// Why the demo could not be played.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    #[error("the demo's manifest: {0}")]
    Manifest(String),
    #[error("the demo's data: {0}")]
    Data(String),
    #[error("the lab: {0}")]
    Lab(#[source] forerun_lab::LabError),
    #[error(transparent)]
    Engine(#[from] forerun_engine::live::StartError),
    #[error("cannot make the image of the demo's containers: {0}")]
    Image(String),
    #[error("cannot find this program's own file: {0}")]
    Program(#[source] std::io::Error),
    #[error("cannot write: {0}")]
    Write(#[from] std::io::Error),
}

/// How much of the demo to play.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    pub runs_on: RunsOn,
    /// Recorded minutes to race over, if fewer than the manifest has.
    pub race_minutes_max: Option<usize>,
}

/// Plays the demo; the preface and the table go to `out` unless it is `None`.
///
/// # Errors
/// [`DemoError`].
pub async fn run(options: Options, mut out: Option<&mut dyn Write>) -> Result<Report, DemoError> {
    let mut act = Services::load(options.runs_on)?;
    if let Some(most) = options.race_minutes_max {
        act.race_minutes.1 = act.race_minutes.1.min(act.race_minutes.0 + most.max(1));
    }
    let apps = arrivals::apps()?;
    let past = arrivals::requests(&apps, act.learn_minutes.0..act.learn_minutes.1, &act);
    let future = arrivals::requests(&apps, act.race_minutes.0..act.race_minutes.1, &act);
    let learned = learn::baseline(&past, &act)?;
    let instances = Arc::new(Instances::prepare(options.runs_on).await?);
    if let Some(out) = &mut out {
        let preface = report::preface(&act, &learned, future.events.len(), &instances.words());
        writeln!(out, "Act one: services\n\n{preface}")?;
        out.flush()?;
    }

    let past_length = act.played(minutes(act.learn_minutes));
    let length = act.played(minutes(act.race_minutes));
    let begins = Instant::now() + WARM_UP;
    let begins_at =
        Time((SystemTime::now() + WARM_UP).duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64));
    let keep = act.played(learned.keep_alive);
    let mut sides = Vec::new();
    for (name, keep) in [("keep-alive", Some(keep)), ("forerun", None)] {
        let policy = AnyPolicy::named(name, keep, LEARNING_BYTES_MAX)
            .ok_or_else(|| DemoError::Manifest(format!("no policy {name}")))?;
        let core = learn::core(policy, &past, past_length, begins_at, &act)?;
        sides.push(Side::start(name, keep, core, &apps, &act, &instances).await?);
    }
    tokio::time::sleep_until(begins.into()).await;
    for side in &mut sides {
        side.begin();
    }
    let mut screen = Screen::new();
    let screen_was_live = screen.is_live();
    let mut watch = |passed: Span| {
        if screen.is_live() {
            let minute = act.race_minutes.0 as u64 + act.recorded(passed).0 / 60_000_000;
            let clock = format!("{:02}:{:02}", minute / 60 % 24, minute % 60);
            let standings: Vec<_> = sides.iter().map(|s| (s.policy.as_str(), s.standing())).collect();
            screen.draw(&clock, length - passed, act.speedup, &standings);
        }
    };
    let tallies = race::run(&sides, &future, begins, length, &mut watch).await;
    for side in sides {
        side.stop().await;
    }
    let failed: u64 = tallies.iter().map(|t| t.failed).sum();
    let act = report::services(&tallies, future.events.len() as u64, &act)
        .ok_or_else(|| DemoError::Data("the race had not two sides".to_owned()))?;
    if let Some(out) = &mut out {
        // A line between the race and its table, where there was a race to see.
        let gap = if screen_was_live { "\n" } else { "" };
        writeln!(out, "{gap}{}", report::table(&act))?;
        if failed > 0 {
            writeln!(out, "{failed} request(s) had no good answer; they count as requests, not as waits.\n")?;
        }
        writeln!(out, "On your own log:  forerun replay access.log --policy forerun,keep-alive=10m")?;
    }
    Ok(Report { acts: vec![act] })
}

fn minutes(range: (usize, usize)) -> Span {
    Span::from_secs(60 * (range.1 - range.0) as u64)
}
