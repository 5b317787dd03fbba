//! Instances that fail: what is sent again, what never is, and what a client sees.

use crate::world::{Instance, World, eventually, ok};
use forerun_router::Outcome;
use std::io::ErrorKind;
use std::time::Duration;

/// Answers the first request of its first connection, and closes that connection when the second has come.
fn closing_after_one() -> Instance {
    Instance::start(|peer, number| {
        while peer.request()?.is_some() {
            if number == 0 && peer.asked_here() == 2 {
                return peer.close();
            }
            peer.send(&ok("done"))?;
        }
        Ok(())
    })
}

fn ask(method: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} / HTTP/1.1\r\nHost: shop\r\n{length}\r\n{body}")
}

#[test]
fn a_kept_connection_that_breaks_costs_only_what_must_not_be_sent_twice() {
    for (method, body, status, sent) in [
        ("GET", "", 200, 3),
        ("DELETE", "", 200, 3),
        ("POST", "", 502, 2),
        ("POST", "x", 502, 2),
        // Harmless twice, but its body is gone.
        ("PUT", "x", 502, 2),
    ] {
        let instance = closing_after_one();
        let world = World::serving(&instance);
        let mut client = world.client();
        client.get("/");
        assert_eq!(client.reply().expect("answer").status, 200);
        client.send(&ask(method, body));
        let reply = client.reply().expect("answer");
        assert_eq!(reply.status, status, "{method} {body}");
        assert_eq!(instance.requests(), sent, "{method} {body}");
        if status == 502 {
            assert_eq!(
                (reply.reason(), reply.header("forerun-source")),
                ("upstream-closed", Some("upstream"))
            );
        }
    }
}

#[test]
fn a_kept_connection_that_was_closed_long_ago_costs_nothing() {
    // Closed after its answer: whatever comes next, nothing of it has left.
    let instance = Instance::start(|peer, _| {
        peer.request()?;
        peer.send(&ok("done"))?;
        peer.close()
    });
    let world = World::serving(&instance);
    let mut client = world.client();
    for request in [ask("POST", "x"), ask("GET", ""), ask("POST", "y")] {
        client.send(&request);
        assert_eq!(client.reply().expect("answer").status, 200);
        std::thread::sleep(Duration::from_millis(50));
    }
    assert_eq!((instance.connections(), instance.requests()), (3, 3));
}

#[test]
fn a_new_connection_that_breaks_is_tried_again_twice_if_that_is_harmless() {
    for (request, tries) in
        [(ask("GET", ""), 3), (ask("POST", ""), 1), (ask("POST", "x"), 1), (ask("PUT", "x"), 1)]
    {
        let instance = Instance::start(|peer, _| {
            peer.request()?;
            peer.close()
        });
        let world = World::serving(&instance);
        let mut client = world.client();
        client.send(&request);
        let reply = client.reply().expect("answer");
        assert_eq!((reply.status, reply.reason()), (502, "upstream-closed"));
        assert_eq!(instance.requests(), tries, "{request}");
        client.send(&request);
        assert_eq!(client.reply().expect("the client's connection goes on").status, 502);
        assert_eq!(instance.requests(), 2 * tries, "{request}");
    }
}

#[test]
fn an_answer_cut_short_never_looks_whole() {
    for (answer, old_client) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", false),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", false),
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf", true),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n", true),
    ] {
        let instance = Instance::start(move |peer, _| {
            peer.request()?;
            peer.send(answer)?;
            // The client has the first half before the rest fails.
            std::thread::sleep(Duration::from_millis(100));
            peer.close()
        });
        let world = World::serving(&instance);
        let mut client = world.client();
        let version = if old_client { "1.0" } else { "1.1" };
        client.send(&format!("GET / HTTP/{version}\r\nHost: shop\r\n\r\n"));
        let error = client.reply().expect_err("a body that ends early");
        let kinds = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        assert!(kinds.contains(&error.kind()), "{answer} {version}: {error:?}");
        if old_client && answer.contains("chunked") {
            assert_eq!(error.kind(), ErrorKind::ConnectionReset, "its end alone would look like the body's");
        }
        eventually("it counts as failed", || {
            world.router.stats().services[0].reasons.get("upstream-cut") == Some(&1)
        });
    }
}

#[test]
fn an_instance_that_talks_nonsense_is_a_502() {
    for (answer, reason) in [
        ("SSH-2.0-OpenSSH\r\n\r\n", "upstream-protocol"),
        ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "upstream-protocol"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", "upstream-protocol"),
        (
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "upstream-protocol",
        ),
    ] {
        let instance = Instance::start(move |peer, _| {
            peer.request()?;
            peer.send(answer)?;
            peer.request().map(|_| ())
        });
        let world = World::serving(&instance);
        let reply = world.get("/");
        assert_eq!((reply.status, reply.reason()), (502, reason), "{answer}");
        eventually("nothing is left in flight", || world.router.stats().services[0].in_flight == 0);
    }
}

#[test]
fn an_instance_that_never_answers_is_a_504() {
    let instance = Instance::start(|peer, _| {
        peer.request()?;
        peer.request().map(|_| ())
    });
    let world = World::with_limits(|limits| limits.response_timeout = forerun_types::Span::from_millis(150));
    world.publish(&[crate::world::entry(&crate::world::spec(|_| {}), &[(1, instance.address)])]);
    let reply = world.get("/");
    assert_eq!((reply.status, reply.reason()), (504, "upstream-timeout"));
    // A second answer to come late would belong to the wrong request: the connection is not used again.
    assert_eq!(world.get("/").status, 504);
    assert_eq!(instance.connections(), 2);
    assert_eq!(world.router.stats().services[0].requests(Outcome::Failed), 2);
}

#[test]
fn an_upload_that_takes_longer_than_an_answer_may_is_fine() {
    let instance = Instance::saying("got it", Duration::ZERO);
    let world = World::with_limits(|limits| limits.response_timeout = forerun_types::Span::from_millis(150));
    world.publish(&[crate::world::entry(&crate::world::spec(|_| {}), &[(1, instance.address)])]);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n");
    for byte in ["a", "b", "c", "d", "e"] {
        std::thread::sleep(Duration::from_millis(70));
        client.send(byte);
    }
    assert_eq!(client.reply().expect("answer").text(), "got it");
}
