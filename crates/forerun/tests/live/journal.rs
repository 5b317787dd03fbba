//! The journal of a live run: replayed, cut, and damaged. The `process` stage has both builds replay one.

use crate::http::get;
use crate::world::{GONE_WITHIN, World};
use serde_json::Value;
use std::fs;
use std::time::Duration;

const SERVICES: &str = "
[service.web]
command = [FIXTURE, \"--busy\", \"2\"]
route = { host = \"web.test\" }
concurrency = 2
max = 3
user = \"header:x-user\"
resources = { memory = \"64MB\" }
drain_timeout = \"2s\"
[service.crash]
command = [FIXTURE, \"--exit\", \"1\"]
route = { host = \"crash.test\" }
[service.mail]
command = [FIXTURE]
route = { host = \"mail.test\", path = \"/\" }
min = 1
max = 2
resources = { memory = \"64MB\" }
drain_timeout = \"2s\"
";

/// A life with load, failures and changes of mind; ended by TERM.
fn live_a_while(world: &World) {
    let live = world.up();
    let router = live.router;
    let clients: Vec<_> = (0..4)
        .map(|client| {
            std::thread::spawn(move || {
                for n in 0..25 {
                    let host = ["web.test", "mail.test", "crash.test"][(client + n) % 3];
                    get(router, host, &format!("/bytes?n={}", n * 100)).unwrap();
                    std::thread::sleep(Duration::from_millis(8));
                }
            })
        })
        .collect();
    clients.into_iter().for_each(|client| client.join().unwrap());
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn a_live_run_replays_to_the_bit() {
    let world = World::new("replay", SERVICES);
    for _ in 0..3 {
        live_a_while(&world);
    }
    let report = world.journal_replays();
    assert_eq!((&report["segments"], &report["torn_bytes"]), (&3.into(), &0.into()), "{report}");
    assert!(report["actions"].as_u64().unwrap() > 20, "{report}");
}

/// Damages the newest segment; the next start must serve and say what it lost, and its journal must replay.
fn damaged(name: &str, harm: impl FnOnce(&mut Vec<u8>), says: &str) -> Value {
    let world = World::new(name, SERVICES);
    live_a_while(&world);
    live_a_while(&world);
    let newest = world.segments().pop().unwrap();
    let mut bytes = fs::read(&newest).unwrap();
    harm(&mut bytes);
    fs::write(&newest, bytes).unwrap();
    let live = world.up();
    world.logs(says);
    live.serves("web.test");
    live.drain();
    world.all_gone(GONE_WITHIN);
    assert!(!world.log().contains("panicked"), "{}", world.log());
    // The damaged one is taken away, as a person would; what follows it does not need it.
    fs::remove_file(newest).unwrap();
    world.journal_replays()
}

#[test]
fn a_segment_that_is_cut_short_is_used_up_to_its_last_whole_record() {
    damaged("cut", |bytes| bytes.truncate(bytes.len() - 5), "the journal's end was torn");
}

#[test]
fn a_flipped_byte_in_a_record_ends_the_segment_there() {
    damaged("flip", |bytes| *bytes.iter_mut().rev().nth(200).unwrap() ^= 0x40, "the journal's end was torn");
}

#[test]
fn a_flipped_byte_in_the_snapshot_falls_back_to_the_segment_before() {
    damaged("snapshot", |bytes| bytes[500] ^= 0x01, "a journal segment was not used");
}

#[test]
fn a_segment_without_a_head_falls_back_to_the_segment_before() {
    damaged("head", |bytes| bytes.truncate(10), "a journal segment was not used");
    damaged("empty", Vec::clear, "a journal segment was not used");
    damaged(
        "noise",
        |bytes| bytes.iter_mut().for_each(|b| *b = b.wrapping_mul(31)),
        "a journal segment was not used",
    );
}
