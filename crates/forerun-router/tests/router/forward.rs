//! What passes through, and how it looks on either side.

use crate::world::{Client, Instance, World, entry, ok, read_chunk, spec};
use forerun_types::RouteRule;
use std::sync::mpsc;
use std::time::Duration;

/// Tells the test what the instance got.
fn recording() -> (Instance, mpsc::Receiver<crate::world::Request>) {
    let (tell, told) = mpsc::sync_channel(64);
    let instance = Instance::start(move |peer, _| {
        while let Some(request) = peer.request()? {
            let _ = tell.send(request);
            peer.send(&ok("done"))?;
        }
        Ok(())
    });
    (instance, told)
}

#[test]
fn requests_go_to_the_service_they_are_for() {
    let shop = Instance::saying("shop", Duration::ZERO);
    let api = Instance::saying("api", Duration::ZERO);
    let rule = |hosts: &[&str], paths: &[&str]| RouteRule {
        hosts: hosts.iter().map(|h| (*h).to_owned()).collect(),
        paths: paths.iter().map(|p| (*p).to_owned()).collect(),
    };
    let world = World::new();
    assert_eq!(world.get("/").reason(), "starting", "before the first table");
    let shop_spec = spec(|s| s.route = rule(&["shop"], &[]));
    let api_spec = spec(|s| (s.id, s.route) = (forerun_types::ServiceId(2), rule(&["shop"], &["/api"])));
    world.publish(&[entry(&shop_spec, &[(1, shop.address)]), entry(&api_spec, &[(2, api.address)])]);
    assert_eq!(world.get("/x").text(), "shop");
    assert_eq!(world.get("/api/x?q=/y").text(), "api");
    assert_eq!(world.get("/apix").text(), "shop");

    let mut client = world.client();
    client.send("GET /secret?token=1 HTTP/1.1\r\nHost: Other.example:80\r\n\r\n");
    let reply = client.reply().expect("404");
    assert_eq!((reply.status, reply.reason()), (404, "no-service"));
    let known = "shop: shop /\nshop: shop /api\n";
    assert_eq!(reply.text(), format!("forerun knows no service for Other.example:80 /secret\n{known}"));
    // Whoever comes through a proxy on this machine is a stranger.
    client.send("GET / HTTP/1.1\r\nHost: other\r\nX-Forwarded-For: 9.9.9.9\r\n\r\n");
    assert_eq!(client.reply().expect("404").text(), "forerun knows no service for other /\n");
    let mut proxy = world.client();
    proxy.send("GET / HTTP/1.0\r\nHost: other\r\n\r\n");
    assert_eq!(proxy.reply().expect("404").text(), "forerun knows no service for other /\n");
    client.send("GET / HTTP/1.1\r\nHost: other\r\nAccept: application/json\r\n\r\n");
    let reply = client.reply().expect("404 on the same connection");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    assert!(reply.text().contains("\"reason\":\"no-service\",\"source\":\"client\""), "{}", reply.text());
    assert_eq!(world.router.stats().unknown, 4);
}

#[test]
fn connections_are_kept_on_both_sides() {
    let instance = Instance::saying("hello", Duration::ZERO);
    let world = World::serving(&instance);
    let mut client = world.client();
    for _ in 0..20 {
        client.get("/");
        assert_eq!(client.reply().expect("answer").text(), "hello");
    }
    assert_eq!(instance.requests(), 20);
    assert_eq!(instance.connections(), 1);
    assert_eq!(world.router.stats().connections_total, 1);
}

#[test]
fn headers_are_those_of_a_proxy() {
    let (instance, told) = recording();
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send(
        "GET /a?b=c HTTP/1.1\r\nHost: shop:81\r\nConnection: x-mine\r\nX-Mine: 1\r\nX-Theirs: 2\r\n\
         X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-Host: evil\r\nKeep-Alive: 5\r\nTE: trailers\r\n\r\n",
    );
    assert_eq!(client.reply().expect("answer").status, 200);
    let request = told.recv().expect("request");
    assert_eq!(request.line, "GET /a?b=c HTTP/1.1");
    for (name, value) in [
        ("host", Some("shop:81")),
        ("x-mine", None),
        ("x-theirs", Some("2")),
        ("keep-alive", None),
        ("x-forwarded-for", Some("9.9.9.9, 127.0.0.1")),
        ("x-forwarded-proto", Some("http")),
        ("x-forwarded-host", Some("shop:81")),
        ("te", Some("trailers")),
    ] {
        assert_eq!(request.header(name), value, "{name}");
    }
    client.send("GET http://me:pw@other:82/x HTTP/1.1\r\nHost: shop\r\n\r\n");
    client.reply().expect("answer");
    let request = told.recv().expect("request");
    assert_eq!((request.line.as_str(), request.header("host")), ("GET /x HTTP/1.1", Some("other:82")));
    client.send("OPTIONS * HTTP/1.1\r\nHost: shop\r\n\r\n");
    client.reply().expect("answer");
    assert_eq!(told.recv().expect("request").line, "OPTIONS * HTTP/1.1");
}

#[test]
fn answers_keep_their_shape() {
    let instance = Instance::answering(|request| {
        let path = request.line.split(' ').nth(1).unwrap_or("");
        match path {
            "/204" => "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
            "/304" => "HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n".to_owned(),
            "/chunked" => {
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-hop\r\nX-Hop: 1\r\n\r\n\
                           3\r\nabc\r\n0\r\n\r\n"
                    .to_owned()
            }
            "/head" => "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n".to_owned(),
            "/early" => {
                "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
                    .to_owned()
            }
            _ => "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nX-Own: 1\r\n\r\nno".to_owned(),
        }
    });
    let world = World::serving(&instance);
    let mut client = world.client();
    for (method, path, status, length, body) in [
        ("GET", "/204", 204, None, ""),
        ("GET", "/304", 304, None, ""),
        ("HEAD", "/head", 200, Some("1234"), ""),
        ("GET", "/chunked", 200, None, "abc"),
        ("GET", "/other", 404, Some("2"), "no"),
        ("GET", "/early", 200, Some("2"), "ok"),
        ("DELETE", "/other", 404, Some("2"), "no"),
    ] {
        client.send(&format!("{method} {path} HTTP/1.1\r\nHost: shop\r\n\r\n"));
        let reply = if method == "HEAD" { client.reply_to_head() } else { client.reply() }.expect(path);
        assert_eq!(reply.status, status, "{path}");
        assert_eq!(reply.header("content-length"), length, "{path}");
        assert_eq!(reply.text(), body, "{path}");
        assert_eq!(reply.header("x-hop"), None, "{path}");
    }
    assert_eq!(instance.connections(), 1, "none of these ends a connection");
}

#[test]
fn old_clients_are_served() {
    let (instance, told) = recording();
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send("GET / HTTP/1.0\r\n\r\n");
    let reply = client.reply().expect("answer");
    assert_eq!((reply.status, reply.text().as_str()), (200, "done"));
    assert_eq!(client.rest().expect("closed"), b"", "without keep-alive it ends");
    let request = told.recv().expect("request");
    assert_eq!(request.header("host"), Some(instance.address.to_string().as_str()));
    let mut client = world.client();
    for _ in 0..2 {
        client.send("GET / HTTP/1.0\r\nHost: shop\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(client.reply().expect("answer").text(), "done");
    }
}

#[test]
fn an_old_client_gets_chunks_without_their_frame() {
    let instance = Instance::answering(|_| {
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n".to_owned()
    });
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send("GET / HTTP/1.0\r\nHost: shop\r\n\r\n");
    let reply = client.reply().expect("answer");
    assert_eq!((reply.header("transfer-encoding"), reply.text().as_str()), (None, "abcde"));
}

#[test]
fn an_answer_streams() {
    let (go, gone) = mpsc::sync_channel::<()>(0);
    let gone = std::sync::Mutex::new(gone);
    let instance = Instance::start(move |peer, _| {
        peer.request()?;
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")?;
        let _ = gone.lock().expect("lock").recv();
        peer.send("4\r\nlast\r\n0\r\n\r\n")
    });
    let world = World::serving(&instance);
    let mut client = world.client();
    client.get("/");
    assert_eq!(client.head().expect("head").0, 200);
    assert_eq!(read_chunk(&mut client.reader).expect("chunk").expect("not the last"), b"first");
    // Only now does the instance send the rest.
    go.send(()).expect("instance waits");
    assert_eq!(read_chunk(&mut client.reader).expect("chunk").expect("not the last"), b"last");
    assert_eq!(read_chunk(&mut client.reader).expect("end"), None);
}

#[test]
fn a_request_streams_and_a_slow_one_is_no_trouble() {
    let (tell, told) = mpsc::sync_channel(64);
    let instance = Instance::start(move |peer, _| {
        let request = peer.head()?.expect("request");
        assert_eq!(request.header("content-length"), Some("6"));
        for _ in 0..6 {
            let _ = tell.send(peer.read(1)?);
        }
        peer.send(&ok("got it"))
    });
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 6\r\n\r\n");
    for byte in ["a", "b", "c", "d", "e", "f"] {
        client.send(byte);
        // Each byte is there before the next is sent.
        assert_eq!(told.recv().expect("byte"), byte.as_bytes());
        std::thread::sleep(Duration::from_millis(5));
    }
    assert_eq!(client.reply().expect("answer").text(), "got it");
}

#[test]
fn a_client_that_waits_for_the_go_ahead_gets_it() {
    let (instance, told) = recording();
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send("PUT / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 4\r\n\r\n");
    assert_eq!(client.head().expect("go-ahead").0, 100);
    client.send("body");
    assert_eq!(client.reply().expect("answer").status, 200);
    let request = told.recv().expect("request");
    assert_eq!((request.header("expect"), request.body.as_slice()), (None, &b"body"[..]));
}

#[test]
fn trailers_pass_both_ways() {
    let (tell, told) = mpsc::sync_channel(1);
    let instance = Instance::start(move |peer, _| {
        let request = peer.head()?.expect("request");
        assert_eq!(request.header("trailer"), Some("x-sum"));
        let _ = tell.send(peer.read("3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n".len())?);
        peer.send(
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-end\r\n\r\n\
             2\r\nok\r\n0\r\nX-End: 9\r\n\r\n",
        )
    });
    let world = World::serving(&instance);
    let mut client = world.client();
    client.send(
        "POST / HTTP/1.1\r\nHost: shop\r\nTE: trailers\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\
         Connection: close\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    client.head().expect("head");
    let rest = String::from_utf8(client.rest().expect("rest")).expect("text");
    assert_eq!(rest.to_lowercase(), "2\r\nok\r\n0\r\nx-end: 9\r\n\r\n");
    let body = String::from_utf8(told.recv().expect("request")).expect("text");
    assert_eq!(body.to_lowercase(), "3\r\nabc\r\n0\r\nx-sum: 7\r\n\r\n");
}

#[test]
fn a_big_body_passes_whole_both_ways() {
    let instance = Instance::start(|peer, _| {
        while let Some(request) = peer.request()? {
            let text = String::from_utf8(request.body).expect("text");
            peer.send(&ok(&text))?;
        }
        Ok(())
    });
    let world = World::serving(&instance);
    let body: String = (0..1_500_000).map(|n| char::from(b'a' + (n % 26) as u8)).collect();
    for framed in [
        format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n", body.len()),
    ] {
        let mut client = world.client();
        let mut writer =
            Client { reader: std::io::BufReader::new(client.reader.get_ref().try_clone().expect("clone")) };
        let request = format!("POST /echo HTTP/1.1\r\nHost: shop\r\n{framed}");
        let sender = std::thread::spawn(move || writer.send(&request));
        assert!(client.reply().expect("answer").text() == body, "the body came back changed");
        sender.join().expect("sent");
    }
}
