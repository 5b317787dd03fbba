//! A real WebSocket client and server, with Forerun and a process of its between them.

use crate::http::Client;
use crate::world::{GONE_WITHIN, Live, PATIENCE, World, eventually};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};
use tungstenite::{Message, WebSocket};

/// A server that says everything twice, at a port of this machine.
fn server() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                // Whoever only looks whether the port is open makes no handshake.
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    if let Message::Text(text) = message
                        && socket.send(Message::text(format!("{text} {text}"))).is_err()
                    {
                        return;
                    }
                }
            });
        }
    });
    port
}

fn says(socket: &mut WebSocket<TcpStream>, text: &str) {
    socket.send(Message::text(text)).unwrap();
    assert_eq!(socket.read().unwrap(), Message::text(format!("{text} {text}")));
}

#[test]
fn an_open_socket_wakes_is_held_and_keeps_its_instance() {
    let port = server();
    let services = format!(
        "[service.chat]\ncommand = [FIXTURE, \"--start-delay\", \"300\", \"--relay\", \"{port}\"]\n\
         drain_timeout = \"30s\"\nresources = {{ memory = \"64MB\" }}\n"
    );
    let world = World::new("websocket", &services);
    let live = world.up();
    let stream = TcpStream::connect(live.router).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut socket, answer) = tungstenite::client("ws://chat.test/room?x=1", stream).unwrap();
    assert_eq!(answer.status(), 101, "the handshake was held until there was an instance");
    says(&mut socket, "hello");
    live.until("chat", "the socket counts", |s| s["in_flight"] == 1 && s["requests"] == 0);
    // A person wants it gone: what is in use is let end.
    let body = "{\"instances\":0}";
    let mut person = Client::connect(live.api).unwrap();
    let head = "POST /v1/services/chat/scale HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json";
    person.send(format!("{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).as_bytes()).unwrap();
    assert_eq!(person.answer().unwrap().status, 200);
    live.until("chat", "it is told", |s| s["wanted"] == 0);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(2) {
        says(&mut socket, &"long ".repeat(5_000));
        std::thread::sleep(Duration::from_millis(100));
    }
    let there = |live: &Live| {
        let instances = &live.service("chat")["instances"];
        instances["ready"].as_u64().unwrap() + instances["draining"].as_u64().unwrap()
    };
    assert_eq!(there(&live), 1, "as long as it is in use");
    socket.close(None).unwrap();
    while socket.read().is_ok() {}
    drop(socket);
    eventually("the instance is stopped", PATIENCE, || there(&live) == 0);
    assert!(since.elapsed() < Duration::from_secs(20), "by its end, and not by the end of the drain time");
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}
