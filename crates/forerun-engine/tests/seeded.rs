//! The shell under a seeded world: hundreds of events of every kind, obedient and faulty backends, a disk that can
//! be cut at any byte. What holds is checked after every event; every journal must replay to the bit.

#![allow(clippy::unwrap_used)]

use forerun_backends::{StartOrder, StopOrder};
use forerun_core::{AnyPolicy, Core};
use forerun_engine::journal;
use forerun_engine::ports::{Backends, Clock, Disk, DiskHealth, DiskOrder, Reading, Routers};
use forerun_engine::shell::{JournalSettings, Ports, Shell};
use forerun_types::*;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

const ROUTER: RouterId = RouterId(0);
const CAPACITY: u32 = 4;

/// SplitMix64, one stream per purpose, so that a new draw does not shift the others.
struct Random(u64);

impl Random {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (x ^ (x >> 31)) % n
    }
}

struct SimClock(Time);
impl Clock for SimClock {
    fn read(&mut self) -> Reading {
        Reading { now: self.0, jumped: None }
    }
}

#[derive(Default)]
struct SimDisk {
    segments: BTreeMap<u64, Vec<u8>>,
    current: u64,
    full: bool,
    broken: bool,
}
impl Disk for SimDisk {
    fn order(&mut self, order: DiskOrder) {
        match order {
            DiskOrder::Segment { number, bytes } if !self.full => {
                self.segments.insert(number, bytes);
                self.current = number;
                self.broken = false;
            }
            DiskOrder::Append(bytes) if !self.full && !self.broken => {
                self.segments.get_mut(&self.current).unwrap().extend(bytes);
            }
            DiskOrder::Remove { number } => {
                self.segments.remove(&number);
            }
            DiskOrder::Sync if !self.full => {}
            _ => self.broken = true,
        }
    }
    fn health(&mut self) -> DiskHealth {
        if self.broken { DiskHealth::Broken("no space left on device".to_owned()) } else { DiskHealth::Good }
    }
}

#[derive(Default)]
struct SimBackends {
    starting: Vec<StartOrder>,
    alive: BTreeSet<InstanceId>,
    ever: BTreeSet<InstanceId>,
    stopping: Vec<StopOrder>,
}
impl Backends for SimBackends {
    fn start(&mut self, order: StartOrder) {
        assert!(self.ever.insert(order.instance), "{} was started twice", order.instance);
        self.alive.insert(order.instance);
        self.starting.push(order);
    }
    fn stop(&mut self, order: StopOrder) {
        self.stopping.push(order);
    }
    fn adopt(&mut self, _: StartOrder, _: &str) {}
    fn pause(&mut self, _: InstanceId, _: Generation) {}
    fn resume(&mut self, _: InstanceId, _: Generation) {}
    fn specialise(&mut self, _: StartOrder) {}
    fn ask_busy(&mut self, _: StartOrder) {}
    fn let_go(&mut self, _: InstanceId) {}
    fn know(&mut self, _: &[Arc<ServiceSpec>]) {}
}

#[derive(Default)]
struct SimRouters {
    tables: Vec<Arc<RouteTable>>,
}
impl Routers for SimRouters {
    fn publish(&mut self, table: Arc<RouteTable>) {
        self.tables.push(table);
    }
}

struct World {
    shell: Shell<SimClock, SimDisk, SimBackends, SimRouters>,
    waiting: [u32; 3],
    in_flight: BTreeMap<InstanceId, u32>,
    quiescing: Vec<(InstanceId, Generation)>,
    tables_seen: usize,
    stop_seen: usize,
}

fn journal_settings() -> JournalSettings {
    JournalSettings {
        policy: "forerun".to_owned(),
        first_segment: 1,
        existing: Vec::new(),
        segment_bytes_max: 64 << 10,
        bytes_max: 64 << 20,
        flush_interval: Span::from_secs(1),
    }
}

impl World {
    fn new() -> Self {
        Self::with(journal_settings())
    }

    fn with(settings: JournalSettings) -> Self {
        let ports = Ports {
            clock: SimClock(Time(1_700_000_000_000_000)),
            disk: SimDisk::default(),
            backends: SimBackends::default(),
            routers: SimRouters::default(),
        };
        let policy = AnyPolicy::named("forerun", None, 1 << 16).unwrap();
        let mut world = Self {
            shell: Shell::new(Core::new(policy), ports, settings),
            waiting: [0; 3],
            in_flight: BTreeMap::new(),
            quiescing: Vec::new(),
            tables_seen: 0,
            stop_seen: 0,
        };
        world.handle(Event::Began);
        world.handle(Event::Site(SiteSpec {
            id: SiteId(0),
            name: "here".to_owned(),
            capacity: Resources::default(),
            instances_max: CAPACITY,
        }));
        world.handle(Event::RouterJoined(ROUTER));
        for id in 0..3 {
            let spec = ServiceSpec {
                start_estimate: Span::from_secs(1),
                ..ServiceSpec::named(ServiceId(id), format!("s{id}"))
            };
            world.handle(Event::Service(Arc::new(spec)));
        }
        world
    }

    fn handle(&mut self, event: Event) {
        self.shell.handle(&event);
        self.routers_read();
        self.check();
    }

    /// What a router does with each new table: notes what left, answers when it is quiet.
    fn routers_read(&mut self) {
        let tables: Vec<Arc<RouteTable>> = self.shell.ports_mut().routers.tables[self.tables_seen..].to_vec();
        self.tables_seen += tables.len();
        for table in tables {
            let listed: BTreeSet<InstanceId> =
                table.services.iter().flat_map(|s| &s.instances).map(|i| i.instance).collect();
            for &instance in self.in_flight.keys().filter(|i| !listed.contains(i)) {
                if !self.quiescing.iter().any(|q| q.0 == instance) {
                    self.quiescing.push((instance, table.generation));
                }
            }
            self.quiescing.retain(|q| !listed.contains(&q.0));
            for instance in listed {
                self.in_flight.entry(instance).or_insert(0);
            }
        }
    }

    /// What always holds, read from orders and counters alone.
    fn check(&mut self) {
        let alive = self.shell.ports_mut().backends.alive.len();
        assert!(alive <= CAPACITY as usize, "{alive} instances on a site that has room for {CAPACITY}");
        let stops: Vec<StopOrder> = self.shell.ports_mut().backends.stopping[self.stop_seen..].to_vec();
        self.stop_seen += stops.len();
        for stop in stops {
            let busy = self.in_flight.get(&stop.instance).copied().unwrap_or(0);
            assert_eq!(
                busy, 0,
                "{} was stopped with {busy} requests in flight before its drain time",
                stop.instance
            );
        }
    }

    fn traffic(&mut self, service: u32, activity: bool, user: u64) {
        let now = self.shell.ports_mut().clock.0;
        let Some(table) = self.shell.ports_mut().routers.tables.last().cloned() else { return };
        let listed: Vec<InstanceId> = table
            .service(ServiceId(service))
            .map_or_else(Vec::new, |s| s.instances.iter().map(|i| i.instance).collect());
        let in_flight = listed.iter().filter_map(|i| self.in_flight.get(i)).sum();
        let waiting = self.waiting[service as usize];
        let instances = listed
            .iter()
            .map(|i| InstanceLoad { instance: *i, in_flight: self.in_flight[i], last_used: now })
            .collect();
        let activities = activity.then_some(Activity {
            at: now,
            tenant: TenantKey(0),
            user: UserKey(user),
            group: GroupKey(0),
            site: SiteId(0),
            service: ServiceId(service),
            action: ActionKey(1),
        });
        self.handle(Event::Traffic(Traffic {
            router: ROUTER,
            activities: activities.into_iter().collect(),
            services: vec![ServiceLoad {
                service: ServiceId(service),
                in_flight,
                peak: in_flight + waiting,
                waiting,
            }],
            instances,
            ..Traffic::default()
        }));
    }

    fn request(&mut self, service: u32, user: u64) {
        let table = self.shell.ports_mut().routers.tables.last().cloned().unwrap();
        let free = table
            .service(ServiceId(service))
            .and_then(|s| s.instances.iter().map(|i| i.instance).find(|i| self.in_flight[i] == 0));
        match free {
            Some(instance) => {
                self.in_flight.insert(instance, 1);
            }
            None => {
                self.waiting[service as usize] += 1;
                let waiting = self.waiting[service as usize];
                self.handle(Event::Waiting {
                    router: ROUTER,
                    service: ServiceId(service),
                    user: UserKey(user),
                    waiting,
                });
            }
        }
        self.traffic(service, true, user);
    }

    fn finish_one(&mut self, pick: u64) {
        let busy: Vec<InstanceId> = self.in_flight.iter().filter(|f| *f.1 > 0).map(|f| *f.0).collect();
        if busy.is_empty() {
            return;
        }
        let instance = busy[(pick % busy.len() as u64) as usize];
        self.in_flight.insert(instance, 0);
        for service in 0..3 {
            self.traffic(service, false, 0);
        }
    }

    fn backend_moves(&mut self, pick: u64, fault: u64) {
        let backends = &mut self.shell.ports_mut().backends;
        if !backends.starting.is_empty() {
            let order = backends.starting.remove((pick % backends.starting.len() as u64) as usize);
            let instance = order.instance;
            if fault == 0 {
                backends.alive.remove(&instance);
                self.handle(Event::StartFailed { instance, why: "exited with 1".to_owned() });
                return;
            }
            let address = ([127, 0, 0, 1], 9_000).into();
            self.handle(Event::Ready { instance, address, took: Span::from_millis(300) });
            // The first held request goes there at once.
            let service = order.spec.id.0;
            if self.waiting[service as usize] > 0 && self.in_flight.contains_key(&instance) {
                self.waiting[service as usize] -= 1;
                self.in_flight.insert(instance, 1);
                self.traffic(service, false, 0);
            }
        }
    }

    fn world_moves(&mut self, fault: u64) {
        if let Some(at) = self.quiescing.iter().position(|q| self.in_flight.get(&q.0).is_none_or(|n| *n == 0))
        {
            let (instance, generation) = self.quiescing.remove(at);
            self.in_flight.remove(&instance);
            self.handle(Event::Quiesced { router: ROUTER, instance, generation });
        }
        let backends = &mut self.shell.ports_mut().backends;
        let stopped =
            backends.stopping.iter().find(|s| backends.alive.contains(&s.instance)).map(|s| s.instance);
        if let Some(instance) = stopped {
            backends.alive.remove(&instance);
            backends.starting.retain(|s| s.instance != instance);
            self.handle(Event::Stopped { instance });
        } else if fault == 0
            && let Some(&instance) = backends.alive.first()
            && self.in_flight.get(&instance) == Some(&0)
        {
            backends.alive.remove(&instance);
            self.in_flight.remove(&instance);
            self.handle(Event::Died { instance, why: "killed by SIGKILL".to_owned() });
        }
    }

    fn sleep(&mut self, span: Span) {
        let until = self.shell.ports_mut().clock.0 + span;
        loop {
            let wake = self.shell.next_wake();
            if wake > until {
                self.shell.ports_mut().clock.0 = until;
                return;
            }
            let now = self.shell.ports_mut().clock.0;
            self.shell.ports_mut().clock.0 = wake.max(now);
            self.shell.pass();
            self.routers_read();
            self.check();
        }
    }
}

fn run(seed: u64, events: u32) -> World {
    run_in(World::new(), seed, events, |_| ())
}

fn run_in(mut world: World, seed: u64, events: u32, mut each: impl FnMut(&mut World)) -> World {
    let (mut kinds, mut picks, mut faults) = (Random(seed), Random(seed ^ 0xaaaa), Random(seed ^ 0xbbbb));
    for _ in 0..events {
        match kinds.below(10) {
            0..=2 => world.request(picks.below(3) as u32, 1 + picks.below(5)),
            3 | 4 => world.finish_one(picks.below(100)),
            5 | 6 => world.backend_moves(picks.below(100), faults.below(12)),
            7 | 8 => world.world_moves(faults.below(25)),
            _ => world.sleep(Span::from_millis(1 + picks.below(20_000))),
        }
        each(&mut world);
    }
    world.shell.flush();
    world
}

fn write_segments(name: &str, segments: &BTreeMap<u64, Vec<u8>>) -> PathBuf {
    let folder = std::env::temp_dir().join(format!("forerun-seeded-{name}-{}", std::process::id()));
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    for (number, bytes) in segments {
        std::fs::write(journal::segment_path(&folder, *number), bytes).unwrap();
    }
    folder
}

#[test]
fn what_always_holds_holds_and_every_journal_replays_to_the_bit() {
    let mut actions = 0;
    for seed in 0..40 {
        let mut world = run(seed, 300);
        let folder = write_segments(&format!("replay{seed}"), &world.shell.ports_mut().disk.segments);
        let report = journal::replay(&folder).unwrap();
        assert_eq!((report.mismatches, report.torn_bytes), (0, 0), "seed {seed}: {report:?}");
        assert!(report.steps > 300, "seed {seed}: {report:?}");
        actions += report.actions;
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert!(actions > 1_000, "{actions} actions: the world hardly moved");
}

#[test]
fn segments_stay_within_the_budget_and_each_replays_alone() {
    // A segment is at least its snapshot and as much again, which is some 200 KB here.
    const BUDGET: usize = 1 << 20;
    let settings =
        JournalSettings { segment_bytes_max: 8 << 10, bytes_max: BUDGET as u64, ..journal_settings() };
    let (mut most, mut openings) = (0, BTreeSet::new());
    let mut world = run_in(World::with(settings), 2, 12_000, |world| {
        let disk = &world.shell.ports_mut().disk;
        let bytes: usize = disk.segments.values().map(Vec::len).sum();
        assert!(bytes <= BUDGET, "{bytes} bytes in {} segments", disk.segments.len());
        openings.extend(disk.segments.keys().copied());
        most = most.max(bytes);
        assert_eq!(world.shell.journal().bytes, bytes as u64);
    });
    assert!(most > BUDGET / 2 && openings.len() > 10, "{most} bytes, segments {openings:?}");
    let folder = write_segments("budget", &world.shell.ports_mut().disk.segments);
    let files = journal::segments(&folder).unwrap();
    assert!(files.len() > 2, "{files:?}");
    for (number, file) in files {
        let report = journal::replay(&file).unwrap();
        assert_eq!((report.mismatches, report.torn_bytes), (0, 0), "segment {number}: {report:?}");
        assert!(report.steps > 0, "segment {number}");
    }
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn what_is_gathered_reaches_the_disk_within_the_flush_interval() {
    let interval = journal_settings().flush_interval;
    let mut world = World::new();
    let mut random = Random(7);
    let mut recorded = Vec::new();
    for _ in 0..200 {
        world.request(random.below(3) as u32, 1 + random.below(5));
        recorded.push((world.shell.ports_mut().clock.0, world.shell.journal().steps));
        world.sleep(Span::from_millis(random.below(700)));
        let now = world.shell.ports_mut().clock.0;
        let mut on_disk = 0;
        for bytes in world.shell.ports_mut().disk.segments.values() {
            let segment = journal::Segment::parse(&PathBuf::from("-"), bytes.clone()).unwrap();
            segment.steps(|_| on_disk += 1);
        }
        let due = recorded.iter().rev().find(|r| r.0 + interval <= now).map_or(0, |r| r.1);
        assert!(on_disk >= due, "{on_disk} of {due} steps that are older than {interval}");
    }
    assert!(recorded.last().unwrap().1 > 300);
}

#[test]
fn a_changed_event_does_not_replay_unnoticed() {
    let mut world = run(1, 200);
    let mut segments = world.shell.ports_mut().disk.segments.clone();
    // A journal whose first start is missing: the hashes of what follows cannot agree.
    let (&number, bytes) = segments.iter().next().unwrap();
    let mut at = 0;
    let (mut kept, mut steps) = (Vec::new(), Vec::new());
    let mut dropped = false;
    while let Ok((record, length)) = journal::decode(&bytes[at..]) {
        match record {
            journal::Record::Steps(block) => {
                for s in block {
                    if !dropped && matches!(s.event, Event::Ready { .. }) {
                        dropped = true;
                        continue;
                    }
                    journal::encode_step(s.now, &s.event, s.actions_hash, &s.changes, &mut steps);
                }
            }
            _ => kept.extend_from_slice(&bytes[at..at + length]),
        }
        at += length;
    }
    kept.extend(journal::seal_block(&steps));
    assert!(dropped);
    segments.insert(number, kept);
    let folder = write_segments("changed", &segments);
    assert!(journal::replay(&folder).unwrap().mismatches > 0);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_journal_cut_anywhere_restores_to_its_last_whole_record() {
    let mut world = run(3, 120);
    let segments = world.shell.ports_mut().disk.segments.clone();
    let (&number, bytes) = segments.iter().next_back().unwrap();
    // A head, a scene, a snapshot.
    let snapshot_end = (0..3).fold(0, |at, _| at + journal::decode(&bytes[at..]).unwrap().1);
    let mut last_steps = 0;
    for cut in (snapshot_end..bytes.len()).step_by(97).chain([bytes.len()]) {
        let folder = write_segments("cut", &BTreeMap::from([(number, bytes[..cut].to_vec())]));
        let restored = journal::restore(&folder, |e| panic!("{e}")).unwrap();
        assert!(restored.steps >= last_steps);
        last_steps = restored.steps;
        std::fs::remove_dir_all(&folder).unwrap();
    }
    assert!(last_steps > 50);
    // Cut inside the snapshot: the segment is of no use, and that is said, not panicked.
    let folder = write_segments("cut", &BTreeMap::from([(number, bytes[..snapshot_end - 1].to_vec())]));
    let mut lost = 0;
    assert!(journal::restore(&folder, |_| lost += 1).is_none());
    assert_eq!(lost, 1);
    std::fs::remove_dir_all(&folder).unwrap();
}

#[test]
fn a_full_disk_stops_the_journal_and_nothing_else() {
    let mut world = run(5, 50);
    world.shell.ports_mut().disk.full = true;
    for _ in 0..5 {
        world.request(0, 1);
        world.backend_moves(0, 1);
        world.finish_one(0);
        world.sleep(Span::from_secs(2));
    }
    assert!(world.shell.journal().broken.is_some() && world.shell.journal().steps_lost > 0);
    world.shell.ports_mut().disk.full = false;
    world.sleep(Span::from_secs(30));
    world.request(0, 1);
    // The first flush after the pause tries a new segment, the second sees that the disk took it.
    world.shell.flush();
    world.shell.flush();
    assert!(world.shell.journal().broken.is_none());
    let folder = write_segments("full", &world.shell.ports_mut().disk.segments);
    let report = journal::replay(&folder).unwrap();
    assert_eq!(report.mismatches, 0, "{report:?}");
    std::fs::remove_dir_all(&folder).unwrap();
}
