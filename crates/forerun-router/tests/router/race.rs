//! Tables that change under load: nothing lost, nothing doubled, nothing sent to an instance that has left.

use crate::world::{Instance, World, entry, ok, spec};
use forerun_types::{Event, HoldLimits, Span};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

const CLIENTS: usize = 8;
const ROUNDS: u64 = 400;
const AT_ONCE: usize = 3;

/// Ids of instances that have been reported quiesced, and requests that came to one afterwards.
#[derive(Default)]
struct Watch {
    quiesced: BTreeSet<u64>,
    late: Vec<u64>,
    served: BTreeMap<String, u32>,
    busy: BTreeMap<u64, u32>,
    too_busy: Vec<u64>,
}

/// One process may stand for many instances: its listener tells which by its address.
fn instance(id: u64, watch: &Arc<Mutex<Watch>>) -> Instance {
    let watch = Arc::clone(watch);
    Instance::answering(move |request| {
        let name = request.line.clone();
        {
            let mut watch = watch.lock().expect("lock");
            if watch.quiesced.contains(&id) {
                watch.late.push(id);
            }
            let busy = watch.busy.entry(id).or_default();
            *busy += 1;
            if *busy > 1 {
                watch.too_busy.push(id);
            }
            *watch.served.entry(name.clone()).or_default() += 1;
        }
        std::thread::sleep(Duration::from_micros(300));
        *watch.lock().expect("lock").busy.entry(id).or_default() -= 1;
        ok(&name)
    })
}

#[test]
fn every_request_is_answered_once_while_instances_come_and_go() {
    let world = World::new();
    let shop = spec(|s| {
        s.concurrency = 1;
        s.hold = HoldLimits { requests_max: 1_000, bytes_max: 64 << 20, timeout: Span::from_secs(30) };
    });
    world.publish(&[entry(&shop, &[])]);
    let watch = Arc::new(Mutex::new(Watch::default()));
    let over = AtomicBool::new(false);
    let sent = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| {
                let (world, over, sent) = (&world, &over, &sent);
                scope.spawn(move || {
                    let mut client = world.client();
                    let mut n = 0;
                    while !over.load(Ordering::Relaxed) {
                        n += 1;
                        let line = format!("POST /{number}/{n} HTTP/1.1");
                        client.send(&format!("{line}\r\nHost: shop\r\nContent-Length: 2\r\n\r\nhi"));
                        let reply = client.reply().expect("an answer");
                        assert_eq!((reply.status, reply.text()), (200, line));
                        sent.fetch_add(1, Ordering::Relaxed);
                    }
                })
            })
            .collect();
        // Stops an instance the way the engine does: only when it has been quiesced.
        let mut live: Vec<(u64, Instance)> = Vec::new();
        for round in 0..ROUNDS {
            live.push((round, instance(round, &watch)));
            if live.len() > AT_ONCE {
                live.remove(0);
            }
            // Now and then there is no instance at all for a moment.
            let present = if round % 10 == 9 { &live[..0] } else { &live[..] };
            let addresses: Vec<_> = present.iter().map(|(id, i)| (*id, i.address)).collect();
            world.publish(&[entry(&shop, &addresses)]);
            let next = Instant::now() + Duration::from_millis(3);
            while let Some(left) = next.checked_duration_since(Instant::now()) {
                if let Some(Event::Quiesced { instance, .. }) = world.up.recv_timeout(left) {
                    let back = present.iter().any(|(id, _)| *id == instance.0);
                    assert!(!back, "{instance} is in the table");
                    watch.lock().expect("lock").quiesced.insert(instance.0);
                }
            }
            // Those that were only out for one table come back under another id.
            if round % 10 == 9 {
                live.clear();
            }
        }
        live.push((ROUNDS, instance(ROUNDS, &watch)));
        world.publish(&[entry(&shop, &[(ROUNDS, live[live.len() - 1].1.address)])]);
        over.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().expect("client");
        }
    });
    let watch = watch.lock().expect("lock");
    assert_eq!(watch.late, Vec::<u64>::new(), "requests came after Quiesced");
    assert_eq!(watch.too_busy, Vec::<u64>::new(), "more than one at a time");
    assert!(watch.served.values().all(|times| *times == 1), "a POST was sent twice");
    assert_eq!(watch.served.len() as u64, sent.load(Ordering::Relaxed));
    assert!(watch.served.len() > 500, "it ran: {}", watch.served.len());
    let stats = world.router.stats();
    assert_eq!(stats.services[0].requests_total(), sent.load(Ordering::Relaxed));
    assert_eq!((stats.services[0].held, stats.services[0].held_bytes), (0, 0));
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    let world = World::new();
    let shop = spec(|s| {
        s.concurrency = 1;
        s.hold = HoldLimits { requests_max: 64, bytes_max: 64 << 20, timeout: Span::from_secs(30) };
    });
    world.publish(&[entry(&shop, &[])]);
    let steady = Instance::saying("x", Duration::from_micros(500));
    std::thread::scope(|scope| {
        for number in 0..CLIENTS {
            let world = &world;
            scope.spawn(move || {
                for n in 0..60 {
                    let mut client = world.client();
                    client.get("/");
                    // Some read the answer, some leave at once, some a little later.
                    match (number + n) % 3 {
                        0 => {
                            let status = client.reply().expect("an answer").status;
                            assert!(status == 200 || status == 503, "{status}");
                        }
                        1 => {}
                        _ => std::thread::sleep(Duration::from_micros(700)),
                    }
                }
            });
        }
        for round in 0..100 {
            let instances: &[_] = if round % 3 == 0 { &[] } else { &[(round / 3, steady.address)] };
            world.publish(&[entry(&shop, instances)]);
            std::thread::sleep(Duration::from_millis(3));
        }
        world.publish(&[entry(&shop, &[(1_000, steady.address)])]);
    });
    crate::world::eventually("nothing is held or in flight", || {
        let stats = world.router.stats();
        let service = &stats.services[0];
        (service.held, service.held_bytes, service.in_flight, stats.connections) == (0, 0, 0, 0)
    });
    assert_eq!(world.get("/").text(), "x");
}
