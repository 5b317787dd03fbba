//! Which keys are worth an instance of their own: each test opens with what it guarantees.

#![allow(clippy::unwrap_used)]

mod keys_world;

use forerun_core::Forerun;
use forerun_types::*;
use keys_world::*;
use std::sync::Arc;

const KEYS: u64 = 20;

/// SplitMix64.
struct Draw(u64);

impl Draw {
    fn unit(&mut self) -> f64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) >> 11) as f64 / (1u64 << 53) as f64
    }

    fn exponential(&mut self, mean: f64) -> f64 {
        -mean * libm::log(1.0 - self.unit())
    }
}

/// Requests, by time in milliseconds.
fn requests(seconds: u64) -> Vec<(u64, u64)> {
    let mut draw = Draw(7);
    let mut out = Vec::new();
    for key in 0..KEYS {
        let mean = 8_000.0 + 3_000.0 * key as f64;
        let mut at = mean * draw.unit();
        while at < seconds as f64 * 1e3 {
            let mut t = at;
            for _ in 0..5 {
                out.push((t as u64, key));
                t += draw.exponential(500.0);
            }
            at += if key % 2 == 0 { mean * (0.98 + 0.04 * draw.unit()) } else { draw.exponential(mean) };
        }
    }
    out.sort_unstable();
    out
}

/// What a run of three minutes had while its last two were scored.
#[derive(Debug)]
struct Score {
    /// Requests whose key's instance was up when they came.
    hits: f64,
    /// Instances for keys, and generic ones, on average over the requests.
    keyed: f64,
    generic: f64,
}

/// Requests for twenty keys where eight instances have room.
fn race(key_start: Span, change: Span) -> Score {
    let one = Resources { memory_bytes: 64 << 20, ..Resources::default() };
    let spec = ServiceSpec {
        start_estimate: Span::from_millis(400),
        drain_timeout: Span::from_secs(2),
        concurrency: 8,
        resources: one,
        specialise: Some(Specialise { keys_max: 64, ..shop(true).specialise.unwrap() }),
        ..shop(true)
    };
    let mut world = World::new(Forerun::new(1 << 20), &[]);
    let capacity = Resources { memory_bytes: 8 * one.memory_bytes, ..one };
    world.tell(Event::Site(SiteSpec { id: SiteId(0), name: String::new(), capacity, instances_max: 0 }));
    world.tell(Event::Service(Arc::new(spec)));
    (world.start, world.key_start, world.change) = (Span::from_millis(30), key_start, change);
    let (began, scored) = (world.now, world.now + Span::from_secs(60));
    let (mut all, mut score) = (0.0, Score { hits: 0.0, keyed: 0.0, generic: 0.0 });
    for (at, key) in requests(180) {
        world.pass((began + Span::from_millis(at)).since(world.now));
        let name = format!("k{key}");
        let id = world.variant(&name).or_else(|| world.see(&name)).unwrap();
        if world.now >= scored {
            let keyed = world.processes.values().filter(|p| p.key.is_some()).count();
            all += 1.0;
            score.hits += f64::from(u8::from(world.up(id) > 0));
            score.keyed += keyed as f64;
            score.generic += (world.processes.len() - keyed) as f64;
        }
        visit(&mut world, id, key);
    }
    Score { hits: score.hits / all, keyed: score.keyed / all, generic: score.generic / all }
}

/// One request, which waits for its key's instance if it must.
fn visit(world: &mut World<Forerun>, id: ServiceId, key: u64) {
    if world.up(id) == 0 {
        world.hold(id, 1);
        for _ in 0..200 {
            world.pass(Span::from_millis(50));
            if world.up(id) > 0 {
                break;
            }
        }
    }
    let user = Activity {
        at: world.now,
        tenant: TenantKey(0),
        user: UserKey(key + 1),
        group: GroupKey(0),
        site: SiteId(0),
        service: id,
        action: ActionKey(0),
    };
    world.load(id, 1, 0, vec![user]);
    world.pass(Span::from_millis(1));
    world.load(id, 0, 0, Vec::new());
}

#[test]
fn the_room_is_for_the_keys_that_are_asked_for_next() {
    let score = race(Span::from_millis(500), Span::from_millis(350));
    assert!(score.hits > 0.85 && score.keyed > 6.0, "{score:?}");
}

#[test]
fn generic_instances_take_no_room_where_becoming_a_keys_takes_as_long_as_its_start() {
    let score = race(Span::from_millis(500), Span::from_millis(480));
    assert!(score.hits > 0.88 && score.generic < 0.9 && score.keyed > 7.0, "{score:?}");
    let quick = race(Span::from_millis(500), Span::from_millis(50));
    assert!(quick.generic > score.generic, "{quick:?}");
}
