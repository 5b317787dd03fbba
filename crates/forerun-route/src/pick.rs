//! Which instance takes a request.

use forerun_types::{Access, InstanceId, InstanceRoute, ServiceRoute, Time, Unavailable};

/// The caller's own counters; what it does not know has nothing in flight and was never used.
pub trait LoadView {
    /// Requests at the instance now.
    fn in_flight(&self, instance: InstanceId) -> u32;
    /// When its last request began or ended.
    fn last_used(&self, instance: InstanceId) -> Time;
}

/// What to do with a request.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pick<'a> {
    Use(&'a InstanceRoute),
    /// Nothing can take it now, and something may soon.
    Hold,
    /// Nothing can take it, and nothing will soon.
    Refuse(&'a Unavailable),
}

/// Whether a request of this key may go to an instance with this access.
#[must_use]
pub fn admits(access: Access, key: Option<u64>) -> bool {
    match access {
        Access::Any | Access::Unclaimed => true,
        Access::Specialising(_) => false,
        Access::Only(owner) => key == Some(owner),
    }
}

/// An instance that is already the key's goes first, and one that a key could still claim is spared while another
/// can do.
fn rank(access: Access) -> u8 {
    match access {
        Access::Only(_) => 0,
        Access::Any => 1,
        Access::Unclaimed | Access::Specialising(_) => 2,
    }
}

/// Picks an instance for a request of `key`.
///
/// With bounded concurrency the free instance that was used last takes it, so that the others stay idle and can be
/// stopped; with any number of requests at a time, the less loaded of two that `draw` (uniform over all of `u64`)
/// names. Ties go to the lower id.
pub fn pick<'a>(route: &'a ServiceRoute, load: &impl LoadView, key: Option<u64>, draw: u64) -> Pick<'a> {
    let picked = match route.spec.concurrency {
        0 => less_loaded_of_two(route, load, key, draw),
        limit => most_recently_used(route, load, key, limit),
    };
    match (picked, &route.unavailable) {
        (Some(instance), _) => Pick::Use(instance),
        (None, Some(why)) if route.instances.is_empty() => Pick::Refuse(why),
        (None, _) => Pick::Hold,
    }
}

fn most_recently_used<'a>(
    route: &'a ServiceRoute,
    load: &impl LoadView,
    key: Option<u64>,
    limit: u32,
) -> Option<&'a InstanceRoute> {
    route
        .instances
        .iter()
        .filter(|i| admits(i.access, key) && load.in_flight(i.instance) < limit)
        .min_by_key(|i| (rank(i.access), std::cmp::Reverse(load.last_used(i.instance)), i.instance))
}

fn less_loaded_of_two<'a>(
    route: &'a ServiceRoute,
    load: &impl LoadView,
    key: Option<u64>,
    draw: u64,
) -> Option<&'a InstanceRoute> {
    let admitting = || route.instances.iter().filter(|i| admits(i.access, key));
    let best = admitting().map(|i| rank(i.access)).min()?;
    let candidates = || admitting().filter(|i| rank(i.access) == best);
    let count = candidates().count() as u64;
    let first = place_below(draw >> 32, count);
    // The second differs from the first: its place is drawn among the others.
    let second = match count {
        1 => first,
        _ => (first + 1 + place_below(draw & 0xffff_ffff, count - 1)) % count,
    };
    candidates()
        .zip(0..)
        .filter(|(_, place)| *place == first || *place == second)
        .map(|(instance, _)| instance)
        .min_by_key(|i| (load.in_flight(i.instance), i.instance))
}

/// A 32-bit draw as a place below `count`, without the bias of a remainder.
fn place_below(draw: u64, count: u64) -> u64 {
    (draw * count.min(u64::from(u32::MAX))) >> 32
}

#[cfg(test)]
mod tests {
    use super::*;
    use forerun_types::{ServiceId, ServiceSpec, Span};
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::sync::Arc;

    /// (in flight, last used) by instance.
    #[derive(Debug, Default)]
    struct Loads(BTreeMap<u64, (u32, u64)>);

    impl LoadView for Loads {
        fn in_flight(&self, instance: InstanceId) -> u32 {
            self.0.get(&instance.0).map_or(0, |l| l.0)
        }
        fn last_used(&self, instance: InstanceId) -> Time {
            Time(self.0.get(&instance.0).map_or(0, |l| l.1))
        }
    }

    fn route(concurrency: u32, instances: &[(u64, Access)], unavailable: bool) -> ServiceRoute {
        let mut spec = ServiceSpec::named(ServiceId(1), "shop");
        spec.concurrency = concurrency;
        ServiceRoute {
            spec: Arc::new(spec),
            instances: instances
                .iter()
                .map(|&(id, access)| InstanceRoute {
                    instance: InstanceId(id),
                    address: ([127, 0, 0, 1], 1).into(),
                    access,
                })
                .collect(),
            unavailable: unavailable.then(|| Unavailable {
                why: "crashed three times".to_owned(),
                retry_after: Span::from_secs(5),
            }),
            notes: forerun_types::WaitNotes::default(),
        }
    }

    /// `Some(id)` to use, `None` to hold.
    fn check(
        concurrency: u32,
        instances: &[(u64, Access)],
        loads: &[(u64, u32, u64)],
        key: Option<u64>,
        expect: Option<u64>,
    ) {
        let route = route(concurrency, instances, false);
        let loads = Loads(loads.iter().map(|&(id, flight, used)| (id, (flight, used))).collect());
        let got = match pick(&route, &loads, key, 0) {
            Pick::Use(instance) => Some(instance.instance.0),
            Pick::Hold => None,
            Pick::Refuse(why) => panic!("refused: {why:?}"),
        };
        assert_eq!(got, expect, "{instances:?} {loads:?} {key:?}");
    }

    #[test]
    fn bounded_concurrency_keeps_the_most_recently_used_busy() {
        use Access::{Any, Only, Specialising, Unclaimed};
        let three = [(1, Any), (2, Any), (3, Any)];
        check(1, &three, &[], None, Some(1));
        check(1, &three, &[(2, 0, 9), (3, 0, 7)], None, Some(2));
        check(1, &three, &[(2, 1, 9), (3, 0, 7)], None, Some(3));
        check(1, &three, &[(1, 1, 0), (2, 1, 9), (3, 1, 7)], None, None);
        check(2, &three, &[(1, 2, 0), (2, 1, 9), (3, 1, 10)], None, Some(3));
        check(1, &three, &[(1, 0, 5), (3, 0, 5)], None, Some(1));
        check(1, &[], &[], None, None);
        check(1, &[(1, Specialising(7))], &[], Some(7), None);
        check(1, &[(1, Only(7))], &[], None, None);
        check(1, &[(1, Only(7))], &[], Some(8), None);
        check(1, &[(1, Any), (2, Only(7))], &[(1, 0, 9)], Some(7), Some(2));
        check(1, &[(1, Any), (2, Only(7))], &[(2, 1, 9)], Some(7), Some(1));
        check(1, &[(1, Unclaimed), (2, Any)], &[(1, 0, 9)], Some(7), Some(2));
        check(1, &[(1, Unclaimed)], &[], Some(7), Some(1));
    }

    #[test]
    fn unbounded_concurrency_takes_the_less_loaded() {
        use Access::{Any, Only};
        check(0, &[(1, Any)], &[(1, 900, 0)], None, Some(1));
        check(0, &[(1, Any), (2, Any)], &[(1, 5, 9), (2, 4, 0)], None, Some(2));
        check(0, &[(1, Any), (2, Any)], &[(1, 4, 0), (2, 4, 9)], None, Some(1));
        check(0, &[(1, Any), (2, Only(3))], &[(2, 50, 9)], Some(3), Some(2));
        check(0, &[(2, Only(3))], &[], None, None);
    }

    #[test]
    fn refused_only_when_nothing_is_there() {
        assert!(matches!(pick(&route(1, &[], true), &Loads::default(), None, 0), Pick::Refuse(_)));
        let busy = Loads([(1, (1, 0))].into());
        assert_eq!(pick(&route(1, &[(1, Access::Any)], true), &busy, None, 0), Pick::Hold);
    }

    #[test]
    fn every_pair_is_drawn_about_as_often() {
        let ids: Vec<_> = (0..5).map(|id| (id, Access::Any)).collect();
        let route = route(0, &ids, false);
        // Only instance 4 is idle: it wins whenever it is one of the two, which is 2 in 5.
        let loads = Loads((0..4).map(|id| (id, (1, 0))).collect());
        let draws = 10_000_u64;
        let won = (0..draws)
            .filter(|n| {
                let draw = (n + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                matches!(pick(&route, &loads, None, draw ^ (draw >> 29)), Pick::Use(i) if i.instance.0 == 4)
            })
            .count();
        assert!((3_800..4_200).contains(&won), "{won} of {draws}");
    }

    fn some_access() -> impl Strategy<Value = Access> {
        prop_oneof![
            Just(Access::Any),
            Just(Access::Unclaimed),
            (0..3_u64).prop_map(Access::Specialising),
            (0..3_u64).prop_map(Access::Only),
        ]
    }

    proptest! {
        #[test]
        fn a_pick_is_free_and_admits_and_is_found_when_there_is_one(
            concurrency in 0..4_u32,
            accesses in prop::collection::vec(some_access(), 0..8),
            loads in prop::collection::vec((0..5_u32, 0..9_u64), 8),
            key in prop::option::of(0..3_u64),
            draw: u64,
            unavailable: bool,
        ) {
            let instances: Vec<_> = accesses.into_iter().zip(0..).map(|(a, id)| (id, a)).collect();
            let route = route(concurrency, &instances, unavailable);
            let loads = Loads(loads.into_iter().zip(0..).map(|(l, id)| (id, l)).collect());
            let free = |i: &InstanceRoute| {
                admits(i.access, key) && (concurrency == 0 || loads.in_flight(i.instance) < concurrency)
            };
            match pick(&route, &loads, key, draw) {
                Pick::Use(instance) => {
                    prop_assert!(free(instance));
                    if concurrency > 0 {
                        let newer = route.instances.iter().filter(|i| free(i) && rank(i.access) == rank(instance.access));
                        prop_assert_eq!(
                            newer.map(|i| loads.last_used(i.instance)).max(),
                            Some(loads.last_used(instance.instance))
                        );
                    }
                }
                Pick::Hold => {
                    prop_assert!(!route.instances.iter().any(free));
                    prop_assert!(!unavailable || !route.instances.is_empty());
                }
                Pick::Refuse(_) => prop_assert!(unavailable && route.instances.is_empty()),
            }
        }
    }
}
