//! From the order to start to `Ready` or `StartFailed`.

use super::bench::{Bench, PATIENCE, World, get};
use forerun_types::{Container, Event, Launch, Lines, Readiness, ServiceSpec, Span};
use std::collections::HashSet;
use std::time::{Duration, Instant};

fn http(path: &str) -> Readiness {
    Readiness::Http { path: path.to_owned() }
}

pub(crate) fn serves(world: &dyn World) {
    let bench = Bench::new(world, "serves");
    let (instance, address) = bench.ready(&[]);
    let answer = get(address, "/");
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&bench.tag), "{answer}");
    assert_eq!(bench.backend().running(), [instance]);
    bench.stop(instance, Span::from_secs(10));
    bench.stopped(instance);
    bench.nothing_left();
    assert_eq!(bench.backend().running(), []);
}

pub(crate) fn says_how_it_started(world: &dyn World) {
    let bench = Bench::new(world, "took");
    let began = Instant::now();
    let instance = bench.start(bench.spec(&["--start-delay", "300"]));
    let Event::Ready { took, .. } = bench.next(instance) else { panic!("not ready") };
    let seen = Span::from(began.elapsed());
    assert!(took >= Span::from_millis(300) && took <= seen, "{took} of {seen}");
}

pub(crate) fn tells_usage(world: &dyn World) {
    let bench = Bench::new(world, "usage");
    if !bench.backend().capabilities().usage {
        return;
    }
    let (plain, _) = bench.ready(&[]);
    let (eater, _) = bench.ready(&["--eat", "200000000"]);
    // The first count may come while it still eats.
    let until = Instant::now() + PATIENCE;
    let mut memory = 0;
    while memory < 200_000_000 && Instant::now() < until {
        (memory, _) = bench.usage(eater);
    }
    assert!((200_000_000..400_000_000).contains(&memory), "{memory}");
    let (memory, cpu) = bench.usage(plain);
    assert!((1..100_000_000).contains(&memory), "{memory}");
    assert!(cpu < Span::from_secs(5), "{cpu}");
}

pub(crate) fn gets_port_and_env(world: &dyn World) {
    let bench = Bench::new(world, "port");
    // By the flag, where the fixture would otherwise take PORT.
    let mut spec = bench.spec(&["--port", "{port}", "--log", "listens on {port}"]);
    if world.sees_output() {
        spec.ready = Readiness::Log { text: "listens on ".to_owned() };
    }
    let instance = bench.start(spec);
    let Event::Ready { address, .. } = bench.next(instance) else { panic!("not ready") };
    assert!(get(address, "/").contains(&bench.tag));
    let (_, other) = bench.ready(&[]);
    assert_ne!(address, other);
    let bench = Bench::new(world, "env");
    let mut spec = bench.spec(&[]);
    if let Launch::Process { env, .. }
    | Launch::Container(Container { env, .. })
    | Launch::Command(Lines { env, .. }) = &mut spec.launch
    {
        env.insert("PORT".to_owned(), "not a port {port}".to_owned());
        bench.fails(spec, &["no --port and no PORT", "exit code 2"]);
    }
}

pub(crate) fn waits_for_http(world: &dyn World) {
    let bench = Bench::new(world, "http");
    let began = Instant::now();
    let spec = ServiceSpec { ready: http("/health"), ..bench.spec(&["--ready-after", "400"]) };
    let instance = bench.start(spec);
    let Event::Ready { address, .. } = bench.next(instance) else { panic!("not ready") };
    assert!(began.elapsed() >= Duration::from_millis(400), "{:?}", began.elapsed());
    assert!(get(address, "/").starts_with("HTTP/1.1 200"));
    let spec = ServiceSpec { ready: http("/status?code=302"), ..bench.spec(&[]) };
    assert!(matches!(bench.next(bench.start(spec)), Event::Ready { .. }));
    let spec = ServiceSpec { ready: http("/sleep?ms=300"), ..bench.spec(&[]) };
    assert!(matches!(bench.next(bench.start(spec)), Event::Ready { .. }));
}

pub(crate) fn waits_for_a_line(world: &dyn World) {
    if !world.sees_output() {
        return;
    }
    let bench = Bench::new(world, "line");
    let spec = bench.spec(&["--say", "starting up", "--start-delay", "200", "--log", "now serving"]);
    let began = Instant::now();
    let ready = Readiness::Log { text: "now serving".to_owned() };
    let instance = bench.start(ServiceSpec { ready, ..spec });
    let Event::Ready { address, .. } = bench.next(instance) else { panic!("not ready") };
    assert!(began.elapsed() >= Duration::from_millis(200));
    assert!(get(address, "/").contains(&bench.tag));
    let bench = Bench::new(world, "other-line");
    let spec = bench.spec(&["--log", "something else"]);
    let ready = Readiness::Log { text: "now serving".to_owned() };
    let start_timeout = world.short();
    let late = format!("not ready after {start_timeout}");
    bench.fails(ServiceSpec { ready, start_timeout, ..spec }, &[&late, "something else"]);
}

pub(crate) fn never_ready(world: &dyn World) {
    let bench = Bench::new(world, "never");
    let start_timeout = world.short();
    let late = format!("not ready after {start_timeout}");
    let began = Instant::now();
    let spec = bench.spec(&["--no-listen", "--say", "thinking it over", "--grandchild", "--ignore-term"]);
    bench.fails(ServiceSpec { start_timeout, ..spec }, &[&late, "last lines: thinking it over"]);
    let spec = ServiceSpec { ready: http("/status?code=500"), start_timeout, ..bench.spec(&[]) };
    bench.fails(spec, &[&late, "it printed nothing"]);
    let most = 2 * Duration::from(start_timeout) + Duration::from_secs(9);
    assert!(began.elapsed() < most, "{:?}", began.elapsed());
    assert_eq!(bench.backend().running(), []);
}

pub(crate) fn crash_on_start(world: &dyn World) {
    let bench = Bench::new(world, "crash");
    let spec = bench.spec(&["--say", "cannot read its settings", "--exit", "3", "--grandchild"]);
    bench.fails(spec, &["ended before it was ready: exit code 3", "last lines: cannot read its settings"]);
    let spec = bench.spec(&["--no-listen", "--exit", "0", "--after", "100"]);
    bench.fails(spec, &["exit code 0; it printed nothing"]);
}

pub(crate) fn killed_on_start(world: &dyn World) {
    let bench = Bench::new(world, "signal");
    bench.fails(bench.spec(&["--signal", "11", "--say", "oops"]), &["killed by SIGSEGV; last lines: oops"]);
    bench.fails(bench.spec(&["--signal", "9"]), &["killed by SIGKILL"]);
}

pub(crate) fn command_not_found(world: &dyn World) {
    let bench = Bench::new(world, "not-found");
    for (spec, mention) in world.not_runnable() {
        bench.fails(spec, &[mention]);
    }
}

pub(crate) fn folder_missing(world: &dyn World) {
    if !world.has_folders() {
        return;
    }
    let bench = Bench::new(world, "folder");
    bench.fails(world.without_folder(), &["the working folder `/nowhere/at/all` does not exist"]);
}

pub(crate) fn nothing_to_run(world: &dyn World) {
    let bench = Bench::new(world, "nothing");
    bench.fails(ServiceSpec { launch: Launch::Modelled, ..bench.spec(&[]) }, &["this service has none"]);
    for path in ["health", "/a b", "/a\r\nX: y", ""] {
        let spec = ServiceSpec { ready: http(path), ..bench.spec(&[]) };
        bench.fails(spec, &["the ready path", "must start with /"]);
    }
}

pub(crate) fn taken_port(world: &dyn World) {
    if !world.shares_ports() {
        return;
    }
    let bench = Bench::new(world, "taken");
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port().to_string();
    bench.fails(bench.spec(&["--port", &port]), &["its port was taken", "cannot listen on", "exit code 2"]);
}

pub(crate) fn chatty(world: &dyn World) {
    let bench = Bench::new(world, "chatty");
    let (instance, address) = bench.ready(&["--spam", "50000000"]);
    assert!(get(address, "/").contains(&bench.tag));
    get(address, "/exit?code=4");
    bench.dies(instance, &["exit code 4", "spam spam"]);
}

pub(crate) fn a_hundred_at_once(world: &dyn World) {
    let bench = Bench::new(world, "hundred");
    let within = world.many_within();
    let spec = ServiceSpec { start_timeout: within.into(), ..bench.spec(&["--start-delay", "100"]) };
    let began = Instant::now();
    let instances: Vec<_> = (0..world.many()).map(|_| bench.start(spec.clone())).collect();
    assert_eq!(bench.backend().running(), instances);
    let mut addresses = HashSet::new();
    for instance in &instances {
        match bench.next_within(*instance, within) {
            Event::Ready { address, .. } => assert!(addresses.insert(address), "{address} twice"),
            other => panic!("{other:?} instead of Ready"),
        }
    }
    println!("{} were ready after {:?}", instances.len(), began.elapsed());
    bench.has_processes(instances.len());
    bench.backend().shutdown(Span::from_secs(10));
    for instance in &instances {
        let event = bench.next_within(*instance, within);
        assert!(matches!(event, Event::Stopped { .. }), "{event:?} instead of Stopped");
    }
    println!("and ended after {:?}", began.elapsed());
    bench.nothing_left();
}
