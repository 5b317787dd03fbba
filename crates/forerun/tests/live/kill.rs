//! After a kill at any moment nothing is left behind, nothing is doubled, the journal opens to its last whole
//! record, and the next start serves. An accepted request has a whole answer or a closed connection.

use crate::http::Client;
use crate::world::{GONE_WITHIN, Live, World, eventually, processes};
use forerun_engine::journal::Segment;
use forerun_types::{Event, Time};
use std::io::ErrorKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Kills, unless `FORERUN_KILLS` says how many.
const ROUNDS: u64 = 20;
/// What was learned may be so much older than a kill: the flush interval of these configurations and a second, for a
/// machine that is busy with everything else that is tested.
const LEARNED_WITHIN: Duration = Duration::from_millis(50 + 1_000);
const CLIENTS: usize = 6;
const BYTES: usize = 300_000;

const SERVICES: &str = "
[service.warm]
command = [FIXTURE, \"--busy\", \"3\", \"--grandchild\"]
route = { host = \"warm.test\" }
min = 1
max = 2
concurrency = 4
resources = { memory = \"64MB\" }
[service.cold]
command = [FIXTURE, \"--start-delay\", \"100\", \"--grandchild-group\", \"--ignore-term\"]
route = { host = \"cold.test\" }
max = 3
drain_timeout = \"500ms\"
resources = { memory = \"64MB\" }
";

/// What clients saw until the kill.
#[derive(Debug, Default)]
struct Seen {
    whole: u64,
    refused: u64,
    closed: u64,
    wrong: Vec<String>,
}

fn ask(live: &Live, number: usize, seen: &Mutex<Seen>) {
    let Ok(mut client) = Client::connect(live.router) else {
        // Nobody listens any more: it was killed.
        return;
    };
    let host = if number.is_multiple_of(3) { "cold.test" } else { "warm.test" };
    for _ in 0..4 {
        let result = client.get(host, &format!("/bytes?n={BYTES}"));
        let mut seen = seen.lock().unwrap();
        match result {
            Ok(answer) if answer.status == 200 && answer.body.len() == BYTES => seen.whole += 1,
            Ok(answer) if answer.is_clear_refusal() => seen.refused += 1,
            Ok(answer) => seen.wrong.push(format!("status {}, {} bytes", answer.status, answer.body.len())),
            Err(error) if error.kind() == ErrorKind::TimedOut => seen.wrong.push(error.to_string()),
            Err(_) => {
                seen.closed += 1;
                return;
            }
        }
    }
}

/// When the last activity was that the newest segment has; `began` where it has none of a life that began then.
fn last_learned(world: &World, began: Duration) -> Duration {
    let mut last = Time(began.as_micros() as u64);
    let newest = Segment::open(&world.segments().pop().unwrap()).unwrap();
    newest.steps(|step| {
        if let Event::Traffic(traffic) = &step.event
            && !traffic.activities.is_empty()
        {
            last = step.now;
        }
    });
    Duration::from_micros(last.0)
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap()
}

/// Milliseconds below 400, another series in each run.
fn moments() -> impl Iterator<Item = u64> {
    let mut state = u64::from(now().subsec_nanos()) | 1;
    println!("seed {state}");
    std::iter::repeat_with(move || {
        // Marsaglia's xorshift (Journal of Statistical Software 8(14), 2003).
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % 400
    })
}

#[test]
fn kills_in_the_middle_of_a_load_leave_nothing_and_lose_nothing() {
    let rounds = std::env::var("FORERUN_KILLS").map_or(ROUNDS, |n| n.parse().unwrap());
    let world = World::new("kill", SERVICES);
    let (mut whole, mut closed) = (0, 0);
    let mut oldest = Duration::ZERO;
    for (round, moment) in (0..rounds).zip(moments()) {
        let mut live = world.up();
        let began = now();
        live.serves("warm.test");
        let (ended, seen) = (AtomicBool::new(false), Mutex::new(Seen::default()));
        std::thread::scope(|scope| {
            for number in 0..CLIENTS {
                let (live, ended, seen) = (&live, &ended, &seen);
                scope.spawn(move || {
                    while !ended.load(Ordering::Relaxed) {
                        ask(live, number, seen);
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(20 + moment));
            if round % 5 == 0 {
                live.has_held();
            }
            live.signal("KILL");
            ended.store(true, Ordering::Relaxed);
        });
        live.kill();
        let age = now().saturating_sub(last_learned(&world, began));
        assert!(age <= LEARNED_WITHIN, "round {round}: the last that was learned is {age:?} old");
        oldest = oldest.max(age);
        let seen = seen.into_inner().unwrap();
        assert_eq!(seen.wrong, [""; 0], "round {round}");
        world.all_gone(GONE_WITHIN);
        (whole, closed) = (whole + seen.whole, closed + seen.closed);
        if round % 5 == 4 {
            world.journal_replays();
        }
    }
    println!("{rounds} kills: {whole} whole answers, {closed} closed, learned at most {oldest:?} before");
    assert!(whole > rounds && closed > 0, "there was no load to kill in: {whole} whole, {closed} closed");
    let live = world.up();
    live.serves("warm.test");
    live.serves("cold.test");
    live.drain();
    world.all_gone(GONE_WITHIN);
    let report = world.journal_replays();
    assert_eq!(report["lost_segments"].as_array().map(Vec::len), Some(0), "{report}");
    assert!(report["segments"].as_u64().unwrap() > rounds, "{report}");
}

#[test]
fn instances_have_the_children_that_the_kills_are_to_find() {
    let world = World::new("children", SERVICES);
    let mut live = world.up();
    live.serves("warm.test");
    live.serves("cold.test");
    // Two services, each with an instance and its child at least.
    eventually("four processes", Duration::from_secs(5), || processes(&world.tag).len() >= 4);
    live.kill();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn kills_while_it_starts_leave_a_folder_that_the_next_start_can_use() {
    let world = World::new("begin", SERVICES);
    for round in 0..30 {
        let mut child = world.spawn();
        std::thread::sleep(Duration::from_millis(round * 2));
        child.kill().unwrap();
        child.wait().unwrap();
        world.all_gone(GONE_WITHIN);
    }
    let live = world.up();
    live.serves("warm.test");
    live.drain();
    assert!(!world.log().contains("panicked"), "{}", world.log());
    world.journal_replays();
}

#[test]
fn kills_while_it_drains_leave_nothing() {
    let world = World::new("drain", SERVICES);
    for round in 0..10 {
        let mut live = world.up();
        live.serves("warm.test");
        live.serves("cold.test");
        live.signal("TERM");
        std::thread::sleep(Duration::from_millis(round * 12));
        live.kill();
        world.all_gone(GONE_WITHIN);
    }
    world.journal_replays();
}
