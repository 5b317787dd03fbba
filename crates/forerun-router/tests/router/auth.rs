//! Nobody unknown wakes anything.

use crate::world::{Instance, World, entry, ok, spec};
use forerun_types::Auth;
use std::collections::BTreeMap;
use std::net::TcpListener;
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Lets in whoever has `sid=good`, says who that is, and keeps what it was asked.
fn login(asked: Arc<Mutex<Vec<String>>>) -> Instance {
    Instance::answering(move |request| {
        let mut told = vec![request.line.clone()];
        for name in [
            "host",
            "x-forwarded-method",
            "x-forwarded-uri",
            "x-forwarded-host",
            "x-original-url",
            "remote-user",
            "range",
        ] {
            told.push(format!("{name}: {}", request.header(name).unwrap_or("-")));
        }
        asked.lock().expect("lock").push(told.join(" | "));
        match request.header("cookie") {
            Some("sid=good") => "HTTP/1.1 200 OK\r\nContent-Length: 0\r\nRemote-User: anna\r\nX-Other: 1\r\n\
                                 Set-Cookie: sid=renewed\r\n\r\n"
                .to_owned(),
            _ => "HTTP/1.1 302 Found\r\nLocation: http://login/?rd=x\r\nContent-Length: 3\r\nConnection: keep-alive\
                  \r\n\r\nlog"
                .to_owned(),
        }
    })
}

#[test]
fn another_server_says_who_may_come_in() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let login = login(Arc::clone(&asked));
    let world = World::new();
    let url = format!("http://{}/verify?x=1", login.address);
    let shop = spec(|s| s.auth = Some(Auth::Forward { url }));
    world.publish(&[entry(&shop, &[])]);
    world.told();
    let stranger = "POST /cart?a=b HTTP/1.1\r\nHost: shop\r\nRemote-User: root\r\nRange: bytes=0-1\r\n\
                    Content-Length: 0";
    let reply = world.ask(stranger);
    assert_eq!((reply.status, reply.header("location")), (302, Some("http://login/?rd=x")));
    assert_eq!(reply.text(), "log");
    assert_eq!(world.acts_and_waits(), (0, 0), "a stranger wakes nothing and is no activity");
    assert_eq!(
        asked.lock().expect("lock")[0],
        format!(
            "GET /verify?x=1 HTTP/1.1 | host: {} | x-forwarded-method: POST | x-forwarded-uri: /cart?a=b | \
             x-forwarded-host: shop | x-original-url: http://shop/cart?a=b | remote-user: - | range: -",
            login.address
        )
    );

    let mut client = world.client();
    client.send("GET / HTTP/1.1\r\nHost: shop\r\nCookie: sid=good\r\nRemote-User: root\r\n\r\n");
    world.waiting(1);
    let instance = Instance::answering(|request| {
        let all = request.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("remote-user"));
        let users: Vec<_> = all.map(|(_, user)| user.as_str()).collect();
        ok(&format!("{} {:?}", users.join(","), request.header("x-other")))
    });
    world.publish(&[entry(&shop, &[(1, instance.address)])]);
    let reply = client.reply().expect("answer");
    assert_eq!(reply.text(), "anna None", "only the server's word counts, and only on who it is");
    assert_eq!(reply.header("set-cookie"), Some("sid=renewed"));
    assert_eq!(world.ask(stranger).status, 302, "an awake service is no more open");
    assert_eq!(instance.requests(), 1);
}

#[test]
fn a_guard_that_is_down_lets_nobody_in() {
    let closed = TcpListener::bind("127.0.0.1:0").expect("bind").local_addr().expect("address");
    let rude = Instance::start(|peer, _| peer.request().map(drop));
    let world = World::new();
    for (address, status) in [(closed, 502), (rude.address, 502)] {
        let shop = spec(|s| s.auth = Some(Auth::Forward { url: format!("http://{address}/") }));
        world.publish(&[entry(&shop, &[])]);
        let reply = world.get("/");
        assert_eq!((reply.status, reply.reason()), (status, "auth-server"));
        assert!(!reply.text().contains(&address.to_string()), "its address stays here");
    }
    assert_eq!(world.acts_and_waits(), (0, 0));
    assert_eq!(world.router.stats().services[0].reasons["auth"], 2);
}

#[test]
fn passwords_and_tokens_open_a_service() {
    let hash = |text: &str| blake3::hash(text.as_bytes()).to_hex().to_string();
    let basic = Auth::Basic { users: BTreeMap::from([("anna".to_owned(), hash("secret"))]) };
    let token = Auth::Token { hashes: vec![hash("t0ken")] };
    let instance = Instance::saying("in", Duration::ZERO);
    let world = World::new();
    // anna:secret and anna:secreT
    let (good, bad) = ("Basic YW5uYTpzZWNyZXQ=", "Basic YW5uYTpzZWNyZVQ=");
    for (auth, given, challenge) in [
        (&basic, good, None),
        (&basic, bad, Some("Basic realm=\"forerun\", charset=\"UTF-8\"")),
        (&basic, "Bearer t0ken", Some("Basic realm=\"forerun\", charset=\"UTF-8\"")),
        (&token, "Bearer t0ken", None),
        (&token, "Bearer other", Some("Bearer realm=\"forerun\"")),
        (&token, good, Some("Bearer realm=\"forerun\"")),
    ] {
        let shop = spec(|s| s.auth = Some(auth.clone()));
        world.publish(&[entry(&shop, &[(1, instance.address)])]);
        let reply = world.ask(&format!("GET / HTTP/1.1\r\nHost: shop\r\nAuthorization: {given}"));
        assert_eq!(reply.header("www-authenticate"), challenge, "{given}");
        assert_eq!(reply.status, if challenge.is_some() { 401 } else { 200 }, "{given}");
        world.publish(&[entry(&shop, &[])]);
        assert_eq!(world.get("/").status, 401, "nothing given");
    }
    let (_, waits) = world.acts_and_waits();
    assert_eq!(waits, 0);
}
