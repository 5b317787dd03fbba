//! Instances that leave the table, and the router's own end.

use crate::world::{Instance, World, entry, eventually, ok, spec};
use forerun_types::{Event, Generation, InstanceId, Span};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Answers with a head and the first half at once, and with the rest when told.
fn halting() -> (Instance, mpsc::SyncSender<()>) {
    let (go, gone) = mpsc::sync_channel::<()>(8);
    let gone = std::sync::Mutex::new(gone);
    let instance = Instance::start(move |peer, _| {
        while peer.request()?.is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nhalf")?;
            let _ = gone.lock().expect("lock").recv();
            peer.send("done")?;
        }
        Ok(())
    });
    (instance, go)
}

fn quiesced(event: &Event) -> Option<(InstanceId, Generation)> {
    match event {
        Event::Quiesced { instance, generation, .. } => Some((*instance, *generation)),
        _ => None,
    }
}

#[test]
fn an_idle_instance_is_quiesced_at_once() {
    let instance = Instance::saying("x", Duration::ZERO);
    let world = World::new();
    let shop = spec(|_| {});
    world.publish(&[entry(&shop, &[(1, instance.address), (2, instance.address)])]);
    let without = world.publish(&[entry(&shop, &[(1, instance.address)])]);
    let events = world.events_until("Quiesced", |e| quiesced(e).is_some());
    assert_eq!(quiesced(&events[events.len() - 1]), Some((InstanceId(2), without)));
    let gone = world.publish(&[]);
    let events = world.events_until("Quiesced", |e| quiesced(e).is_some());
    assert_eq!(quiesced(&events[events.len() - 1]), Some((InstanceId(1), gone)));
}

#[test]
fn an_instance_is_quiesced_when_its_last_byte_has_passed() {
    for service_leaves in [false, true] {
        let (instance, go) = halting();
        let world = World::new();
        let shop = spec(|_| {});
        world.publish(&[entry(&shop, &[(1, instance.address)])]);
        let mut client = world.client();
        client.get("/");
        assert_eq!(client.head().expect("head").0, 200);
        assert_eq!(client.read(4).expect("half"), b"half");
        let first = if service_leaves { world.publish(&[]) } else { world.publish(&[entry(&shop, &[])]) };
        world.publish(&[]);
        std::thread::sleep(Duration::from_millis(100));
        while let Some(event) = world.up.try_recv() {
            assert_eq!(quiesced(&event), None, "half of its answer is still to come");
        }
        go.send(()).expect("instance waits");
        assert_eq!(client.read(4).expect("rest"), b"done");
        let events = world.events_until("Quiesced", |e| quiesced(e).is_some());
        assert_eq!(quiesced(&events[events.len() - 1]), Some((InstanceId(1), first)));
        world.publish(&[]);
        eventually("it is forgotten", || world.router.stats().services.is_empty());
    }
}

#[test]
fn an_instance_is_quiesced_by_the_last_of_its_requests() {
    let (instance, go) = halting();
    let world = World::serving(&instance);
    let mut clients = [world.client(), world.client()];
    for client in &mut clients {
        client.get("/");
        assert_eq!(client.head().expect("head").0, 200);
    }
    world.publish(&[]);
    go.send(()).expect("an instance's connection waits");
    eventually("one has ended", || world.router.stats().services[0].in_flight == 1);
    std::thread::sleep(Duration::from_millis(50));
    while let Some(event) = world.up.try_recv() {
        assert_eq!(quiesced(&event), None, "the other is still there");
    }
    go.send(()).expect("an instance's connection waits");
    world.events_until("Quiesced", |e| quiesced(e).is_some());
}

#[test]
fn an_instance_that_comes_back_is_not_quiesced() {
    let (instance, go) = halting();
    let world = World::new();
    let shop = spec(|_| {});
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    let mut client = world.client();
    client.get("/");
    assert_eq!(client.head().expect("head").0, 200);
    world.publish(&[]);
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    go.send(()).expect("instance waits");
    assert_eq!(client.read(8).expect("body"), b"halfdone");
    eventually("it has ended", || world.router.stats().services[0].in_flight == 0);
    let last = world.publish(&[]);
    let events = world.events_until("Quiesced", |e| quiesced(e).is_some());
    let all: Vec<_> = events.iter().filter_map(quiesced).collect();
    assert_eq!(all, [(InstanceId(1), last)]);
}

#[test]
fn an_older_table_changes_nothing() {
    let instance = Instance::saying("x", Duration::ZERO);
    let world = World::serving(&instance);
    world.router.publish(&forerun_types::RouteTable::default());
    assert_eq!(world.get("/").text(), "x");
    assert_eq!(world.router.stats().generation, Generation(1));
}

#[test]
fn connections_to_an_instance_end_when_it_leaves() {
    let (tell, told) = mpsc::sync_channel(1);
    let instance = Instance::start(move |peer, _| {
        peer.request()?;
        peer.send(&ok("x"))?;
        let next = peer.request()?;
        let _ = tell.send(next.is_none());
        Ok(())
    });
    let world = World::serving(&instance);
    assert_eq!(world.get("/").text(), "x");
    world.publish(&[]);
    assert!(
        told.recv_timeout(Duration::from_secs(2)).expect("the connection ends"),
        "and carries nothing more"
    );
}

#[test]
fn shutdown_lets_requests_end_and_says_goodbye_last() {
    let (instance, go) = halting();
    let world = World::serving(&instance);
    let mut client = world.client();
    let idle = world.client();
    client.get("/");
    assert_eq!(client.head().expect("head").0, 200);
    let address = world.router.address();
    let began = Instant::now();
    std::thread::scope(|scope| {
        let ended = scope.spawn(|| {
            // A task of any runtime may await it.
            fn spawnable<F: Future + Send>(future: F) -> F {
                future
            }
            world.runtime.block_on(spawnable(world.router.shutdown(Span::from_secs(30))))
        });
        eventually("it listens no more", || std::net::TcpStream::connect(address).is_err());
        assert!(!ended.is_finished());
        go.send(()).expect("instance waits");
        assert_eq!(client.read(8).expect("body"), b"halfdone");
        ended.join().expect("shutdown");
    });
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "an idle connection does not keep it: {:?}",
        began.elapsed()
    );
    drop(idle);
    let mut names = Vec::new();
    while let Some(event) = world.up.try_recv() {
        names.push(event.name());
    }
    assert_eq!(names.first(), Some(&"router_joined"));
    assert_eq!(names.last(), Some(&"router_left"));
    assert_eq!(names.iter().filter(|n| **n == "router_left").count(), 1);
}

#[test]
fn shutdown_answers_the_held_and_cuts_what_does_not_end() {
    let (instance, _go) = halting();
    let world = World::new();
    let (shop, other) = (spec(|s| s.route.paths = vec!["/shop".to_owned()]), spec(|s| s.id.0 = 2));
    world.publish(&[entry(&shop, &[(1, instance.address)]), entry(&other, &[])]);
    let (mut endless, mut held) = (world.client(), world.client());
    endless.get("/shop");
    assert_eq!(endless.head().expect("head").0, 200);
    held.get("/");
    world.waiting(1);
    let began = Instant::now();
    world.runtime.block_on(world.router.shutdown(Span::from_millis(100)));
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!(held.reply().expect("an answer").reason(), "shutting-down");
    assert!(endless.read(8).is_err(), "half a body must not look whole");
    let stats = world.router.stats();
    assert_eq!(stats.connections, 0);
    world.events_until("RouterLeft", |e| matches!(e, Event::RouterLeft(_)));
}

#[test]
fn a_dropped_router_says_goodbye() {
    let mut world = World::new();
    let other = World::new();
    let address = world.router.address();
    world.router = other.router;
    world.events_until("RouterLeft", |e| matches!(e, Event::RouterLeft(_)));
    eventually("it listens no more", || std::net::TcpStream::connect(address).is_err());
}
