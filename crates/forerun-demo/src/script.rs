//! The acts: who is served in each, what is learned from and what is raced.

use crate::manifest::Rules;
use crate::{DemoError, RunsOn, arrivals, visitors};
use forerun_trace::Trace;
use forerun_types::{Span, UserKey};
use std::collections::BTreeSet;

/// A service of an act.
#[derive(Clone, Debug)]
pub(crate) struct App {
    pub(crate) name: String,
    pub(crate) memory_bytes: u64,
}

/// One act, ready to be played. Times of the traces are at playing speed, from 0 at the beginning of their first minute.
pub(crate) struct Script {
    pub(crate) act: &'static str,
    pub(crate) title: &'static str,
    /// Where the traffic is from, for one line.
    pub(crate) source: &'static str,
    /// How the recording became requests.
    pub(crate) how: &'static str,
    /// The baseline first, Forerun last.
    pub(crate) policies: &'static [&'static str],
    pub(crate) rules: Rules,
    pub(crate) apps: Vec<App>,
    pub(crate) past: Trace,
    pub(crate) future: Trace,
    /// Whether its minutes are those of a day.
    pub(crate) has_clock: bool,
}

impl Script {
    /// The act of this name.
    ///
    /// # Errors
    /// A manifest or data that cannot be read, which tests rule out.
    pub(crate) fn load(
        act: &'static str,
        runs_on: RunsOn,
        race_minutes_max: Option<usize>,
    ) -> Result<Self, DemoError> {
        let mut rules = Rules::load(act, runs_on)?;
        if let Some(most) = race_minutes_max {
            rules.race_minutes.1 = rules.race_minutes.1.min(rules.race_minutes.0 + most.max(1));
        }
        match act {
            "users" => users(rules),
            _ => services(rules),
        }
    }

    pub(crate) fn past_length(&self) -> Span {
        self.rules.played(minutes(self.rules.learn_minutes))
    }

    pub(crate) fn race_length(&self) -> Span {
        self.rules.played(minutes(self.rules.race_minutes))
    }

    /// What a minute of the recording is called: the time of day, or its number where it has none.
    pub(crate) fn minute(&self, minute: usize) -> String {
        match self.has_clock {
            true => format!("{:02}:{:02}", minute / 60 % 24, minute % 60),
            false => format!("minute {minute}"),
        }
    }

    /// The same so long after the race began.
    pub(crate) fn clock(&self, passed: Span) -> String {
        self.minute(self.rules.race_minutes.0 + (self.rules.recorded(passed).0 / 60_000_000) as usize)
    }

    /// Distinct users of the race.
    pub(crate) fn users(&self) -> usize {
        let known = self.future.events.iter().map(|e| e.user).filter(|u| *u != UserKey::NOBODY);
        known.collect::<BTreeSet<_>>().len()
    }
}

fn services(rules: Rules) -> Result<Script, DemoError> {
    let apps = arrivals::apps()?;
    let of = |range: (usize, usize)| arrivals::requests(&apps, range.0..range.1, &rules);
    let (past, future) = (of(rules.learn_minutes), of(rules.race_minutes));
    Ok(Script {
        act: "services",
        title: "Act one: services",
        source: "Azure Functions 2019 (CC BY 4.0), 47 applications by minute; Shahrad et al., ATC '20",
        how: "The trace tells the mean concurrency c of each minute: ceil(c) requests arrive in it, each lasting
          60 c / ceil(c) seconds, at instants drawn by a fixed seed.",
        policies: &["keep-alive", "forerun"],
        apps: apps.into_iter().map(|a| a.app).collect(),
        past,
        future,
        rules,
        has_clock: true,
    })
}

fn users(rules: Rules) -> Result<Script, DemoError> {
    let whole = visitors::requests(&rules)?;
    let of = |range: (usize, usize)| visitors::minutes(&whole, range.0..range.1, &rules);
    let memory_bytes = rules.untold.memory_bytes;
    let app = |name: &String| App { name: name.clone(), memory_bytes };
    Ok(Script {
        act: "users",
        title: "Act two: users",
        source: "access log of semicomplete.com, May 2015 (Apache-2.0, Elastic's examples)",
        how: "The log holds one minute of every hour: these minutes are played back to back. A service is the first
          segment of the path, a user an address; an instance takes 1 GB and answers any number at a time.",
        policies: &["keep-alive", "forerun-no-users", "forerun"],
        apps: whole.services.iter().map(app).collect(),
        past: of(rules.learn_minutes),
        future: of(rules.race_minutes),
        rules,
        has_clock: false,
    })
}

pub(crate) fn minutes(range: (usize, usize)) -> Span {
    Span::from_secs(60 * (range.1 - range.0) as u64)
}
