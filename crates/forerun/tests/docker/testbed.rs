//! The test bed itself: if these fail, what others say means nothing.

use crate::engine::{BUSYBOX, Engine, FIXTURE, eventually, fixture};
use serde_json::json;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

#[test]
fn an_engine_answers_and_its_containers_can_be_reached() {
    let Some(engine) = Engine::find() else { return };
    for image in [FIXTURE, BUSYBOX] {
        engine.call("GET", &format!("/images/{image}/json"), None);
    }
    engine.create("one", &fixture(&["--tag", "hello"], &[]));
    engine.start("one");
    let address = engine.address("one", 8080);
    eventually("the container answers", Duration::from_secs(10), || {
        let Ok(mut stream) = TcpStream::connect(address) else { return false };
        let mut answer = String::new();
        stream.write_all(b"GET / HTTP/1.0\r\n\r\n").is_ok()
            && stream.read_to_string(&mut answer).is_ok()
            && answer.contains("hello 1\n")
    });
    engine.stop("one");
    assert!(!engine.is_running("one"));
    assert_eq!(engine.inspect("one")["State"]["ExitCode"], 0, "it did not hear the signal");
}

#[test]
fn a_killed_daemon_stays_down_as_long_as_it_is_held() {
    let Some(engine) = Engine::find() else { return };
    engine.create("kept", &json!({"Image": BUSYBOX, "Cmd": ["sleep", "1000"]}));
    engine.kill_daemon(true);
    std::thread::sleep(Duration::from_millis(500));
    assert!(engine.try_call("GET", "/_ping", None).is_err());
    engine.release_daemon();
    assert_eq!(engine.containers(), [("kept".to_owned(), "created".to_owned())]);
}
