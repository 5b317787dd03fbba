//! How many instances a load needs so that requests wait no longer than their class promises.
//!
//! Requests that come at random and take random times before so many servers: what share waits, and for how long, is
//! Erlang's delay formula (A. K. Erlang, 1917; R. B. Cooper, *Introduction to Queueing Theory*, 1981, chapter 3). Load that
//! comes in bunches is taken as Hayward does it (A. A. Fredericks, *Congestion in blocking systems*, Bell System Technical
//! Journal 59(6), 1980): where the number in progress varies z times as much as a Poisson variable would, z requests count as
//! one and z servers too.

use forerun_types::Span;

/// Servers that are tried at most.
const SERVERS_MAX: f64 = 1e6;
/// Of the requests so many may wait longer than the target.
const LATE: f64 = 0.01;

/// A service's load, as it is forecast.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Offered {
    /// Requests in progress at a time, on average, if none ever waited.
    pub(crate) mean: f64,
    /// Its variance over its mean; 1 is a Poisson variable's, and what is less counts as 1.
    pub(crate) peakedness: f64,
    /// How long a request takes.
    pub(crate) service: Span,
}

impl Offered {
    /// The chance that a request waits longer than `target` for one of `servers`; 1 where they are too few for the load.
    #[must_use]
    pub(crate) fn late(&self, servers: u32, target: Span) -> f64 {
        let z = self.peakedness.max(1.0);
        let (load, servers) = (self.mean / z, f64::from(servers) / z);
        if load <= 0.0 {
            return 0.0;
        }
        if servers <= load {
            return 1.0;
        }
        let waits = (target.0 as f64) * (servers - load) / (self.service.0.max(1) as f64);
        (delayed(load, servers) * libm::exp(-waits)).min(1.0)
    }

    /// The least number of instances, each with room for `slots` requests at a time (0: any number), at which all but one
    /// request in a hundred wait for less than `target`.
    #[must_use]
    pub(crate) fn instances(&self, slots: u32, target: Span) -> u32 {
        if self.mean <= 0.0 {
            return 0;
        }
        if slots == 0 {
            return 1;
        }
        // Enough for the load itself, then doubled until it is enough for the target, then halved to the least.
        let least = (self.mean.min(SERVERS_MAX) / f64::from(slots)) as u32;
        let enough = |instances: u32| self.late(instances.saturating_mul(slots), target) <= LATE;
        let (mut low, mut high) = (least, least + 1);
        while !enough(high) && f64::from(high) * f64::from(slots) < 4.0 * SERVERS_MAX {
            (low, high) = (high, high + (high - least));
        }
        while high - low > 1 {
            let middle = low + (high - low) / 2;
            if enough(middle) {
                high = middle;
            } else {
                low = middle;
            }
        }
        high
    }
}

/// The chance that a request finds all servers taken: Erlang's C, by the recursion of his B. Between whole numbers of
/// servers it goes straight in the logarithm.
fn delayed(load: f64, servers: f64) -> f64 {
    let whole = servers as u64;
    let mut blocked = 1.0;
    for n in 1..=whole {
        blocked = load * blocked / (n as f64 + load * blocked);
    }
    let part = servers - whole as f64;
    if part > 0.0 {
        let next = load * blocked / ((whole + 1) as f64 + load * blocked);
        blocked = libm::exp((1.0 - part) * libm::log(blocked) + part * libm::log(next));
    }
    servers * blocked / (servers - load * (1.0 - blocked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::profile::table::spread;

    const SECOND: Span = Span(1_000_000);

    fn poisson(mean: f64) -> Offered {
        Offered { mean, peakedness: 1.0, service: SECOND }
    }

    #[test]
    fn the_chance_to_wait_is_erlangs() {
        // By hand: one server, and two.
        assert!((poisson(0.5).late(1, Span::ZERO) - 0.5).abs() < 1e-12);
        assert!((poisson(1.0).late(2, Span::ZERO) - 1.0 / 3.0).abs() < 1e-12);
        assert!((poisson(0.5).late(1, SECOND) - 0.5 * libm::exp(-0.5)).abs() < 1e-12);
        assert_eq!((poisson(3.0).late(3, SECOND), poisson(0.0).late(0, SECOND)), (1.0, 0.0));
    }

    /// The share of requests that wait longer than `target`, played out: random arrivals, random times, so many servers,
    /// first come, first served.
    fn played(load: f64, servers: usize, target: f64, requests: u32) -> f64 {
        let mut state = 7u64;
        let mut random = || {
            state = spread(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            -libm::log(((state >> 11) as f64 + 0.5) / (1u64 << 53) as f64)
        };
        let (mut now, mut late) = (0.0, 0u32);
        let mut free = vec![0.0f64; servers];
        for _ in 0..requests {
            now += random() / load;
            let first = (0..servers).min_by(|a, b| free[*a].total_cmp(&free[*b])).unwrap();
            let begins = free[first].max(now);
            late += u32::from(begins - now > target);
            free[first] = begins + random();
        }
        f64::from(late) / f64::from(requests)
    }

    #[test]
    fn what_is_foretold_is_what_happens() {
        for (load, servers, target) in
            [(0.7, 1, 0.5), (3.0, 4, 0.2), (3.0, 6, 0.0), (20.0, 24, 0.2), (20.0, 27, 0.1)]
        {
            let (told, came) = (
                poisson(load).late(servers, Span((target * 1e6) as u64)),
                played(load, servers as usize, target, 1_000_000),
            );
            assert!((told - came).abs() < 0.02, "{load} on {servers}: {told} {came}");
        }
    }

    #[test]
    fn as_few_instances_as_keep_the_promise() {
        let target = Span::from_millis(100);
        for (mean, slots) in [(0.01, 1), (0.5, 1), (3.0, 1), (40.0, 1), (40.0, 8), (900.0, 16)] {
            let load = poisson(mean);
            let instances = load.instances(slots, target);
            assert!(load.late(instances * slots, target) <= LATE, "{mean} {instances}");
            assert!(
                instances == 0 || load.late((instances - 1) * slots, target) > LATE,
                "{mean} {instances}"
            );
        }
        assert_eq!((poisson(0.0).instances(1, target), poisson(9.0).instances(0, target)), (0, 1));
        assert!(poisson(f64::MAX).instances(1, target) > 1_000_000);
    }

    #[test]
    fn what_comes_in_bunches_needs_more() {
        let (target, bunched) = (Span::from_millis(500), Offered { peakedness: 20.0, ..poisson(10.0) });
        assert!(bunched.instances(1, target) > poisson(10.0).instances(1, target) + 10);
    }
}
