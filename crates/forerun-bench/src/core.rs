//! Events per second of the decision core on one thread: profiles learned, next steps predicted, load followed, plans
//! priced and renewed, from batches as a router sends them.

use crate::Figure;
use forerun_core::{Core, Forerun};
use forerun_types::{
    Action, ActionKey, Activity, Event, GroupKey, RouterId, ServiceId, ServiceLoad, ServiceSpec, SiteId,
    Span, TenantKey, Time, Traffic, UserKey,
};
use std::collections::HashMap;
use std::hint::black_box;
use std::sync::Arc;
use std::time::Instant;

const ACTIVITIES: usize = 2_000_000;
const BATCH: usize = 512;
const USERS: u64 = 20_000;
const SERVICES: u32 = 1_000;
const MEMORY: u64 = 64 << 20;

struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }
}

/// Users walk habitual rounds over a few services each, and stray one time in five.
fn batches() -> Vec<(Time, Event)> {
    let mut random = Random(1);
    let mut place: Vec<u32> = (0..USERS).map(|_| 0).collect();
    let mut now = Time(1_700_000_000_000_000);
    let mut out = Vec::with_capacity(ACTIVITIES / BATCH);
    let mut in_flight = vec![0u32; SERVICES as usize];
    for _ in 0..ACTIVITIES / BATCH {
        now += Span::from_millis(20);
        let mut traffic = Traffic { router: RouterId(0), ..Traffic::default() };
        let mut touched = Vec::new();
        for _ in 0..BATCH {
            let draw = random.next();
            let user = draw % USERS;
            let step = &mut place[user as usize];
            *step = if draw >> 40 & 0xff < 51 { (draw >> 48) as u32 % 64 } else { *step + 1 };
            let service = ((user * 7 + u64::from(*step % 6) * 131) % u64::from(SERVICES)) as u32;
            traffic.activities.push(Activity {
                at: now,
                tenant: TenantKey(0),
                user: UserKey(user + 1),
                group: GroupKey(user % 10 + 1),
                site: SiteId(0),
                service: ServiceId(service),
                action: ActionKey(1),
            });
            touched.push(service);
        }
        touched.sort_unstable();
        touched.dedup();
        for &service in &touched {
            let load = &mut in_flight[service as usize];
            *load = (random.next() % 3) as u32;
            traffic.services.push(ServiceLoad {
                service: ServiceId(service),
                in_flight: *load,
                peak: *load + 1,
                waiting: 0,
            });
        }
        out.push((now, Event::Traffic(traffic)));
    }
    out
}

fn core() -> Core<Forerun> {
    let mut core = Core::new(Forerun::new(MEMORY));
    let mut actions = Vec::new();
    for id in 0..SERVICES {
        let spec = ServiceSpec { concurrency: 1, ..ServiceSpec::named(ServiceId(id), format!("s{id}")) };
        core.step(Time(1_700_000_000_000_000), &Event::Service(Arc::new(spec)), &mut actions);
    }
    core
}

/// Activities per second with everything that follows from them, ticks included.
fn activities_per_second(batches: &[(Time, Event)]) -> f64 {
    let mut core = core();
    let mut actions = Vec::new();
    let began = Instant::now();
    for (now, event) in batches {
        core.step(*now, event, &mut actions);
        if core.next_due() <= *now {
            core.step(*now, &Event::Tick, &mut actions);
        }
        obey(&mut core, *now, &mut actions);
    }
    (batches.len() * BATCH) as f64 / began.elapsed().as_secs_f64()
}

/// A world whose starts and stops take no time.
fn obey(core: &mut Core<Forerun>, now: Time, actions: &mut Vec<Action>) {
    let mut events = Vec::new();
    for action in actions.drain(..) {
        events.extend(match action {
            Action::Start { instance, .. } => {
                let address = ([127, 0, 0, 1], 80).into();
                Some(Event::Ready { instance, address, took: Span::from_secs(10) })
            }
            Action::Stop { instance, .. } => Some(Event::Stopped { instance }),
            _ => None,
        });
    }
    for event in events {
        core.step(now, &event, actions);
    }
    black_box(actions.len());
    actions.clear();
}

/// What a program does at the least that counts per user and service: one insertion into the standard hash map each.
fn insertions_per_second(batches: &[(Time, Event)]) -> f64 {
    let mut counts: HashMap<(u64, u32), u32> = HashMap::new();
    let began = Instant::now();
    for (_, event) in batches {
        if let Event::Traffic(traffic) = event {
            for a in &traffic.activities {
                *counts.entry((a.user.0, a.service.0)).or_default() += 1;
            }
        }
    }
    black_box(counts.len());
    (batches.len() * BATCH) as f64 / began.elapsed().as_secs_f64()
}

pub(crate) fn run() -> Vec<Figure> {
    let batches = batches();
    insertions_per_second(&batches); // warms the caches and the allocator
    let reference = insertions_per_second(&batches);
    let value = activities_per_second(&batches);
    vec![Figure::new(
        format!("activities, {USERS} users, {SERVICES} services, 64 MiB"),
        value,
        "per second",
        "std HashMap insertions",
        reference,
    )]
}
