//! The story of an existing compose project, step by step, as its owner would live it. Nothing at any step may surprise
//! them: each step says what may change in the engine, and checks that nothing else did.

use crate::engine::{Engine, eventually};
use crate::http::{Answer, Client};
use crate::proxy::{self, Proxy};
use crate::shop::{self, container, identity, names, service};
use crate::world::{Live, PATIENCE, World, forerun};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

/// Long enough for anything that would happen by itself to have happened.
const A_WHILE: Duration = Duration::from_secs(4);
/// From the last request to a project at zero: the class keeps nothing for long, and `db` goes after those that need it.
const ASLEEP_WITHIN: Duration = Duration::from_secs(60);

const CONFIG: &str = "[router]\nlisten = \"127.0.0.1:0\"\n[api]\nlisten = \"127.0.0.1:0\"\n\
                      [store]\nfolder = \"state\"\nflush_interval = \"50ms\"\n\
                      [site.local]\ncapacity = { memory = \"8GB\" }\n[sla.brief]\ncold_start_cost = 0.001\n";

/// The project, a stand-in for a current engine before the real one, and Forerun in between.
struct Story<'a> {
    engine: &'a Engine,
    world: World,
    proxy: Proxy,
    live: Option<Live>,
}

impl<'a> Story<'a> {
    fn begin(engine: &'a Engine, name: &str) -> Self {
        shop::create(engine);
        shop::start(engine);
        let world = World::new(name, "");
        world.configure_all(CONFIG);
        let proxy = Proxy::start(&world.path("engine.sock"), &engine.socket);
        let mut story = Self { engine, world, proxy, live: None };
        story.up();
        story
    }

    fn up(&mut self) {
        let host = self.proxy.host();
        self.live = Some(self.world.up_with(&[("DOCKER_HOST", Path::new(&host))]));
    }

    fn live(&self) -> &Live {
        self.live.as_ref().unwrap()
    }

    /// `forerun WORD SERVICE`, which must succeed.
    fn tell(&self, words: &[&str]) {
        let api = self.live().api.to_string();
        let (code, out, err) = forerun(&[words, &["--api", &api]].concat());
        assert_eq!(code, Some(0), "forerun {words:?}: {out}{err}");
    }

    /// Waits until the status knows all six and has one of each ready.
    fn adopted(&self) {
        for name in names() {
            self.until(name, "adopted", |s| s["instances"]["ready"] == 1);
        }
    }

    /// As `Live::until`, for a service that may not be known yet.
    fn until(&self, name: &str, what: &str, fits: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let status = self.live().status();
            let found = status["services"].as_array().unwrap().iter().find(|s| s["name"] == service(name));
            if let Some(found) = found.filter(|s| fits(s)) {
                return found.clone();
            }
            assert!(start.elapsed() < PATIENCE, "not in time, {name} {what}: {status}\n{}", self.world.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn running(&self) -> Vec<&'static str> {
        names().into_iter().filter(|name| self.engine.is_running(&container(name))).collect()
    }

    /// Waits until the engine says so too: what is told may be a moment old.
    fn all_up(&self) {
        let start = Instant::now();
        while self.running().len() < names().len() {
            let up = self.running();
            assert!(
                start.elapsed() < PATIENCE,
                "not all are up: {up:?}: {:?}\n{}\n{}",
                names().map(|name| self.engine.inspect(&container(name))["State"].clone()),
                self.live().status(),
                self.world.log()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn asleep(&self) {
        let start = Instant::now();
        while !self.running().is_empty() {
            let up = self.running();
            assert!(
                start.elapsed() < ASLEEP_WITHIN,
                "still up: {up:?}: {}\n{}",
                self.live().status(),
                self.world.log()
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// The project's containers and no other.
    fn nothing_doubled(&self) {
        let expect: Vec<String> = {
            let mut all: Vec<String> = names().iter().map(|name| container(name)).collect();
            all.sort();
            all
        };
        let there: Vec<String> = self.engine.containers().into_iter().map(|(name, _)| name).collect();
        assert_eq!(there, expect);
    }

    /// An answer to a client that is no browser.
    fn ask(&self, host: &str) -> Answer {
        self.live().get(host, "/")
    }

    fn is_served(&self, host: &str, tag: &str) {
        let answer = self.ask(host);
        assert_eq!(answer.status, 200, "{host}: {}\n{}", answer.text(), self.world.log());
        assert!(answer.text().starts_with(tag), "{host}: {}", answer.text());
    }

    /// Nothing but looking has been asked of the engine since call number `from`.
    fn only_looked(&self, from: usize) {
        let calls = self.proxy.calls();
        let changing: Vec<_> =
            calls[from..].iter().filter(|c| !["GET", "HEAD"].contains(&c.method.as_str())).collect();
        assert!(changing.is_empty(), "{changing:?}");
    }
}

/// Brought up by hand, adopted, observed: everything is seen, requests are routed, nothing is changed.
fn observed(story: &Story<'_>, before: &[(String, String, String)]) {
    story.adopted();
    for name in names() {
        assert_eq!(story.live().service(&service(name))["mode"], "observe", "{name}");
    }
    for name in ["api", "orders", "web", "admin"] {
        story.is_served(&format!("{name}.test"), name);
    }
    std::thread::sleep(A_WHILE);
    assert_eq!(identity(story.engine), before, "observing changed a container");
    story.nothing_doubled();
    story.only_looked(0);
    // Once nobody has asked for anything in a while, it says what it would do; and still it does nothing.
    eventually("it says what it would do", ASLEEP_WITHIN, || {
        let status = story.live().status();
        status["services"].as_array().unwrap().iter().any(|s| s["would"].is_string())
    });
    assert_eq!(identity(story.engine), before, "observing changed a container");
}

/// Handed over, and left alone: everything goes, what is needed by others last.
fn handed_over(story: &Story<'_>) {
    for name in names() {
        story.tell(&["act", &service(name)]);
        story.until(name, "handed over", |s| s["mode"] == "act");
    }
    story.asleep();
    story.nothing_doubled();
    let ended = |name: &str| {
        let inspected = story.engine.inspect(&container(name));
        inspected["State"]["FinishedAt"].as_str().unwrap_or_default().to_owned()
    };
    for (needed, by) in [("db", "api"), ("db", "orders"), ("cache", "api"), ("api", "web")] {
        assert!(ended(needed) >= ended(by), "{needed} was stopped before {by}");
    }
}

/// A browser gets a page at once and then the site, with all that it needs.
fn woken_by_a_browser(story: &Story<'_>) {
    let browse = || {
        let mut client = Client::connect(story.live().router).unwrap();
        let head = "GET / HTTP/1.1\r\nHost: web.test\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\
                    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
                    Accept: text/html,application/xhtml+xml,*/*;q=0.8\r\n\r\n";
        client.send(head.as_bytes()).unwrap();
        client.answer().unwrap()
    };
    let page = browse();
    let kind = page.header("content-type").unwrap_or_default().to_owned();
    assert!(kind.starts_with("text/html"), "{kind}: {}", page.text());
    assert!(!page.text().starts_with("web "), "that was the site, not the page");
    eventually("the site comes after its page", PATIENCE, || browse().text().starts_with("web "));
    let running = story.running();
    for needed in ["web", "api", "db", "cache"] {
        assert!(running.contains(&needed), "{needed} is not up: {running:?}");
    }
    // Others may be up too: the same user went on to them before.
    started_in_order(story, &[("db", "api"), ("cache", "api"), ("api", "web")]);
    story.nothing_doubled();
}

/// Programs are held, and the first answer is the service's own.
fn woken_by_programs(story: &Story<'_>) {
    story.asleep();
    std::thread::scope(|scope| {
        for name in ["api", "orders"] {
            scope.spawn(move || story.is_served(&format!("{name}.test"), name));
        }
    });
    started_in_order(story, &[("db", "api"), ("db", "orders")]);
    let mut client = Client::connect(story.live().router).unwrap();
    client.send(b"POST /echo HTTP/1.1\r\nHost: admin.test\r\nContent-Length: 5\r\n\r\nhello").unwrap();
    let answer = client.answer().unwrap();
    assert_eq!((answer.status, answer.text().as_str()), (200, "hello"));
    story.nothing_doubled();
}

fn started_in_order(story: &Story<'_>, pairs: &[(&str, &str)]) {
    let began = |name: &str| {
        let inspected = story.engine.inspect(&container(name));
        inspected["State"]["StartedAt"].as_str().unwrap_or_default().to_owned()
    };
    for (first, then) in pairs {
        assert!(began(first) <= began(then), "{first} was started after {then}");
    }
}

/// What a person stops stays stopped, whoever asks, and is said so; what they start is served again.
fn stopped_by_hand(story: &Story<'_>) {
    story.is_served("admin.test", "admin");
    story.engine.stop(&container("admin"));
    let stopped = story.until("admin", "stopped by hand", |s| !s["down"].is_null());
    let refused = story.ask("admin.test");
    assert_eq!(refused.status, 503, "{}: {stopped}", refused.text());
    assert!(refused.text().contains("by hand"), "{}", refused.text());
    std::thread::sleep(A_WHILE);
    assert!(
        !story.engine.is_running(&container("admin")),
        "it was started against its owner's will: {stopped}"
    );
    let (_, text, _) = forerun(&["status", "--api", &story.live().api.to_string()]);
    assert!(text.contains("by hand"), "{text}");
    story.is_served("orders.test", "orders");
    story.engine.start(&container("admin"));
    eventually("what was started by hand is served", PATIENCE, || story.ask("admin.test").status == 200);
    story.nothing_doubled();
}

/// Forerun dies and comes back: what runs is taken over as it is, and what a person said still holds.
fn forerun_killed(story: &mut Story<'_>) {
    story.is_served("web.test", "web");
    story.is_served("orders.test", "orders");
    for name in names() {
        story.tell(&["scale", &service(name), "1", "--for", "10m"]);
        story.until(name, "held", |s| s["instances"]["ready"] == 1);
    }
    story.all_up();
    story.live.as_mut().unwrap().kill();
    let before = identity(story.engine);
    let running = story.running();
    story.up();
    for name in &running {
        story.until(name, "adopted again", |s| s["instances"]["ready"] == 1);
        assert_eq!(
            story.live().service(&service(name))["mode"],
            "act",
            "{name}: what a person said is forgotten"
        );
    }
    let after = identity(story.engine);
    for (was, is) in before.iter().zip(&after).filter(|(was, _)| running.contains(&was.0.as_str())) {
        assert_eq!(was, is, "taking over changed a container");
    }
    story.is_served("web.test", "web");
    story.nothing_doubled();
}

/// The daemon dies under a running project. A warm request never waits for it; when it is back, all is as its owner's
/// `restart:` says, and requests are served.
fn daemon_killed(story: &Story<'_>) {
    story.is_served("web.test", "web");
    story.engine.kill_daemon(true);
    for _ in 0..5 {
        let began = Instant::now();
        story.is_served("web.test", "web");
        assert!(began.elapsed() < Duration::from_millis(500), "a warm request took {:?}", began.elapsed());
        std::thread::sleep(Duration::from_millis(100));
    }
    story.engine.release_daemon();
    for name in ["web", "api", "orders", "admin"] {
        let host = format!("{name}.test");
        eventually(&format!("{name} is served again"), PATIENCE, || {
            story.ask(&host).text().starts_with(name)
        });
    }
    story.nothing_doubled();
    for name in names() {
        story.tell(&["resume", &service(name)]);
    }
}

/// The project is brought down by hand: nothing of it is brought back, whoever asks, and nothing of ours is left.
fn brought_down(story: &Story<'_>) {
    shop::down(story.engine);
    let calls = story.proxy.calls().len();
    eventually("its services are gone or down", PATIENCE, || {
        let status = story.live().status();
        let up = |s: &Value| s["instances"]["ready"] != 0;
        !status["services"].as_array().unwrap().iter().any(up)
    });
    for name in ["web", "admin"] {
        let answer = story.ask(&format!("{name}.test"));
        assert!([404, 421, 503].contains(&answer.status), "{name}: {answer:?}");
    }
    std::thread::sleep(A_WHILE);
    assert_eq!(story.engine.containers(), [], "something was brought back");
    story.only_looked(calls);
}

/// What holds of every call that was made in a whole story in which nothing was cloned.
fn calls_were_proper(story: &Story<'_>) {
    let calls = story.proxy.calls();
    assert!(calls.iter().all(|c| c.method != "DELETE"), "the project is its owner's: {calls:?}");
    proxy::were_proper(&calls, "");
}

#[test]
fn a_project_of_six_is_adopted_and_observed() {
    let Some(engine) = Engine::find() else { return };
    let story = Story::begin(&engine, "observed");
    let before = identity(&engine);
    observed(&story, &before);
    calls_were_proper(&story);
}

#[test]
fn a_project_of_six_lives_through_everything() {
    let Some(engine) = Engine::find() else { return };
    let mut story = Story::begin(&engine, "story");
    story.adopted();
    handed_over(&story);
    woken_by_a_browser(&story);
    woken_by_programs(&story);
    stopped_by_hand(&story);
    forerun_killed(&mut story);
    daemon_killed(&story);
    brought_down(&story);
    calls_were_proper(&story);
}

#[test]
fn a_service_is_scaled_beyond_its_own_container_and_back() {
    let Some(engine) = Engine::find() else { return };
    let story = Story::begin(&engine, "scaled");
    story.adopted();
    story.tell(&["act", &service("orders")]);
    story.tell(&["scale", &service("orders"), "3"]);
    story.until("orders", "three of it", |s| s["instances"]["ready"] == 3);
    let made: Vec<String> = engine.containers().into_iter().map(|(name, _)| name).collect();
    let made: Vec<&String> = made.iter().filter(|name| !name.starts_with("shop-")).collect();
    assert_eq!(made.len(), 2, "{made:?}");
    let original = engine.inspect(&container("orders"));
    for name in &made {
        let clone = engine.inspect(name);
        for part in ["/Config/Image", "/Config/Cmd", "/Config/ExposedPorts"] {
            assert_eq!(clone.pointer(part), original.pointer(part), "{name}: {part}");
        }
        assert!(clone.pointer("/NetworkSettings/Networks/shop_default").is_some(), "{name}: {clone}");
        assert_eq!(clone["Config"]["Labels"]["forerun.made"], "true", "{name}");
    }
    let (code, out, err) =
        forerun(&["scale", &service("orders"), "1", "--for", "1h", "--api", &story.live().api.to_string()]);
    assert_eq!(code, Some(0), "{out}{err}");
    story.until("orders", "one of it", |s| s["instances"]["ready"] == 1);
    eventually("what was made is removed", PATIENCE, || engine.containers().len() == names().len());
    story.nothing_doubled();
    assert!(engine.is_running(&container("orders")), "the clone was kept and the owner's own was stopped");
    let installation = std::fs::read_to_string(story.world.path("state/backends/installation")).unwrap();
    let calls = story.proxy.calls();
    let removed: BTreeSet<&str> =
        calls.iter().filter(|c| c.method == "DELETE").map(|c| c.path.as_str()).collect();
    assert_eq!(removed.len(), 2, "{removed:?}");
    proxy::were_proper(&calls, installation.trim());
}
