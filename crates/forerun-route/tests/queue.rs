//! The queue under any order of requests, tables and refusals by instances.

use forerun_route::{Admission, Asking, Effects, Granted, Link, Queue, Refusal, Reply, Seat};
use forerun_types::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;

#[derive(Debug)]
struct Door(SocketAddr);

impl Link for Door {
    fn to(address: SocketAddr) -> Self {
        Self(address)
    }
    fn address(&self) -> SocketAddr {
        self.0
    }
    fn close(&self) {}
}

const ROUTER: RouterId = RouterId(3);
const SERVICE: ServiceId = ServiceId(1);

/// Where a request is.
#[derive(Debug)]
enum At {
    Held(u64),
    Seat(Seat<Door>),
}

/// A queue with those who use it, and what they must agree on after every call.
struct World {
    queue: Queue<u32, Door>,
    concurrency: u32,
    generation: u64,
    listed: Vec<u64>,
    now: Time,
    next: u32,
    visits: BTreeMap<u32, At>,
    /// In the order in which they were answered after a wait.
    served: Vec<u64>,
    /// What the engine was last told of those who wait.
    told_waiting: u32,
    quiesced: Vec<(InstanceId, Generation)>,
    answered: u32,
}

impl World {
    fn new(concurrency: u32) -> Self {
        Self {
            queue: Queue::new(ROUTER, SERVICE),
            concurrency,
            generation: 0,
            listed: Vec::new(),
            now: Time(1_000),
            next: 0,
            visits: BTreeMap::new(),
            served: Vec::new(),
            told_waiting: 0,
            quiesced: Vec::new(),
            answered: 0,
        }
    }

    fn table(&mut self, route: Option<(&[u64], bool)>) {
        self.generation += 1;
        let mut spec = ServiceSpec::named(SERVICE, "shop");
        spec.concurrency = self.concurrency;
        spec.hold = HoldLimits { requests_max: 4, bytes_max: 100, timeout: Span(50) };
        let route = route.map(|(instances, refuses)| {
            let entry = |&id: &u64| InstanceRoute {
                instance: InstanceId(id),
                address: ([127, 0, 0, 1], 9_000 + id as u16).into(),
                access: Access::Any,
            };
            let why = Unavailable { why: "crashed".to_owned(), retry_after: Span(1) };
            Arc::new(ServiceRoute {
                spec: Arc::new(spec),
                instances: instances.iter().map(entry).collect(),
                unavailable: refuses.then_some(why),
                notes: WaitNotes::default(),
            })
        });
        self.listed = route.iter().flat_map(|r| &r.instances).map(|i| i.instance.0).collect();
        let mut effects = Effects::default();
        self.queue.set_route(route, Generation(self.generation), self.now, || 7, &mut effects);
        self.take(effects);
    }

    fn take(&mut self, effects: Effects<u32, Door>) {
        for event in effects.told {
            match event {
                Event::Waiting { waiting, .. } | Event::Abandoned { waiting, .. } => {
                    self.told_waiting = waiting
                }
                Event::Quiesced { instance, generation, .. } => self.quiesced.push((instance, generation)),
                Event::Unanswered { instance, tries, .. } => {
                    assert!(self.listed.contains(&instance.0) && tries > 0, "nothing was answered here")
                }
                other => panic!("{other:?} is not a queue's to tell"),
            }
        }
        for Granted { waiter, seat } in effects.granted {
            let before = self.visits.remove(&waiter);
            let Some(At::Held(ticket)) = before else { panic!("{waiter} was not held: {before:?}") };
            match seat {
                Ok(seat) => {
                    assert_eq!((seat.turn.ticket, seat.turn.held), (ticket, true));
                    self.served.push(ticket);
                    self.told_waiting = self.queue.waiting();
                    self.visits.insert(waiter, At::Seat(seat));
                }
                Err(_) => self.answered += 1,
            }
        }
    }

    fn admitted(&mut self, request: u32, admission: Admission<Door, ()>) {
        match admission {
            Admission::Go(seat) => {
                self.visits.insert(request, At::Seat(seat));
            }
            Admission::Held(hold) => {
                assert!(hold.patience <= Span(50));
                self.visits.insert(request, At::Held(hold.ticket));
            }
            Admission::Refused(_) => self.answered += 1,
        }
    }

    fn asking(&self) -> Asking {
        Asking { user: UserKey(1), bytes: 30, arrived: self.now, again: false, key: None }
    }

    fn request(&mut self) -> Option<Refusal> {
        self.next += 1;
        let (request, mut effects) = (self.next, Effects::default());
        let admission =
            self.queue.admit(self.asking(), self.now, || 7, |_, _| Ok((request, ())), &mut effects);
        let refusal = match &admission {
            Admission::Refused(refusal) => Some(refusal.clone()),
            _ => None,
        };
        self.take(effects);
        self.admitted(request, admission);
        refusal
    }

    /// The nth of those at instances, or of those held.
    fn nth(&self, seated: bool, n: usize) -> Option<u32> {
        let is = |at: &At| matches!(at, At::Seat(_)) == seated;
        let all: Vec<u32> = self.visits.iter().filter(|v| is(v.1)).map(|v| *v.0).collect();
        (!all.is_empty()).then(|| all[n % all.len()])
    }

    fn finish(&mut self, n: usize) {
        let Some(request) = self.nth(true, n) else { return };
        let Some(At::Seat(seat)) = self.visits.remove(&request) else { return };
        self.answered += 1;
        let mut effects = Effects::default();
        self.queue.leave(seat.instance, true, Reply::NotAsked, self.now, || 7, &mut effects);
        self.take(effects);
    }

    fn put_back(&mut self, n: usize) {
        let Some(request) = self.nth(true, n) else { return };
        let Some(At::Seat(seat)) = self.visits.remove(&request) else { return };
        let mut effects = Effects::default();
        let (asking, now) = (self.asking(), self.now);
        let (admission, is_news) =
            self.queue.put_back(&seat, asking, now, || 7, |_, _| Ok((request, ())), &mut effects);
        let is_listed = self.listed.contains(&seat.instance.0);
        assert!(!is_news || is_listed, "what has left the table is not left alone");
        if let Some(Admission::Go(other)) = &admission {
            assert!(other.instance != seat.instance || !Arc::ptr_eq(&other.link, &seat.link));
        }
        self.take(effects);
        match admission {
            Some(admission) => self.admitted(request, admission),
            None => self.answered += 1,
        }
    }

    fn welcome(&mut self, id: u64) {
        let instance = InstanceId(id);
        let doors: Vec<Arc<Door>> = self.queue.links().map(Arc::clone).collect();
        for door in doors.iter().filter(|door| door.0.port() == 9_000 + id as u16) {
            let mut effects = Effects::default();
            self.queue.welcome(instance, door, self.now, || 7, &mut effects);
            assert!(!self.queue.is_shunned(instance, door));
            self.take(effects);
        }
    }

    fn give_up(&mut self, n: usize) {
        let Some(request) = self.nth(false, n) else { return };
        let Some(At::Held(ticket)) = self.visits.remove(&request) else { return };
        self.answered += 1;
        let mut effects = Effects::default();
        for _ in 0..2 {
            self.queue.give_up(ticket, self.now, &mut effects);
            assert_eq!((effects.told.len(), effects.waits.len()), (1, 1), "once");
        }
        self.take(effects);
    }

    /// What holds after every call.
    fn check(&self) {
        let mut seats = BTreeMap::<u64, u32>::new();
        let mut held = 0;
        for at in self.visits.values() {
            match at {
                At::Seat(seat) => *seats.entry(seat.instance.0).or_default() += 1,
                At::Held(_) => held += 1,
            }
        }
        assert_eq!(
            self.answered + self.visits.len() as u32,
            self.next,
            "each has one answer, or is somewhere"
        );
        assert_eq!((self.queue.waiting(), self.queue.held_bytes()), (held, u64::from(held) * 30));
        assert_eq!(self.told_waiting, held, "the engine was told who waits");
        assert_eq!(self.queue.in_use(), seats.values().sum::<u32>());
        assert!(held <= 3, "bytes_max allows three");
        for (&instance, &count) in &seats {
            assert!(self.concurrency == 0 || count <= self.concurrency, "{count} at i{instance}");
            assert_eq!(self.queue.in_flight_at(InstanceId(instance)), count);
            let gone = self.quiesced.iter().any(|q| q.0.0 == instance && q.1.0 == self.generation);
            assert!(!gone, "i{instance} quiesced with a request there");
        }
        // Each instance that is neither in the table nor in use is forgotten.
        let known: Vec<u64> = self.queue.loads().map(|l| l.instance.0).collect();
        assert!(known.iter().all(|i| self.listed.contains(i) || seats.contains_key(i)), "{known:?}");
    }
}

#[derive(Clone, Debug)]
enum Step {
    Request,
    Finish(usize),
    PutBack(usize),
    GiveUp(usize),
    Welcome(u64),
    Table(Vec<u64>, bool),
    Gone,
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => Just(Step::Request),
        3 => (0..9_usize).prop_map(Step::Finish),
        2 => (0..9_usize).prop_map(Step::PutBack),
        1 => (0..9_usize).prop_map(Step::GiveUp),
        2 => (1..5_u64).prop_map(Step::Welcome),
        3 => (prop::collection::btree_set(1..5_u64, 0..4), any::<bool>())
            .prop_map(|(ids, refuses)| Step::Table(ids.into_iter().collect(), refuses)),
        1 => Just(Step::Gone),
        2 => (0..40_u64).prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn each_request_has_one_place_and_the_engine_knows(
        concurrency in 0..3_u32,
        steps in prop::collection::vec(step(), 1..60),
    ) {
        let mut world = World::new(concurrency);
        for step in steps {
            let before = world.visits.len() as u32;
            match step {
                Step::Request => drop(world.request()),
                Step::Finish(n) => world.finish(n),
                Step::PutBack(n) => world.put_back(n),
                Step::GiveUp(n) => world.give_up(n),
                Step::Welcome(id) => world.welcome(id),
                Step::Table(ids, refuses) => world.table(Some((&ids, refuses))),
                Step::Gone => world.table(None),
                Step::Wait(span) => world.now += Span(span),
            }
            world.check();
            // One that goes from the line to an instance is never in both places at once.
            let load = world.queue.tell(&mut Vec::new());
            prop_assert_eq!(load.peak, before.max(world.visits.len() as u32));
        }
    }
}

#[test]
fn first_come_first_served_and_who_is_put_back_keeps_the_place() {
    let mut world = World::new(1);
    world.table(Some((&[1], false)));
    for _ in 0..3 {
        world.request();
    }
    // The first is at the instance, which does not take it: it waits in front of the others.
    world.put_back(0);
    assert_eq!(world.queue.waiting(), 3);
    world.welcome(1);
    world.finish(0);
    world.finish(0);
    assert_eq!(world.served, [1, 2, 3]);
}

#[test]
fn each_refusal_says_why() {
    let mut world = World::new(1);
    assert_eq!(world.request(), Some(Refusal::Gone));
    world.table(Some((&[], true)));
    assert!(matches!(world.request(), Some(Refusal::Unavailable { spec, .. }) if spec.name == "shop"));
    world.table(Some((&[], false)));
    for _ in 0..3 {
        assert_eq!(world.request(), None);
    }
    assert!(matches!(world.request(), Some(Refusal::Hold { .. })));
    let mut effects = Effects::default();
    world.queue.close(world.now, &mut effects);
    assert_eq!(effects.granted.len(), 3);
    world.take(effects);
    assert_eq!(world.request(), Some(Refusal::Closing));
    world.check();
}

#[test]
fn an_instance_quiesces_with_its_last_request_by_the_first_table_that_lacked_it() {
    let mut world = World::new(2);
    world.table(Some((&[1], false)));
    world.request();
    world.request();
    world.table(Some((&[2], false)));
    world.table(Some((&[2], false)));
    assert_eq!(world.quiesced, []);
    world.finish(0);
    assert_eq!(world.quiesced, []);
    world.finish(0);
    assert_eq!(world.quiesced, [(InstanceId(1), Generation(2))]);
}

/// A load that is told late may come after the word that its instance has quiesced: a new slot says that it is empty.
#[test]
fn an_instance_that_comes_back_is_told_as_empty() {
    let mut world = World::new(1);
    world.table(Some((&[1], false)));
    let mut loads = Vec::new();
    world.queue.tell(&mut loads);
    world.table(Some((&[], false)));
    world.table(Some((&[1], false)));
    assert!(world.queue.has_changed());
    loads.clear();
    world.queue.tell(&mut loads);
    assert_eq!(loads, [InstanceLoad { instance: InstanceId(1), in_flight: 0, last_used: Time(0) }]);
}

/// Somebody wants the service to be there: it is waited for, then in use, and takes no place from a request.
#[test]
fn a_stay_waits_pins_and_moves_on() {
    let mut world = World::new(1);
    world.table(Some((&[], false)));
    let until = world.now + Span::from_secs(60);
    let mut effects = Effects::default();
    world.queue.stay(UserKey(1), until, world.now, &mut effects);
    assert_eq!((effects.cold_starts, world.queue.waiting(), world.queue.in_use()), (1, 1, 0));
    world.table(Some((&[1], false)));
    assert_eq!((world.queue.waiting(), world.queue.in_use()), (0, 1));
    assert_eq!(world.request(), None);
    assert_eq!((world.queue.in_use(), world.visits.len()), (1, 1), "the pinned instance is free for it");
    world.finish(0);
    world.table(Some((&[2], false)));
    assert_eq!(world.quiesced, [], "it is in use until the stay ends");
    let address = world.queue.stays_at(world.now, &mut Effects::default()).expect("it is ready");
    assert_eq!(address.map(|address| address.port()), Some(9_002));
    let mut effects = Effects::default();
    world.queue.end_stay(world.now, &mut effects);
    world.take(effects);
    assert_eq!((world.queue.in_use(), world.quiesced.len()), (0, 1));
}

/// A probe is at an instance without using it: nothing is told, and the instance still waits for it to end.
#[test]
fn what_is_nobodys_counts_as_no_use() {
    let mut world = World::new(2);
    world.table(Some((&[1], false)));
    world.queue.tell(&mut Vec::new());
    let seat =
        world.queue.pass(world.now, || 7, &mut Effects::default()).expect("no refusal").expect("a place");
    assert_eq!((world.queue.in_use(), world.queue.has_changed()), (0, false));
    world.table(Some((&[], false)));
    assert_eq!(world.quiesced, []);
    let mut effects = Effects::default();
    let reply = Reply::NotAsked;
    world.queue.leave(seat.instance, seat.turn.counts, reply, world.now, || 7, &mut effects);
    world.take(effects);
    assert_eq!(world.quiesced.len(), 1);
}

fn keyed_route(access: Access) -> Option<Arc<ServiceRoute>> {
    let spec = ServiceSpec {
        concurrency: 0,
        variant: match access {
            Access::Only(_) => Some(Variant { of: ServiceId(0), key: "red".to_owned() }),
            _ => None,
        },
        ..ServiceSpec::named(SERVICE, "shop")
    };
    let entry = InstanceRoute { instance: InstanceId(4), address: ([127, 0, 0, 1], 9_004).into(), access };
    Some(Arc::new(ServiceRoute::new(Arc::new(spec), vec![entry], None)))
}

#[test]
fn the_first_use_of_what_a_key_could_claim_is_told_once_and_before_it_is_quiet() {
    let touched = Event::Touched { router: ROUTER, instance: InstanceId(4) };
    let ask = |key| Asking { user: UserKey(1), bytes: 1, key, arrived: Time(1), again: false };
    type Use = fn(&mut Queue<u32, Door>, Asking, &mut Effects<u32, Door>);
    let admit: Use = |queue, asking, effects| {
        let Admission::Go(seat) = queue.admit(asking, Time(1), || 7, |_, _| Ok((1, ())), effects) else {
            panic!("it is free")
        };
        queue.leave(seat.instance, true, Reply::NotAsked, Time(1), || 7, effects);
    };
    let probe: Use = |queue, _, effects| {
        let seat = queue.pass(Time(1), || 7, effects).unwrap().expect("it is free");
        queue.leave(seat.instance, false, Reply::NotAsked, Time(1), || 7, effects);
    };
    let past: Use = |queue, _, effects| {
        queue.stays_at(Time(1), effects).unwrap().expect("it is ready");
    };
    let stay: Use = |queue, _, effects| {
        queue.stay(UserKey(1), Time(9), Time(1), effects);
        queue.end_stay(Time(2), effects);
    };
    let red = Access::Only(Variant::access_key("red"));
    let key = Some(Variant::access_key("red"));
    for (access, key, first, expect) in [
        (Access::Unclaimed, None, admit, true),
        (Access::Unclaimed, None, probe, true),
        (Access::Unclaimed, None, past, true),
        (Access::Unclaimed, None, stay, true),
        (Access::Any, None, admit, false),
        (red, key, admit, false),
        (red, key, past, false),
    ] {
        let mut queue = Queue::new(ROUTER, SERVICE);
        let mut effects = Effects::default();
        queue.set_route(keyed_route(access), Generation(1), Time(1), || 7, &mut effects);
        first(&mut queue, ask(key), &mut effects);
        first(&mut queue, ask(key), &mut effects);
        queue.set_route(None, Generation(2), Time(2), || 7, &mut effects);
        let of_it = |event: &&Event| matches!(event, Event::Touched { .. } | Event::Quiesced { .. });
        let told: Vec<Event> = effects.told.iter().filter(of_it).cloned().collect();
        let quiet = Event::Quiesced { router: ROUTER, instance: InstanceId(4), generation: Generation(2) };
        let expect = if expect { vec![touched.clone(), quiet] } else { vec![quiet] };
        assert_eq!(told, expect, "{access:?}");
    }
}

#[test]
fn a_wait_that_a_thawed_instance_ended_in_time_was_no_cold_start() {
    let spec = Arc::new(ServiceSpec { concurrency: 0, ..ServiceSpec::named(SERVICE, "shop") });
    let latency = spec.sla.latency;
    let entry = InstanceRoute {
        instance: InstanceId(4),
        address: ([127, 0, 0, 1], 9_004).into(),
        access: Access::Any,
    };
    for (resumed, again, wait, expect) in [
        (true, false, latency, 1),
        (true, false, latency + Span(1), 0),
        (false, false, latency, 0),
        // It was not counted in the first place.
        (true, true, latency, 0),
    ] {
        let mut queue: Queue<u32, Door> = Queue::new(ROUTER, SERVICE);
        let mut effects = Effects::default();
        let empty = Arc::new(ServiceRoute::new(Arc::clone(&spec), Vec::new(), None));
        queue.set_route(Some(empty), Generation(1), Time(1), || 7, &mut effects);
        let asking = Asking { user: UserKey(1), bytes: 1, key: None, arrived: Time(1), again };
        let admission = queue.admit(asking, Time(1), || 7, |_, _| Ok((1, ())), &mut effects);
        assert!(matches!(admission, Admission::Held(_)));
        assert_eq!(effects.cold_starts, u64::from(!again));
        let mut route = ServiceRoute::new(Arc::clone(&spec), vec![entry.clone()], None);
        route.notes.resumed = if resumed { vec![InstanceId(4)] } else { vec![InstanceId(3), InstanceId(5)] };
        queue.set_route(Some(Arc::new(route)), Generation(2), Time(1) + wait, || 7, &mut effects);
        assert_eq!(effects.granted.len(), 1);
        assert_eq!(effects.warm_after_all, expect, "{resumed} {again} {wait}");
    }
}

/// Tries, those whose client left, and seconds, as they are told.
fn silences(effects: &Effects<u32, Door>) -> Vec<(u32, u32, u64)> {
    let of = |event: &Event| match event {
        Event::Unanswered { router: ROUTER, instance: InstanceId(4), tries, left, silent } => {
            Some((*tries, *left, silent.0 / 1_000_000))
        }
        _ => None,
    };
    effects.told.iter().filter_map(of).collect()
}

#[test]
fn what_gets_no_answer_is_told_in_a_row_until_one_begins() {
    let at = |secs: u64| Time(secs * 1_000_000);
    let mut queue: Queue<u32, Door> = Queue::new(ROUTER, SERVICE);
    let mut effects = Effects::default();
    queue.set_route(keyed_route(Access::Any), Generation(1), at(1), || 7, &mut effects);
    let ask = Asking { user: UserKey(1), bytes: 1, key: None, arrived: at(1), again: false };
    let seat = |queue: &mut Queue<u32, Door>, now, effects: &mut Effects<u32, Door>| {
        let Admission::Go(seat) = queue.admit(ask, now, || 7, |_, _| Ok((1, ())), effects) else {
            panic!("it is free")
        };
        seat
    };
    let (first, slow, third) = (
        seat(&mut queue, at(1), &mut effects),
        seat(&mut queue, at(2), &mut effects),
        seat(&mut queue, at(3), &mut effects),
    );
    let id = InstanceId(4);
    queue.leave(id, true, Reply::Failed { since: at(1) }, at(31), || 7, &mut effects);
    queue.leave(id, true, Reply::Left { since: at(2) }, at(32), || 7, &mut effects);
    assert_eq!(silences(&effects), [(1, 0, 30), (2, 1, 31)]);
    drop((first, slow));
    // It takes no connection, and is dialled.
    let (admission, is_news) = queue.put_back(&third, ask, at(33), || 7, |_, _| Ok((1, ())), &mut effects);
    assert!(is_news && matches!(admission, Some(Admission::Held(_))));
    queue.dialled_in_vain(id, &third.link, at(34), &mut effects);
    assert_eq!(silences(&effects)[2..], [(3, 1, 32), (4, 1, 33)]);
    // A router that the engine has lost sight of tells it again.
    let mut told = Vec::new();
    queue.tell_anew(&mut told);
    assert!(told.contains(&Event::Unanswered {
        router: ROUTER,
        instance: id,
        tries: 4,
        left: 1,
        silent: Span::from_secs(33)
    }));
    queue.welcome(id, &third.link, at(35), || 7, &mut effects);
    queue.dialled_in_vain(id, &third.link, at(36), &mut effects);
    assert_eq!(silences(&effects).len(), 4, "it accepts, which is no answer yet, and is dialled no more");
    queue.answers(id, &mut effects);
    assert_eq!(silences(&effects)[4..], [(0, 0, 0)]);
    // While that one streams nothing counts.
    let other = seat(&mut queue, at(40), &mut effects);
    queue.leave(other.instance, true, Reply::Failed { since: at(40) }, at(80), || 7, &mut effects);
    assert_eq!(silences(&effects).len(), 5);
    queue.leave(id, true, Reply::Begun, at(90), || 7, &mut effects);
    let last = seat(&mut queue, at(91), &mut effects);
    queue.leave(last.instance, true, Reply::Failed { since: at(91) }, at(92), || 7, &mut effects);
    assert_eq!(silences(&effects)[5..], [(1, 0, 1)]);
    // What comes back to the table is reached anew.
    queue.set_route(None, Generation(2), at(93), || 7, &mut effects);
    queue.set_route(keyed_route(Access::Any), Generation(3), at(94), || 7, &mut effects);
    let last = seat(&mut queue, at(95), &mut effects);
    queue.leave(last.instance, true, Reply::Failed { since: at(95) }, at(97), || 7, &mut effects);
    assert_eq!(silences(&effects)[6..], [(1, 0, 2)]);
}
