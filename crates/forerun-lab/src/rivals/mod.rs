//! Policies of others, from their papers or documents, and bounds that know the future. docs/policies.md says of each
//! where it comes from and how it is held to that.

mod autoscaled;
mod clairvoyant;
mod evict;
mod histogram;
mod hpa;
mod knative;
mod load;
mod names;

pub use hpa::HpaRules;
pub use knative::KnativeRules;

use crate::gaps::{self, Fixed, GapPolicy};
use crate::nominal::uses;
use crate::requests::Requests;
use crate::scripted::{Steered, play, steered};
use crate::steer::Steer;
use crate::{Capacity, LabError, Options, minutes};
use clairvoyant::{OptimalKeep, OptimalPrewarm};
use evict::{Belady, GreedyDual, Lru};
use forerun_trace::MinuteTrace;
use forerun_types::{Span, Time};
use hpa::Hpa;
use knative::Knative;
use names::Params;

/// The names of [`Rival::parse`].
pub(crate) const NAMES: &str =
    "always-on, lru, faascache, histogram, knative, hpa, optimal-keep, optimal-prewarm and belady";

/// A policy for comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rival {
    /// The most that a service has needed so far, for ever.
    AlwaysOn,
    /// Within a capacity: the least recently used instance goes.
    Lru,
    /// `FaasCache`'s greedy dual, within a capacity.
    FaasCache,
    /// The hybrid histogram; so long is kept what it cannot tell of.
    Histogram {
        fallback: Span,
    },
    Knative(KnativeRules),
    Hpa(HpaRules),
    /// Knows each gap, and may only keep.
    OptimalKeep,
    /// Knows each gap, and is there just in time.
    OptimalPrewarm,
    /// Within a capacity: the instance goes whose service is asked for last.
    Belady,
}

impl Rival {
    /// From `always-on`, `knative=target:0.7,window:60s` and so on; `None` if the name is no rival's.
    pub(crate) fn parse(text: &str) -> Option<Result<Self, LabError>> {
        let (name, settings) = text.split_once('=').map_or((text, None), |(n, s)| (n, Some(s)));
        let plain = match name {
            "histogram" => return Some(histogram_rules(settings)),
            "knative" => return Some(KnativeRules::parse(settings).map(Self::Knative)),
            "hpa" => return Some(HpaRules::parse(settings).map(Self::Hpa)),
            "always-on" => Self::AlwaysOn,
            "lru" => Self::Lru,
            "faascache" => Self::FaasCache,
            "optimal-keep" => Self::OptimalKeep,
            "optimal-prewarm" => Self::OptimalPrewarm,
            "belady" => Self::Belady,
            _ => return None,
        };
        Some(match settings {
            None => Ok(plain),
            Some(_) => Err(LabError::option("--policy", format!("{name} has no settings"))),
        })
    }

    /// A bound, not a policy that anyone could run.
    #[must_use]
    pub fn knows_the_future(&self) -> bool {
        matches!(self, Self::OptimalKeep | Self::OptimalPrewarm | Self::Belady)
    }

    /// Decides and plays in the world of requests.
    pub(crate) fn requests(
        self,
        requests: &Requests<'_>,
        options: &Options,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Steered, LabError> {
        let services = requests.services();
        if matches!(self, Self::Lru | Self::FaasCache | Self::Belady)
            && options.world.capacity == Capacity::Unlimited
        {
            let why = "lru, faascache and belady stop instances only to make room: give --capacity";
            return Err(LabError::option("--policy", why));
        }
        Ok(match self {
            Self::AlwaysOn => by_gaps(requests, options, &mut Fixed(Span(u64::MAX)), progress),
            Self::OptimalKeep => {
                let price_gbs = options.cold_start_gbs;
                let mut policy = OptimalKeep { price_gbs, memory: &requests.memory };
                by_gaps(requests, options, &mut policy, progress)
            }
            Self::OptimalPrewarm => {
                by_gaps(requests, options, &mut OptimalPrewarm { start: &requests.start }, progress)
            }
            Self::Histogram { fallback } => {
                let (uses, levels) = uses(requests);
                let mut policy = histogram::Gaps::new(fallback, &requests.start, levels);
                let decisions = gaps::decide(&uses, services, &mut policy, progress);
                played(requests, options, decisions, progress)
            }
            Self::Knative(rules) => with(requests, options, Knative::steer(rules, services), progress),
            Self::Hpa(rules) => with(requests, options, Hpa::steer(rules, services), progress),
            Self::Lru => with(requests, options, Lru, progress),
            Self::FaasCache => with(requests, options, GreedyDual::new(requests), progress),
            Self::Belady => with(requests, options, Belady::new(requests), progress),
        })
    }

    /// Instances wanted by app and minute.
    pub(crate) fn minutes(
        self,
        trace: &MinuteTrace,
        needs: &[Vec<u32>],
        options: &Options,
    ) -> Result<Vec<Vec<u32>>, LabError> {
        let price_gbs = options.cold_start_gbs;
        Ok(match self {
            Self::AlwaysOn => minutes::fixed(needs, usize::MAX),
            Self::OptimalKeep => clairvoyant::keep_minutes(trace, needs, price_gbs),
            Self::OptimalPrewarm => clairvoyant::prewarm_minutes(trace, needs, price_gbs),
            Self::Histogram { fallback } => {
                let minutes = fallback.0 / 60_000_000;
                if minutes * 60_000_000 != fallback.0 {
                    let why = "histogram: a trace of whole minutes needs whole minutes, as in fallback:10m";
                    return Err(LabError::option("--policy", why));
                }
                histogram::minutes(needs, usize::try_from(minutes).unwrap_or(usize::MAX))
            }
            Self::Knative(rules) => knative::minutes(&rules, &minutes::concurrency(trace)),
            Self::Hpa(rules) => hpa::minutes(&rules, &minutes::concurrency(trace)),
            Self::Lru | Self::FaasCache | Self::Belady => {
                let why =
                    "lru, faascache and belady are for traces of requests; this one is of whole minutes";
                return Err(LabError::option("--policy", why));
            }
        })
    }
}

fn histogram_rules(settings: Option<&str>) -> Result<Rival, LabError> {
    let mut fallback = Span::from_secs(600);
    for param in Params::of("histogram", settings) {
        let param = param?;
        match param.key {
            "fallback" => fallback = param.span(Span::ZERO, Span::from_secs(86_400))?,
            _ => return Err(param.unknown("fallback")),
        }
    }
    Ok(Rival::Histogram { fallback })
}

fn by_gaps(
    requests: &Requests<'_>,
    options: &Options,
    policy: &mut dyn GapPolicy,
    progress: &mut dyn FnMut(u64),
) -> Steered {
    let (uses, _) = uses(requests);
    let decisions = gaps::decide(&uses, requests.services(), policy, progress);
    played(requests, options, decisions, progress)
}

fn played(
    requests: &Requests<'_>,
    options: &Options,
    decisions: Vec<crate::Decision>,
    progress: &mut dyn FnMut(u64),
) -> Steered {
    Steered { tally: play(requests, &decisions, &options.world, progress), decisions }
}

fn with<S: Steer>(
    requests: &Requests<'_>,
    options: &Options,
    steer: S,
    progress: &mut dyn FnMut(u64),
) -> Steered {
    let until = options.until.unwrap_or(Time(0)).max(requests.horizon);
    steered(requests, steer, &options.world, until, progress)
}
