//! Who woke a service, and who has been there lately: the last few of each, in this process's memory only.

use forerun_types::{Span, Time};
use std::collections::VecDeque;
use std::net::IpAddr;

/// Visits that are remembered of each service.
const KEPT: usize = 5;
/// Of a user agent, which a client may make as long as a request's head.
const AGENT_CHARS_MAX: usize = 120;
/// Visits of an awake service are noted at most so often: a busy one has no use for more.
pub(crate) const NOTED_EVERY: Span = Span::from_secs(1);

/// One request that woke a service, or found it awake.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Visitor {
    pub at: Time,
    pub address: IpAddr,
    /// Method and path template.
    pub action: String,
    /// `User-Agent`, cut.
    pub agent: String,
    /// By which door: `router`, `wake`, `page` or `sablier`.
    pub by: &'static str,
}

impl Visitor {
    pub(crate) fn new(at: Time, address: IpAddr, action: String, agent: &str, by: &'static str) -> Self {
        let agent = agent.chars().take(AGENT_CHARS_MAX).collect();
        Self { at, address: address.to_canonical(), action, agent, by }
    }
}

/// The last visits of one service, the latest last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wakes {
    pub woken_by: Vec<Visitor>,
    /// Of those that found it awake, one a second at most.
    pub kept_up_by: Vec<Visitor>,
}

#[derive(Debug, Default)]
pub(crate) struct WakeLog {
    woken_by: VecDeque<Visitor>,
    kept_up_by: VecDeque<Visitor>,
}

fn push(list: &mut VecDeque<Visitor>, visitor: Visitor) {
    if list.len() >= KEPT {
        list.pop_front();
    }
    list.push_back(visitor);
}

impl WakeLog {
    pub(crate) fn woke(&mut self, visitor: Visitor) {
        push(&mut self.woken_by, visitor);
    }

    pub(crate) fn visited(&mut self, visitor: Visitor) {
        push(&mut self.kept_up_by, visitor);
    }

    pub(crate) fn read(&self) -> Wakes {
        Wakes {
            woken_by: self.woken_by.iter().cloned().collect(),
            kept_up_by: self.kept_up_by.iter().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_five_are_kept_and_cut() {
        let mut log = WakeLog::default();
        let visitor = |n: u64| {
            let address = "::ffff:10.0.0.1".parse().expect("an address");
            Visitor::new(Time(n), address, "GET /".to_owned(), &"é".repeat(1_000), "router")
        };
        (0..20).for_each(|n| log.woke(visitor(n)));
        log.visited(visitor(0));
        let wakes = log.read();
        assert_eq!(wakes.woken_by.iter().map(|v| v.at.0).collect::<Vec<_>>(), [15, 16, 17, 18, 19]);
        assert_eq!(wakes.kept_up_by.len(), 1);
        assert_eq!(wakes.woken_by[0].agent.chars().count(), AGENT_CHARS_MAX);
        assert_eq!(wakes.woken_by[0].address.to_string(), "10.0.0.1");
    }
}
