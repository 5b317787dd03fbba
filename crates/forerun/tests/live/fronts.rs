//! Real proxies in front of Forerun, by the configurations in `examples/`.

use crate::http::{Answer, Client, get};
use crate::world::{GONE_WITHIN, Live, PATIENCE, World, eventually};
use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

const SERVICES: &str = "[service.shop]\ncommand = [FIXTURE, \"--start-delay\", \"300\"]\n\
                        route = { host = \"shop.example\" }\nresources = { memory = \"64MB\" }\n\
                        [service.wiki]\ncommand = [FIXTURE, \"--start-delay\", \"2000\"]\nhold = \"auto\"\n\
                        route = { host = \"wiki.example\" }\nresources = { memory = \"64MB\" }\n";

/// A proxy that runs; killed when dropped.
struct Proxy {
    child: Child,
    address: SocketAddr,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a program can be run; says aloud that a test is skipped where it cannot.
fn is_there(program: &str, version: &str) -> bool {
    let found =
        Command::new(program).arg(version).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !found {
        eprintln!("SKIPPED: there is no {program} on this machine; install it to try its example for real");
    }
    found
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn example(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(name)).unwrap()
}

/// An example with the addresses of this Forerun.
fn adapted(text: &str, live: &Live) -> String {
    assert!(text.contains("127.0.0.1:7070") && text.contains("127.0.0.1:8080"), "both ways are in it");
    text.replace("127.0.0.1:7070", &live.api.to_string()).replace("127.0.0.1:8080", &live.router.to_string())
}

fn runs(mut command: Command, port: u16, what: &str) -> Proxy {
    let address = SocketAddr::from(([127, 0, 0, 1], port));
    let proxy = Proxy { child: command.stdin(Stdio::null()).spawn().unwrap(), address };
    eventually(&format!("{what} listens"), PATIENCE, || TcpStream::connect(address).is_ok());
    proxy
}

fn nginx(world: &World, live: &Live) -> Proxy {
    let port = free_port();
    let folder = world.folder.to_str().unwrap().to_owned();
    let temps = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
    let paths: String = temps.iter().map(|name| format!("{name}_temp_path {folder}/{name};\n")).collect();
    let text = adapted(&example("nginx/nginx.conf"), live)
        .replace("listen 8000;", &format!("listen 127.0.0.1:{port};"))
        .replace("http {", &format!("http {{\naccess_log off;\n{paths}"))
        .replace("keep=10s", "keep=2s");
    fs::write(world.path("nginx.conf"), text).unwrap();
    let mut command = Command::new("nginx");
    let settings = format!("daemon off; pid {folder}/nginx.pid; error_log {folder}/nginx.log;");
    command.args([
        "-p",
        &folder,
        "-c",
        &format!("{folder}/nginx.conf"),
        "-e",
        &format!("{folder}/nginx.log"),
    ]);
    // Its workers end with it.
    command.args(["-g", &format!("{settings} master_process off;")]);
    runs(command, port, "nginx")
}

fn caddy(world: &World, live: &Live) -> Proxy {
    let port = free_port();
    let sites = adapted(&example("caddy/Caddyfile"), live)
        .replace("\nshop.example {", &format!("\nhttp://shop.example:{port} {{"))
        .replace("\nwiki.example {", &format!("\nhttp://wiki.example:{port} {{"))
        .replace("keep=10s", "keep=2s");
    fs::write(world.path("Caddyfile"), format!("{{\n\tadmin off\n}}\n{sites}")).unwrap();
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(world.path("Caddyfile"));
    command
        .env("XDG_DATA_HOME", &world.folder)
        .env("XDG_CONFIG_HOME", &world.folder)
        .env("HOME", &world.folder);
    let log = fs::File::create(world.path("caddy.log")).unwrap();
    command.stdout(Stdio::null()).stderr(log);
    runs(command, port, "caddy")
}

fn post(address: SocketAddr, host: &str, body: &str) -> Answer {
    let mut client = Client::connect(address).unwrap();
    let length = body.len();
    let head = format!("POST /echo HTTP/1.1\r\nHost: {host}\r\nContent-Length: {length}\r\n\r\n");
    client.send(format!("{head}{body}").as_bytes()).unwrap();
    client.answer().unwrap()
}

/// The head that a browser sends when it goes to a page, answered with the status and all that came.
fn browse(address: SocketAddr, host: &str) -> (u16, String) {
    use std::io::{Read, Write};
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "GET /page?x=1 HTTP/1.1\r\nHost: {host}\r\nSec-Fetch-Mode: navigate\r\nAccept: text/html\r\n\
         User-Agent: Firefox\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    (text.split(' ').nth(1).unwrap().parse().unwrap(), text)
}

/// What holds behind each proxy.
fn check(name: &str, start: impl FnOnce(&World, &Live) -> Proxy) {
    let world = World::new(name, SERVICES);
    let live = world.up();
    let proxy = start(&world, &live);
    // Through the router.
    let answer = post(proxy.address, "shop.example", "body");
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"), "held, with its body, until ready");
    live.until("shop", "it was seen", |s| s["requests"] == 1);
    // Asked first: a browser is shown the page, and then the service itself.
    let (status, text) = browse(proxy.address, "wiki.example");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("wiki is starting") && text.contains("http-equiv=\"refresh\""), "{text}");
    eventually("the page gives way to the service", PATIENCE, || {
        browse(proxy.address, "wiki.example").0 == 200
    });
    let answer = post(proxy.address, "wiki.example", "past the router");
    assert_eq!((answer.status, answer.text().as_str()), (200, "past the router"));
    let service = live.service("wiki");
    assert_eq!((&service["requests"], &service["in_flight"]), (&0.into(), &1.into()), "not seen, and in use");
    let wakes = get(live.api, "localhost", "/v1/services/wiki/wakes").unwrap();
    let wakes: serde_json::Value = serde_json::from_slice(&wakes.body).unwrap();
    assert_eq!(
        (&wakes["woken_by"][0]["action"], &wakes["woken_by"][0]["agent"]),
        (&"GET /page".into(), &"Firefox".into())
    );
    live.until("wiki", "its time is over", |s| s["in_flight"] == 0);
    drop(proxy);
    live.drain();
    world.all_gone(GONE_WITHIN);
    world.journal_replays();
}

#[test]
fn nginx_in_front_and_beside() {
    if is_there("nginx", "-v") {
        check("nginx", nginx);
    }
}

#[test]
fn caddy_in_front_and_beside() {
    if is_there("caddy", "version") {
        check("caddy", caddy);
    }
}

/// What a monitor's probe finds of services that sleep, and that it wakes none of them.
fn check_probe(name: &str, start: impl FnOnce(&World, &Live) -> Proxy) {
    let world = World::new(name, SERVICES);
    let live = world.up();
    let proxy = start(&world, &live);
    for host in ["shop.example", "wiki.example"] {
        let answer = get(proxy.address, host, "/healthz").unwrap();
        assert_eq!((answer.status, answer.header("forerun-state")), (200, Some("asleep")), "{host}");
    }
    std::thread::sleep(Duration::from_millis(300));
    for name in ["shop", "wiki"] {
        let service = live.service(name);
        assert_eq!(
            (&service["instances"]["starting"], &service["requests"]),
            (&0.into(), &0.into()),
            "{service}"
        );
    }
    drop(proxy);
    live.drain();
    world.all_gone(GONE_WITHIN);
}

#[test]
fn a_probe_behind_nginx_finds_a_service_asleep() {
    if is_there("nginx", "-v") {
        check_probe("nginx-probe", nginx);
    }
}

#[test]
fn a_probe_behind_caddy_finds_a_service_asleep() {
    if is_there("caddy", "version") {
        check_probe("caddy-probe", caddy);
    }
}

/// Traefik with the routes that Forerun gives it, and with a middleware of the example's that asks first, on a route
/// that its owner has already.
fn traefik(world: &World, live: &Live, instance: u16) -> Proxy {
    let port = free_port();
    let at_hand = |text: &str| {
        let text = text.replace("http://forerun:7071", &format!("http://{}", live.api));
        text.replace("http://forerun:8080", &format!("http://{}", live.router))
    };
    let own = format!(
        "  routers:\n    wiki:\n      rule: Host(`wiki.example`)\n      priority: 1000\n      service: wiki\n\
         \x20     middlewares: [forerun]\n  services:\n    wiki:\n      loadBalancer:\n        servers:\n\
         \x20         - url: http://127.0.0.1:{instance}\n"
    );
    let dynamic = at_hand(&example("traefik/dynamic.yml")).replace("keep=10s", "keep=2s");
    // The plugin would be fetched from elsewhere.
    let (middleware, _) = dynamic.split_once("    # Sablier's plugin").unwrap();
    fs::write(world.path("dynamic.yml"), format!("{middleware}{own}")).unwrap();
    let file = format!("providers:\n  file:\n    filename: {}\n", world.path("dynamic.yml").display());
    let settings = at_hand(&example("traefik/traefik.yml"))
        .replace("\":80\"", &format!("\"127.0.0.1:{port}\""))
        .replace("\"10s\"", "\"300ms\"")
        .replace("providers:\n", &file);
    fs::write(world.path("traefik.yml"), settings).unwrap();
    let mut command = Command::new("traefik");
    command.arg(format!("--configfile={}", world.path("traefik.yml").display()));
    let log = || fs::File::create(world.path("traefik.log")).unwrap();
    command.stdout(log()).stderr(log());
    runs(command, port, "traefik")
}

#[test]
fn traefik_in_front_and_beside() {
    if !is_there("traefik", "version") {
        return;
    }
    // Traefik cannot be told an address by the answer: what is asked about first listens where Traefik knows it.
    let instance = free_port();
    let services =
        SERVICES.replace("hold = \"auto\"", &format!("hold = \"auto\"\nport = {instance}\nmax = 1"));
    let world = World::new("traefik", &services);
    let live = world.up();
    let proxy = traefik(&world, &live, instance);
    eventually("it has taken the routes", PATIENCE, || {
        get(proxy.address, "shop.example", "/healthz").is_ok_and(|a| a.status == 200)
    });
    let probe = get(proxy.address, "shop.example", "/healthz").unwrap();
    assert_eq!(probe.header("forerun-state"), Some("asleep"), "a probe wakes nothing");
    let answer = post(proxy.address, "shop.example", "body");
    assert_eq!((answer.status, answer.text().as_str()), (200, "body"), "held, with its body, until ready");
    let (status, text) = browse(proxy.address, "wiki.example");
    assert_eq!(status, 503, "{text}");
    assert!(text.contains("wiki is starting") && text.contains("http-equiv=\"refresh\""), "{text}");
    eventually("the page gives way to the service", PATIENCE, || {
        browse(proxy.address, "wiki.example").0 == 200
    });
    let answer = post(proxy.address, "wiki.example", "past the router");
    assert_eq!((answer.status, answer.text().as_str()), (200, "past the router"));
    assert_eq!(live.service("wiki")["requests"], 0, "asked about, and not seen");
    live.until("wiki", "its time is over", |s| s["in_flight"] == 0);
    drop(proxy);
    live.drain();
    world.all_gone(GONE_WITHIN);
}
