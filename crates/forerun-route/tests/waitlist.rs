//! The room for held requests at a router: nobody has more than there is, no class has less than its part, and the
//! lowest gives way first.

use forerun_route::{HoldRefusal, Room, RouterFull, Spot, Waitlist, WaitlistLimits};
use forerun_types::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A class: its name, priority and guarantee in thousandths.
type Class = (&'static str, u8, u32);

const GOLD: Class = ("gold", 200, 500);
const SILVER: Class = ("silver", 100, 0);
const BRONZE: Class = ("bronze", 50, 0);

fn service(class: Class) -> Arc<ServiceSpec> {
    let (name, priority, guarantee_milli) = class;
    let sla = SlaClass { name: name.to_owned(), priority, guarantee_milli, ..SlaClass::default() };
    Arc::new(ServiceSpec { sla, ..ServiceSpec::named(ServiceId(0), "s") })
}

/// A waitlist beside a model of who has a place in it.
struct World {
    limits: WaitlistLimits,
    list: Waitlist<u64>,
    /// Class, bytes and place, by number.
    held: BTreeMap<u64, (Class, u64, Spot)>,
    next: u64,
}

impl World {
    fn new(requests_max: u32, bytes_max: u64) -> Self {
        let limits = WaitlistLimits { requests_max, bytes_max };
        Self { limits, list: Waitlist::new(limits), held: BTreeMap::new(), next: 0 }
    }

    fn of(&self, class: Class) -> Vec<u64> {
        self.held.iter().filter(|(_, h)| h.0.0 == class.0).map(|(who, _)| *who).collect()
    }

    fn arrive(&mut self, class: Class, bytes: u64) -> Result<Vec<(u64, HoldRefusal)>, HoldRefusal> {
        self.next += 1;
        let who = self.next;
        let joined = self.list.join(&service(class), bytes, Time(who), who)?;
        for (pushed, _) in &joined.pushed {
            let (_, _, spot) = self.held.remove(pushed).expect("who is pushed out had a place");
            // Its own end of it comes later, and gives nothing back a second time.
            self.list.leave(&spot);
        }
        self.held.insert(who, (class, bytes, joined.spot));
        Ok(joined.pushed)
    }

    fn leave(&mut self, n: usize) {
        let Some(who) = self.held.keys().nth(n % self.held.len().max(1)).copied() else { return };
        let (_, _, spot) = self.held.remove(&who).expect("held");
        self.list.leave(&spot);
    }

    /// What of a limit is a class's own beside these, by the words of the documentation: nine tenths by guarantee, the
    /// rest by priority.
    fn part(limit: f64, class: Class, beside: &[Class]) -> f64 {
        let weight = |c: Class| f64::from(c.1) + 1.0;
        let guarantee = |c: Class| f64::from(c.2) / 1_000.0;
        let whole = beside.iter().map(|c| guarantee(*c)).sum::<f64>();
        let scale = whole.max(1.0);
        let weights: f64 = beside.iter().map(|c| weight(*c)).sum();
        let free = 1.0 - 0.9 * whole / scale;
        limit * (0.9 * guarantee(class) / scale + free * weight(class) / weights)
    }

    fn check(&self) {
        let bytes: u64 = self.held.values().map(|h| h.1).sum();
        assert_eq!((self.list.requests(), self.list.bytes()), (self.held.len(), bytes));
        assert!(self.held.len() <= self.limits.requests_max as usize && bytes <= self.limits.bytes_max);
        let told: BTreeMap<String, (u32, u64)> = self
            .list
            .by_class()
            .map(|(name, requests, bytes)| (name.to_owned(), (requests, bytes)))
            .collect();
        let mut sums: BTreeMap<String, (u32, u64)> = BTreeMap::new();
        for (class, bytes, _) in self.held.values() {
            let sum = sums.entry(class.0.to_owned()).or_default();
            *sum = (sum.0 + 1, sum.1 + bytes);
        }
        assert_eq!(told, sums);
    }
}

#[derive(Clone, Debug)]
enum Step {
    Arrive(usize, u64),
    Leave(usize),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..4_usize, 0..40_u64).prop_map(|(class, bytes)| Step::Arrive(class, bytes)),
        1 => (0..64_usize).prop_map(Step::Leave),
    ]
}

fn classes() -> impl Strategy<Value = [Class; 4]> {
    let one = || (any::<u8>(), prop_oneof![Just(0), 0..1_500_u32]);
    (one(), one(), one(), one())
        .prop_map(|(a, b, c, d)| [("a", a.0, a.1), ("b", b.0, b.1), ("c", c.0, c.1), ("d", d.0, d.1)])
}

proptest! {
    #[test]
    fn room_is_never_exceeded_and_only_surplus_is_taken(
        classes in classes(),
        requests_max in 0..20_u32,
        bytes_max in prop_oneof![Just(u64::MAX), 0..200_u64],
        steps in prop::collection::vec(step(), 1..80),
    ) {
        let mut world = World::new(requests_max, bytes_max);
        for step in steps {
            match step {
                Step::Leave(n) => world.leave(n),
                Step::Arrive(class, bytes) => arrive(&mut world, &classes, classes[class], bytes),
            }
            world.check();
        }
    }
}

/// One comes, and what becomes of it and the others is held against the words of the documentation.
fn arrive(world: &mut World, classes: &[Class], class: Class, bytes: u64) {
    let before: BTreeMap<&str, Vec<u64>> = classes.iter().map(|c| (c.0, world.of(*c))).collect();
    let bytes_before: u64 = world.held.values().map(|h| h.1).sum();
    let full = world.held.len() == world.limits.requests_max as usize;
    let fits = !full && bytes_before + bytes <= world.limits.bytes_max;
    let beside: Vec<Class> =
        classes.iter().copied().filter(|c| c.0 == class.0 || !before[c.0].is_empty()).collect();
    let requests_part = |c: Class| World::part(f64::from(world.limits.requests_max), c, &beside);
    let (own_part, parts): (f64, BTreeMap<&str, f64>) =
        (requests_part(class), beside.iter().map(|c| (c.0, requests_part(*c))).collect());
    match world.arrive(class, bytes) {
        Ok(pushed) if fits => assert_eq!(pushed.len(), 0, "there was room"),
        Ok(pushed) => {
            assert!(!pushed.is_empty() && pushed.len() <= 16);
            for (who, why) in pushed {
                let of = classes.iter().find(|c| before[c.0].contains(&who)).expect("it was held");
                assert_ne!(of.0, class.0, "nobody makes way for his own class");
                assert!(matches!(why, HoldRefusal::MadeWay(_)));
                // The last of its class that are left.
                assert!(world.of(*of).iter().all(|left| *left < who));
                assert!(!world.of(*of).is_empty(), "a class keeps one");
                if full && bytes_before + bytes <= world.limits.bytes_max {
                    assert!(before[of.0].len() as f64 > parts[of.0] - 1e-6, "it had no more than its part");
                }
            }
        }
        Err(refusal) => {
            let HoldRefusal::Router(RouterFull { room, .. }) = refusal else { panic!("{refusal:?}") };
            assert!(!fits);
            let within = (before[class.0].len() + 1) as f64 <= own_part - 1e-6;
            // One request of another class is left alone.
            let spared = beside.iter().any(|c| c.0 != class.0 && before[c.0].len() == 1);
            assert!(
                room == Room::Bytes || !within || spared,
                "{class:?} has less than its part: {refusal:?}"
            );
            let after: BTreeMap<&str, Vec<u64>> = classes.iter().map(|c| (c.0, world.of(*c))).collect();
            assert_eq!(before, after, "who is refused takes nobody along");
        }
    }
}

fn counts(world: &World) -> [usize; 3] {
    [GOLD, SILVER, BRONZE].map(|class| world.of(class).len())
}

#[test]
fn the_lowest_gives_way_first_and_keeps_its_part() {
    let mut world = World::new(100, u64::MAX);
    for _ in 0..150 {
        let _ = world.arrive(BRONZE, 1);
    }
    assert_eq!(counts(&world), [0, 0, 100], "what nobody else wants is lent");
    for _ in 0..150 {
        let _ = world.arrive(SILVER, 1);
    }
    // By priority alone, 101 to 51; what parts leave over is the highest one's.
    assert_eq!(counts(&world), [0, 67, 33]);
    for _ in 0..150 {
        let _ = world.arrive(GOLD, 1);
    }
    // 45 by guarantee, and of the other 55 by 201 : 101 : 51.
    assert_eq!(counts(&world), [78, 15, 7]);
    // The longest held of each class are still there.
    assert_eq!(world.of(BRONZE), (1..=7).collect::<Vec<_>>());
    for _ in 0..20 {
        assert!(world.arrive(GOLD, 1).is_err() && world.arrive(BRONZE, 1).is_err());
    }
    // What gold no longer wants goes to the next.
    for who in world.of(GOLD) {
        let (_, _, spot) = world.held.remove(&who).expect("held");
        world.list.leave(&spot);
    }
    for _ in 0..150 {
        let _ = world.arrive(SILVER, 1);
    }
    assert_eq!(counts(&world), [0, 93, 7]);
    world.check();
}

#[test]
fn a_class_that_nothing_speaks_for_still_gets_one_place() {
    let (all, none) = (("all", 255, 1_000), ("none", 0, 0));
    let mut world = World::new(10, u64::MAX);
    for _ in 0..20 {
        let _ = world.arrive(all, 1);
    }
    assert_eq!(world.arrive(none, 1).expect("a place").len(), 1);
    for _ in 0..20 {
        let _ = world.arrive(all, 1);
    }
    assert_eq!((world.of(all).len(), world.of(none).len()), (9, 1));
    assert!(world.arrive(none, 1).is_err());
}

#[test]
fn bytes_are_shared_out_like_requests() {
    let mut world = World::new(1_000, 1_000);
    for _ in 0..10 {
        world.arrive(BRONZE, 100).expect("there is room");
    }
    // Three of a hundred bytes make way for one of three hundred.
    let pushed = world.arrive(GOLD, 300).expect("gold has less than its part");
    assert_eq!(pushed.iter().map(|p| p.0).collect::<Vec<_>>(), [10, 9, 8]);
    let refused = world.arrive(GOLD, 2_000).expect_err("more than there is");
    assert_eq!((refused.reason(), world.held.len()), ("hold-router", 8));
    let HoldRefusal::Router(RouterFull { max: 1_000, part, .. }) = refused else { panic!("{refused:?}") };
    assert!((885..890).contains(&part), "{part}");
    let sentence = refused.to_string();
    assert!(sentence.contains("router.held_bytes_max") && sentence.contains(&part.to_string()), "{sentence}");
    world.check();
}

#[test]
fn one_class_alone_is_only_bounded() {
    let mut world = World::new(2, u64::MAX);
    let shop = ("default", 100, 0);
    assert!(world.arrive(shop, 1).is_ok_and(|pushed| pushed.is_empty()));
    assert!(world.arrive(shop, 1).is_ok_and(|pushed| pushed.is_empty()));
    let refused = world.arrive(shop, 1).expect_err("full");
    assert_eq!(refused.to_string(), "this router holds 2 requests at most, router.held_max");
    assert_eq!(refused.retry_after(), Span::from_secs(5));
    world.leave(0);
    assert!(world.arrive(shop, 1).is_ok());
}
