//! What a replay is told.

use crate::{LabError, Rival, rivals};
use forerun_types::{ServiceSpec, Span, Time};
use std::collections::BTreeMap;
use std::sync::Arc;

/// What may exist at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Capacity {
    #[default]
    Unlimited,
    Instances(u32),
    Bytes(u64),
}

/// The rules of the world of requests, where the trace does not tell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct World {
    /// How long a start takes, where [`Options::starts`] does not tell.
    pub start: Span,
    /// Memory of one instance, for services whose memory the trace does not tell.
    pub memory_bytes: u64,
    /// Requests that one instance serves at a time, where [`Options::concurrency`] does not tell; 0 is any number.
    pub per_instance: u32,
    /// How long a request takes, for traces that do not tell.
    pub duration: Span,
    pub capacity: Capacity,
}

impl Default for World {
    fn default() -> Self {
        Self {
            start: Span::from_secs(10),
            memory_bytes: 1_000_000_000,
            per_instance: 1,
            duration: Span::from_millis(50),
            capacity: Capacity::Unlimited,
        }
    }
}

/// Who decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyName {
    Forerun,
    /// Without what single users are about to do.
    ForerunNoUsers,
    /// Without what the services' own load did before.
    ForerunNoLoad,
    /// Without either.
    ForerunNoUsersNoLoad,
    /// Nothing is kept and nothing started ahead.
    None,
    /// An instance stays for so long after its last use.
    KeepAlive(Span),
    /// Keeps and starts by the chance that an idle instance is needed at its age.
    Hazard,
    Rival(Rival),
}

impl PolicyName {
    /// From `forerun`, `forerun-no-users`, `forerun-no-load`, `forerun-no-users-no-load`, `none`, `keep-alive=10m`,
    /// `hazard`, or a rival's name and settings as in `knative=target:0.7,window:60s`.
    ///
    /// # Errors
    /// Lists the names there are.
    pub fn parse(text: &str) -> Result<Self, LabError> {
        if let Some(keep) = text.strip_prefix("keep-alive=") {
            return forerun_trace::parse_duration(keep)
                .map(Self::KeepAlive)
                .map_err(|why| LabError::option("--policy", format!("keep-alive: {why}")));
        }
        if let Some(rival) = Rival::parse(text) {
            return rival.map(Self::Rival);
        }
        match text {
            "forerun" => Ok(Self::Forerun),
            "forerun-no-users" => Ok(Self::ForerunNoUsers),
            "forerun-no-load" => Ok(Self::ForerunNoLoad),
            "forerun-no-users-no-load" => Ok(Self::ForerunNoUsersNoLoad),
            "none" => Ok(Self::None),
            "hazard" => Ok(Self::Hazard),
            "keep-alive" => Err(LabError::option("--policy", "keep-alive needs its time: keep-alive=10m")),
            _ => Err(LabError::option(
                "--policy",
                format!(
                    "{text:?} is unknown, there are forerun, forerun-no-users, forerun-no-load, \
                     forerun-no-users-no-load, none, keep-alive=DURATION, hazard, {}",
                    rivals::NAMES
                ),
            )),
        }
    }

    /// A bound, not a policy that anyone could run.
    #[must_use]
    pub fn knows_the_future(&self) -> bool {
        matches!(self, Self::Rival(rival) if rival.knows_the_future())
    }
}

/// How to replay, but for the policy.
#[derive(Clone, Debug, PartialEq)]
pub struct Options {
    pub world: World,
    /// What one cold start is worth, in GB-seconds.
    pub cold_start_gbs: f64,
    /// Scores count from here on; before it is only learned.
    pub split: Time,
    /// Names of the services that are scored; `None` is all.
    pub only: Option<Vec<String>>,
    /// The trace was cut here; policies go on deciding up to it.
    pub until: Option<Time>,
    /// For the router's draws.
    pub seed: u64,
    /// How long a start takes, by service's name: measured ones. Traces of requests only.
    pub starts: BTreeMap<String, Span>,
    /// Requests that one instance serves at a time, by service's name. Traces of requests only.
    pub concurrency: BTreeMap<String, u32>,
    /// Bound on what the core's profiles take.
    pub profiles_bytes_max: u64,
    /// What a configuration says of services, by name: class, `min`, `max` and schedules (in UTC) bound the core's
    /// policies. How instances are made stays modelled.
    pub services: BTreeMap<String, Arc<ServiceSpec>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            world: World::default(),
            cold_start_gbs: 80.55,
            split: Time(0),
            only: None,
            until: None,
            seed: 1,
            starts: BTreeMap::new(),
            concurrency: BTreeMap::new(),
            profiles_bytes_max: 256 << 20,
            services: BTreeMap::new(),
        }
    }
}

impl Options {
    /// Which services are scored, by number.
    pub(crate) fn scored<'a>(&self, names: impl Iterator<Item = &'a str>) -> Result<Vec<bool>, LabError> {
        let Some(only) = &self.only else { return Ok(names.map(|_| true).collect()) };
        let only: std::collections::BTreeSet<&str> = only.iter().map(String::as_str).collect();
        let scored: Vec<bool> = names.map(|name| only.contains(name)).collect();
        if scored.contains(&true) {
            return Ok(scored);
        }
        let first = only.first().map_or_else(|| "it is empty".to_owned(), |n| format!("the first is {n:?}"));
        Err(LabError::option(
            "--only",
            format!("none of the services that it names is in the trace: {first}"),
        ))
    }
}
