//! The rules by their names.

use forerun_types::Time;

/// Which of the rules was broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rule {
    /// Reservations, starting and draining included, stay within the site's capacity.
    Capacity,
    /// No instance is stopped while a router has not said that it is quiet, until its drain time is over.
    StopInUse,
    /// An instance is started once.
    DoubleStart,
    /// Generations of orders and of tables never go back.
    StaleGeneration,
    /// What is only observed is not started.
    Observed,
    /// A router is sent only to instances that are ready and not ordered to stop.
    RoutedToNothing,
    /// An instance has one key for good, from the pool only if it was never used, and takes no other's requests.
    OneKey,
    /// What is a class's own is not given to others who could not give it back in time.
    Guarantee,
}

impl Rule {
    pub const ALL: [Rule; 8] = [
        Rule::Capacity,
        Rule::StopInUse,
        Rule::DoubleStart,
        Rule::StaleGeneration,
        Rule::Observed,
        Rule::RoutedToNothing,
        Rule::OneKey,
        Rule::Guarantee,
    ];

    /// The label for `forerun_invariant_violations_total{rule}`.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Rule::Capacity => "capacity",
            Rule::StopInUse => "stop_in_use",
            Rule::DoubleStart => "double_start",
            Rule::StaleGeneration => "stale_generation",
            Rule::Observed => "observed",
            Rule::RoutedToNothing => "routed_to_nothing",
            Rule::OneKey => "one_key",
            Rule::Guarantee => "guarantee",
        }
    }
}

/// A rule was broken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    pub at: Time,
    pub rule: Rule,
    pub what: String,
}
