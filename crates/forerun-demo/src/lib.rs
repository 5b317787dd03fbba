//! `forerun demo`: live races between a fixed keep-alive and Forerun, over real processes or
//! containers, on real traces.
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
mod script;
mod show;
mod visitors;

pub use instances::RunsOn;
pub use report::{Act, Report, Traffic, Wins};

use forerun_types::{Span, Time};
use instances::Instances;
use race::Side;
use script::Script;
use show::Screen;
use std::io::Write;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between the end of what was learned and the first request: both sides bring up what they would have up by then.
const WARM_UP: Duration = Duration::from_secs(3);
/// In the order in which they are played.
const ACTS: [&str; 2] = ["services", "users"];

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
#[derive(Clone, Debug, Default)]
pub struct Options {
    pub runs_on: RunsOn,
    /// The only act to play.
    pub act: Option<String>,
    /// Recorded minutes to race over, if fewer than the manifest has.
    pub race_minutes_max: Option<usize>,
}

/// Plays the demo; prefaces and tables go to `out` unless it is `None`.
///
/// # Errors
/// [`DemoError`].
pub async fn run(options: Options, mut out: Option<&mut dyn Write>) -> Result<Report, DemoError> {
    let instances = Arc::new(Instances::prepare(options.runs_on).await?);
    let mut acts = Vec::new();
    for act in ACTS {
        if options.act.as_deref().is_none_or(|only| only == act) {
            let script = Script::load(act, options.runs_on, options.race_minutes_max)?;
            let out = out.as_mut().map(|out| &mut **out as &mut dyn Write);
            acts.push(play(&script, &instances, out).await?);
        }
    }
    if let Some(out) = &mut out {
        writeln!(out, "On your own log:  forerun replay access.log --policy forerun,keep-alive=10m")?;
    }
    Ok(Report { acts })
}

/// Plays one act.
async fn play(
    script: &Script,
    instances: &Arc<Instances>,
    mut out: Option<&mut dyn Write>,
) -> Result<Act, DemoError> {
    let learned = learn::baseline(&script.past, &script.rules)?;
    if let Some(out) = &mut out {
        writeln!(out, "{}\n\n{}", script.title, report::preface(script, &learned, &instances.words()))?;
        out.flush()?;
    }
    let begins = Instant::now() + WARM_UP;
    let begins_at =
        Time((SystemTime::now() + WARM_UP).duration_since(UNIX_EPOCH).map_or(0, |d| d.as_micros() as u64));
    let keep = script.rules.played(learned.keep_alive);
    let mut sides = Vec::new();
    for policy in script.policies {
        sides.push(Side::start(policy, Some(keep), begins_at, script, instances).await?);
    }
    tokio::time::sleep_until(begins.into()).await;
    for side in &mut sides {
        side.begin();
    }
    let mut screen = Screen::new();
    let screen_was_live = screen.is_live();
    let mut watch = |passed: Span| {
        if screen.is_live() {
            let standings: Vec<_> = sides.iter().map(|s| (s.policy.as_str(), s.standing())).collect();
            let left = script.race_length() - passed;
            screen.draw(&script.clock(passed), left, script.rules.speedup, &standings);
        }
    };
    let tallies = race::run(&sides, &script.future, begins, script.race_length(), &mut watch).await;
    for side in sides {
        side.stop().await;
    }
    let failed: u64 = tallies.iter().map(|t| t.failed).sum();
    let act = report::act(&tallies, script)
        .ok_or_else(|| DemoError::Data("the race had fewer than two sides".to_owned()))?;
    if let Some(out) = &mut out {
        // A line between the race and its table, where there was a race to see.
        let gap = if screen_was_live { "\n" } else { "" };
        writeln!(out, "{gap}{}", report::table(&act))?;
        if failed > 0 {
            writeln!(out, "{failed} request(s) had no good answer; they count as requests, not as waits.\n")?;
        }
    }
    Ok(act)
}
