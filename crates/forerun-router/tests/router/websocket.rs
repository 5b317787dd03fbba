//! Connections that become WebSockets.

use crate::world::{Instance, World, eventually};
use forerun_types::Span;

const ASK: &str = "GET /chat HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, Upgrade\r\nUpgrade: WebSocket\r\n\
                   Sec-WebSocket-Key: x\r\n\r\n";

/// Agrees, and sends back each four bytes twice.
fn chatting() -> Instance {
    Instance::start(|peer, _| {
        let request = peer.request()?.expect("request");
        assert_eq!(request.header("upgrade"), Some("websocket"));
        assert_eq!(request.header("sec-websocket-key"), Some("x"));
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
             Sec-WebSocket-Accept: y\r\n\r\nhi, ",
        )?;
        loop {
            let bytes = peer.read(4)?;
            let text = String::from_utf8_lossy(&bytes).into_owned();
            peer.send(&text.repeat(2))?;
        }
    })
}

#[test]
fn bytes_pass_both_ways_and_the_activity_lasts_as_long() {
    let instance = chatting();
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send(ASK);
    let (status, headers) = client.head().expect("head");
    assert_eq!(status, 101);
    assert!(headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("sec-websocket-accept") && v == "y"));
    assert!(headers.iter().any(|(n, v)| n.eq_ignore_ascii_case("upgrade") && v == "websocket"));
    assert_eq!(client.read(4).expect("greeting"), b"hi, ");
    for word in ["ping", "pong"] {
        client.send(word);
        assert_eq!(client.read(8).expect("echo"), word.repeat(2).as_bytes());
    }
    assert_eq!(world.router.stats().services[0].in_flight, 1);
    drop(client);
    eventually("it is over", || {
        let stats = world.router.stats();
        stats.services[0].in_flight == 0 && stats.connections == 0
    });
}

#[test]
fn an_instance_may_decline() {
    let instance = Instance::saying("no", std::time::Duration::ZERO);
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send(ASK);
    assert_eq!(client.reply().expect("answer").text(), "no");
}

#[test]
fn other_upgrades_are_not_passed_on() {
    let instance =
        Instance::answering(|request| crate::world::ok(&format!("{:?}", request.header("upgrade"))));
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n");
    assert_eq!(client.reply().expect("answer").text(), "None");
}

#[test]
fn shutdown_ends_a_tunnel_when_the_drain_time_is_over() {
    let instance = chatting();
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send(ASK);
    assert_eq!(client.head().expect("head").0, 101);
    world.runtime.block_on(world.router.shutdown(Span::from_millis(100)));
    // The greeting, then the end, by a close or a reset.
    let _ = client.rest();
    assert_eq!(world.router.stats().connections, 0);
}
