//! What is done to an instance that runs, or asked of it: paused, given to a key, asked whether it is busy.

use super::bench::{Bench, PATIENCE, World, get};
use forerun_backends::{OrderError, StartOrder};
use forerun_types::{
    Busy, Event, Generation, Hook, InstanceId, ServiceId, ServiceSpec, Span, Specialise, Variant,
};
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

const G: Generation = Generation(1);

/// Whether it answers within a time that a thing that runs never needs.
fn answers(address: SocketAddr) -> bool {
    let wait = Duration::from_millis(500);
    let Ok(mut stream) = TcpStream::connect_timeout(&address, wait) else { return false };
    stream.set_read_timeout(Some(wait)).unwrap();
    stream.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    stream.read(&mut [0; 64]).is_ok_and(|len| len > 0)
}

pub(crate) fn pause_and_resume(world: &dyn World) {
    let bench = Bench::new(world, "pause");
    if !bench.backend().capabilities().pause {
        return;
    }
    let (instance, address) = bench.ready(&["--grandchild-group"]);
    let pause = || bench.backend().pause(instance, G).unwrap();
    let resume = || bench.backend().resume(instance, G).unwrap();
    let resumed = || match bench.next(instance) {
        Event::Resumed { took, .. } => assert!(took < Span::from_secs(5), "{took}"),
        other => panic!("{other:?} instead of Resumed"),
    };
    for _ in 0..3 {
        pause();
        assert!(matches!(bench.next(instance), Event::Paused { .. }));
        assert!(!answers(address), "it answers although it is paused");
        assert_eq!(bench.backend().running(), [instance]);
        bench.has_processes(2);
        resume();
        resumed();
        assert!(get(address, "/").contains(&bench.tag));
    }
    // Again what it is already changes nothing, and is answered.
    resume();
    resumed();
    pause();
    pause();
    // The second may come in the middle of the first, and then is not carried out.
    for _ in 0..2 {
        let event = bench.next(instance);
        assert!(matches!(event, Event::Paused { .. } | Event::NotChanged { .. }), "{event:?}");
    }
    assert!(!answers(address));
    // A paused one stops like any other, with its grace.
    let began = Instant::now();
    bench.stop(instance, Span::from_secs(30));
    bench.stopped(instance);
    bench.nothing_left();
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

pub(crate) fn a_paused_one_is_forced(world: &dyn World) {
    let bench = Bench::new(world, "pause-forced");
    if !bench.backend().capabilities().pause {
        return;
    }
    for grace in [Span::from_millis(500), Span::ZERO] {
        let (instance, _) = bench.ready(&["--ignore-term", "--grandchild"]);
        bench.backend().pause(instance, G).unwrap();
        assert!(matches!(bench.next(instance), Event::Paused { .. }));
        bench.stop(instance, grace);
        bench.stopped(instance);
        bench.nothing_left();
    }
}

pub(crate) fn only_what_runs_is_changed(world: &dyn World) {
    let bench = Bench::new(world, "change-nothing");
    let can = bench.backend().capabilities();
    let not_changed = |instance| match bench.next(instance) {
        Event::NotChanged { why, .. } => assert!(!why.is_empty() && !why.contains('\n'), "{why}"),
        other => panic!("{other:?} instead of NotChanged"),
    };
    let starting = bench.start(bench.spec(&["--start-delay", "400"]));
    for instance in [InstanceId(77), starting] {
        if can.pause {
            bench.backend().pause(instance, G).unwrap();
            not_changed(instance);
            bench.backend().resume(instance, G).unwrap();
            not_changed(instance);
        }
        if can.specialise {
            let spec = Arc::new(variant(bench.spec(&[]), "jo", Specialise::default()));
            bench.backend().specialise(StartOrder { instance, generation: G, spec }).unwrap();
            not_changed(instance);
        }
    }
    assert!(matches!(bench.next(starting), Event::Ready { .. }));
    if can.pause {
        bench
            .backend()
            .stop(forerun_backends::StopOrder {
                instance: starting,
                generation: Generation(3),
                grace: Span::from_secs(9),
            })
            .unwrap();
        bench.stopped(starting);
        let (instance, _) = bench.ready(&[]);
        bench
            .backend()
            .start(StartOrder { instance, generation: Generation(5), spec: Arc::new(bench.spec(&[])) })
            .unwrap();
        let stale = OrderError::Stale { instance, ordered: Generation(4), obeyed: Generation(5) };
        assert_eq!(bench.backend().pause(instance, Generation(4)), Err(stale));
    }
}

/// The service for a key.
fn variant(spec: ServiceSpec, key: &str, specialise: Specialise) -> ServiceSpec {
    let variant = Some(Variant { of: spec.id, key: key.to_owned() });
    ServiceSpec { id: ServiceId(50), variant, specialise: Some(specialise), ..spec }
}

fn strings(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn body(answer: &str) -> &str {
    answer.split_once("\r\n\r\n").map_or("", |(_, body)| body)
}

pub(crate) fn a_start_for_a_key(world: &dyn World) {
    let bench = Bench::new(world, "key");
    if !bench.backend().capabilities().specialise {
        return;
    }
    let specialise = Specialise {
        env: BTreeMap::from([("DATA_SET".to_owned(), "set of {key}".to_owned())]),
        args: strings(&["--log", "for {key}"]),
        preload: strings(&["/warm/{key}?x=1", "/status?code=503"]),
        ..Specialise::default()
    };
    let mut spec = variant(bench.spec(&["--ready-after", "200"]), "jo é/..", specialise);
    spec.ready = forerun_types::Readiness::Http { path: "/".to_owned() };
    let instance = bench.start(spec.clone());
    let Event::Ready { address, .. } = bench.next(instance) else { panic!("not ready") };
    assert_eq!(body(&get(address, "/env?name=FORERUN_KEY")), "jo é/..");
    assert_eq!(body(&get(address, "/env?name=DATA_SET")), "set of jo é/..");
    // What it was to fetch was fetched before it was said to be ready, and what failed of it is no reason against it.
    let seen = get(address, "/seen");
    assert!(seen.contains("GET /warm/jo%20%C3%A9%2F%2E%2E?x=1 jo é/..\n"), "{seen}");
    assert!(seen.contains("GET /status?code=503 jo é/..\n"), "{seen}");
    // A key that could leave its place starts nothing.
    for (key, args, mention) in [
        ("jo\nX: y", &["--log", "{key}"][..], "control character"),
        ("jo\0", &[], "control character"),
        ("", &[], "the key is empty"),
        ("--port", &["{key}"], "be read as an option"),
    ] {
        let specialise = Specialise { args: strings(args), ..Specialise::default() };
        let mut spec = variant(bench.spec(&[]), key, specialise);
        spec.start_timeout = Span::from_secs(5);
        let other = Bench::new(world, "bad-key");
        other.fails(spec, &[mention]);
    }
}

fn specialise(bench: &Bench<'_>, instance: InstanceId, spec: ServiceSpec) -> Event {
    let spec = Arc::new(spec);
    bench.backend().specialise(StartOrder { instance, generation: G, spec }).unwrap();
    bench.next(instance)
}

pub(crate) fn a_generic_one_becomes_a_keys(world: &dyn World) {
    let bench = Bench::new(world, "become");
    if !bench.backend().capabilities().specialise {
        return;
    }
    let hooked = |hook: Option<Hook>, preload: &[&str]| {
        let specialise = Specialise { hook, preload: strings(preload), ..Specialise::default() };
        variant(bench.spec(&[]), "jo", specialise)
    };
    let http = |path: &str| Some(Hook::Http { path: path.to_owned() });
    let command = |line: &str| Some(Hook::Command(strings(&["sh", "-c", line])));
    let (instance, address) = bench.ready(&[]);
    match specialise(&bench, instance, hooked(http("/become"), &["/warm/{key}"])) {
        Event::Specialised { took, .. } => assert!(took > Span::ZERO && took < Span::from_secs(10), "{took}"),
        other => panic!("{other:?} instead of Specialised"),
    }
    let seen = get(address, "/seen");
    let (hook, warm) = (seen.find("POST /become jo jo\n"), seen.find("GET /warm/jo jo\n"));
    assert!(hook.is_some() && hook < warm, "{seen}");
    // For good: another key is refused.
    assert!(matches!(specialise(&bench, instance, hooked(http("/become"), &[])), Event::NotChanged { .. }));
    let (instance, _) = bench.ready(&[]);
    let beside = command("test \"$FORERUN_KEY\" = jo && test -n \"$PORT\"");
    match specialise(&bench, instance, hooked(beside, &[])) {
        Event::Specialised { .. } => {}
        other => panic!("{other:?} instead of Specialised"),
    }
    for (hook, mention) in [
        (http("/status?code=409"), "POST /status?code=409 answered 409"),
        (command("echo no such data >&2; exit 3"), "no such data"),
        (None, "no hook"),
    ] {
        let (instance, address) = bench.ready(&[]);
        match specialise(&bench, instance, hooked(hook, &[])) {
            Event::NotChanged { why, .. } => {
                assert!(why.contains(mention) && !why.contains('\n'), "`{mention}` is not in `{why}`");
            }
            other => panic!("{other:?} instead of NotChanged"),
        }
        assert!(get(address, "/").contains(&bench.tag), "it is what it was");
    }
}

/// The answer to the question, or `None` where the backend cannot ask so.
fn ask(bench: &Bench<'_>, instance: InstanceId, busy: Busy) -> Option<(bool, String)> {
    let spec = Arc::new(ServiceSpec { busy: Some(busy), ..bench.spec(&[]) });
    match bench.backend().ask_busy(StartOrder { instance, generation: G, spec }) {
        Err(OrderError::Unsupported { .. }) => return None,
        result => result.unwrap(),
    }
    match bench.next(instance) {
        Event::BusyAnswer { busy, why, .. } => {
            assert!(!why.is_empty() && !why.contains('\n'), "{why}");
            Some((busy, why))
        }
        other => panic!("{other:?} instead of BusyAnswer"),
    }
}

pub(crate) fn busy_is_asked(world: &dyn World) {
    let bench = Bench::new(world, "busy");
    let (instance, _) = bench.ready(&[]);
    let http = |path: &str| Busy::Http { path: path.to_owned(), pointer: None };
    let command = |line: &str| Busy::Command(strings(&["sh", "-c", line]));
    let began = Instant::now();
    for (question, expected) in [
        (http("/"), true),
        (http("/status?code=204"), false),
        (http("/status?code=404"), false),
        // It never answers in time, and no answer is busy.
        (http("/sleep?ms=20000"), true),
        (command("exit 0"), true),
        (command("exit 1"), false),
        (Busy::Command(strings(&["/nowhere/at/all"])), true),
    ] {
        let Some((busy, why)) = ask(&bench, instance, question.clone()) else { continue };
        assert_eq!(busy, expected, "{question:?}: {why}");
    }
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    let Some((busy, _)) = ask(&bench, InstanceId(99), http("/")) else { return };
    assert!(!busy, "nothing is there to be busy");
}

pub(crate) fn busy_by_cpu(world: &dyn World) {
    let bench = Bench::new(world, "busy-cpu");
    let (idle, _) = bench.ready(&[]);
    let (spinning, _) = bench.ready(&["--spin"]);
    let floor = || Busy::Cpu { milli: 200 };
    let until = Instant::now() + PATIENCE;
    // Until it has been measured it counts as busy.
    let free = loop {
        let Some((busy, why)) = ask(&bench, idle, floor()) else { return };
        if !busy || Instant::now() > until {
            break (busy, why);
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(!free.0, "{free:?}");
    let (busy, why) = ask(&bench, spinning, floor()).unwrap();
    assert!(busy, "{why}");
}
