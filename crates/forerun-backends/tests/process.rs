//! The process backend against the contract that every backend keeps.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod contract;

use contract::{Bench, World};
use forerun_backends::process::cgroup_report;
use forerun_backends::{Backend, ProcessBackend, ProcessSettings, Sink, StartOrder, StopOrder};
use forerun_types::{
    Event, Generation, InstanceId, Launch, ServiceId, ServiceSpec, Span, Specialise, Variant,
};
use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

const FIXTURE: &str = env!("CARGO_BIN_EXE_forerun-fixture");

struct Processes {
    launcher: bool,
    groups: bool,
}

const LAUNCHED: Processes = Processes { launcher: true, groups: true };

impl World for Processes {
    fn backend(&self, sink: Sink, limit_memory: bool) -> Box<dyn Backend> {
        let settings = ProcessSettings {
            reaper_command: Some(vec![FIXTURE.to_owned(), "__reaper".to_owned()]),
            launcher_command: self.launcher.then(|| vec![FIXTURE.to_owned(), "__launch".to_owned()]),
            limit_memory,
            limit_cpu: true,
            control_groups: self.groups,
            ..ProcessSettings::default()
        };
        Box::new(ProcessBackend::new(settings, sink).unwrap())
    }

    fn spec(&self, flags: &[&str]) -> ServiceSpec {
        spec(&[&[FIXTURE], flags].concat(), None)
    }

    fn not_runnable(&self) -> Vec<(ServiceSpec, &'static str)> {
        [
            (&["/nowhere/at/all"][..], "the command `/nowhere/at/all` does not exist"),
            (&["no-such-command-anywhere"], "the command `no-such-command-anywhere` is not in PATH"),
            (&["/etc/passwd"], "`/etc/passwd` is not executable: chmod +x it"),
            (&["/etc"], "the command `/etc` is a folder"),
            (&[], "the command is empty"),
            (&["a\0b"], "nul byte"),
        ]
        .map(|(command, mention)| (spec(command, None), mention))
        .into()
    }

    fn without_folder(&self) -> ServiceSpec {
        spec(&[FIXTURE], Some("/nowhere/at/all"))
    }

    fn processes(&self, tag: &str) -> Vec<u32> {
        living(tag)
    }
}

fn spec(command: &[&str], folder: Option<&str>) -> ServiceSpec {
    ServiceSpec {
        backend: "process".to_owned(),
        launch: Launch::Process {
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: BTreeMap::new(),
            folder: folder.map(str::to_owned),
        },
        start_timeout: Span::from_secs(20),
        ..ServiceSpec::named(ServiceId(1), "fixture")
    }
}

/// Processes whose arguments hold the tag and that are not dead.
fn living(tag: &str) -> Vec<u32> {
    let pids =
        fs::read_dir("/proc").unwrap().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| {
        // A dead process has no arguments any more.
        let args = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        args.split(|byte| *byte == 0).any(|arg| arg == tag.as_bytes())
    })
    .collect()
}

mod launched {
    crate::contract::contract!(crate::LAUNCHED);
}

mod forked {
    crate::contract::contract!(crate::Processes { launcher: false, groups: true });
}

mod without_control_groups {
    crate::contract::contract!(crate::Processes { launcher: true, groups: false });
}

/// A shell script that ends by becoming the fixture, or not.
fn script(bench: &Bench<'_>, text: &str) -> ServiceSpec {
    spec(&["sh", "-c", text, "sh", FIXTURE, "--tag", &bench.tag], None)
}

fn scratch(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("forerun-{name}-{}", std::process::id()))
}

#[test]
fn a_port_lost_to_somebody_else_is_replaced() {
    let bench = Bench::new(&LAUNCHED, "lost-port");
    let mark = scratch("lost-port");
    let once = format!(
        "if mkdir {}; then echo 'listen: Address already in use' >&2; exit 1; fi; exec \"$@\"",
        mark.display()
    );
    let instance = bench.start(script(&bench, &once));
    assert!(matches!(bench.next(instance), Event::Ready { .. }));
    assert!(mark.is_dir(), "it was not tried twice");
    fs::remove_dir(mark).unwrap();
}

#[test]
fn what_a_shell_started_has_its_grace_too() {
    let bench = Bench::new(&LAUNCHED, "grace");
    let mark = scratch("grace");
    // The shell ends by TERM at once; its child has something to finish.
    let text = format!(
        "(trap 'sleep 0.5; rmdir {0}; exit' TERM; mkdir {0}; while :; do sleep 0.05; done) & \
         until test -d {0}; do sleep 0.01; done; exec \"$@\"",
        mark.display()
    );
    let instance = bench.start(script(&bench, &text));
    assert!(matches!(bench.next(instance), Event::Ready { .. }));
    bench.stop(instance, Span::from_secs(30));
    bench.stopped(instance);
    assert!(!mark.exists(), "it was killed within its grace");
}

#[test]
fn the_instance_is_known_by_its_environment() {
    let bench = Bench::new(&LAUNCHED, "env");
    let why = bench.fails(script(&bench, "echo $FORERUN_INSTANCE on $PORT; exit 1"), &["last lines: i1 on "]);
    assert!(why.rsplit(' ').next().unwrap().parse::<u16>().is_ok(), "{why}");
}

#[test]
fn settings_that_cannot_work_are_named() {
    let new = |settings| ProcessBackend::new(settings, std::sync::Arc::new(|_| {})).map(drop).unwrap_err();
    let check = |settings, error: &str| {
        let found = new(settings).to_string();
        assert!(found.starts_with(error), "{found}");
    };
    let settings = ProcessSettings::default();
    let ports = Some((80, 90));
    check(ProcessSettings { ports, ..settings.clone() }, "ports 80-90 are not a range of ports above 1023");
    let reaper_command = Some(vec!["/nowhere/at/all".to_owned(), "__reaper".to_owned()]);
    check(
        ProcessSettings { reaper_command, ..settings.clone() },
        "cannot start the reaper `/nowhere/at/all __reaper`: No such file",
    );
    let reaper_command = Some(Vec::new());
    check(ProcessSettings { reaper_command, ..settings.clone() }, "cannot start the reaper ``");
    let state_folder = Some("/proc/nowhere".into());
    check(
        ProcessSettings { state_folder, ..settings },
        "cannot create the folder of `/proc/nowhere/processes`",
    );
}

#[test]
fn more_than_the_most_is_refused() {
    let (sender, events) = std::sync::mpsc::channel();
    let settings = ProcessSettings { instances_max: 0, ..ProcessSettings::default() };
    let backend =
        ProcessBackend::new(settings, std::sync::Arc::new(move |event| drop(sender.send(event)))).unwrap();
    let (instance, generation) = (InstanceId(1), Generation(1));
    let spec = std::sync::Arc::new(spec(&[FIXTURE], None));
    backend.start(StartOrder { instance, generation, spec }).unwrap();
    match events.recv().unwrap() {
        Event::StartFailed { why, .. } => assert!(why.contains("as many instances exist"), "{why}"),
        other => panic!("{other:?} instead of StartFailed"),
    }
}

#[test]
fn instances_take_turns_at_a_port_of_their_own() {
    let bench = Bench::new(&LAUNCHED, "turns");
    // A port that nobody has: bound once, and free again.
    let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = holder.local_addr().unwrap().port();
    let fixed = || ServiceSpec { port: Some(port), ..bench.spec(&[]) };
    bench.fails(fixed(), &[&format!("its port {port} is taken by another program")]);
    drop(holder);
    let first = bench.start(fixed());
    assert!(matches!(bench.next(first), Event::Ready { address, .. } if address.port() == port));
    let [second, third] = [bench.start(fixed()), bench.start(fixed())];
    let late = bench.start(ServiceSpec { start_timeout: Span::from_millis(300), ..fixed() });
    match bench.next(late) {
        Event::StartFailed { why, .. } => assert!(why.contains("another instance had its port"), "{why}"),
        other => panic!("{other:?} instead of StartFailed"),
    }
    bench.stop(second, Span::from_secs(10));
    bench.stopped(second);
    bench.has_processes(1);
    bench.stop(first, Span::from_secs(10));
    bench.stopped(first);
    assert!(matches!(bench.next(third), Event::Ready { address, .. } if address.port() == port));
}

/// Whether this machine lets us make control groups; says loudly if not.
fn has_groups() -> bool {
    let report = cgroup_report();
    if let Err(why) = &report.membership {
        eprintln!("SKIPPED: {why}");
    }
    report.membership.is_ok()
}

#[test]
fn a_daemon_ends_with_its_instance() {
    if !has_groups() {
        return;
    }
    for launcher in [true, false] {
        let world = Processes { launcher, groups: true };
        let bench = Bench::new(&world, "daemon");
        // By being asked, although it has left its session.
        let (instance, _) = bench.ready(&["--daemon"]);
        bench.has_processes(2);
        let began = Instant::now();
        bench.stop(instance, Span::from_secs(60));
        bench.stopped(instance);
        bench.nothing_left();
        assert!(began.elapsed() < Duration::from_secs(20), "{:?}", began.elapsed());
        // By force.
        let (instance, _) = bench.ready(&["--daemon", "--ignore-term"]);
        bench.stop(instance, Span::from_millis(300));
        bench.stopped(instance);
        bench.nothing_left();
        // And with the death of what started it.
        let (instance, address) = bench.ready(&["--daemon", "--ignore-term"]);
        contract::get(address, "/exit?code=5");
        bench.dies(instance, &["exit code 5"]);
        // It is frozen with the rest.
        let (instance, _) = bench.ready(&["--daemon"]);
        bench.backend().pause(instance, Generation(1)).unwrap();
        assert!(matches!(bench.next(instance), Event::Paused { .. }));
        bench.stop(instance, Span::from_secs(60));
        bench.stopped(instance);
        bench.nothing_left();
    }
}

#[test]
fn cpu_is_limited() {
    if cgroup_report().cpu.is_err() {
        eprintln!("SKIPPED: {:?}", cgroup_report().cpu);
        return;
    }
    let bench = Bench::new(&LAUNCHED, "cpu-limit");
    let mut spec = bench.spec(&["--spin"]);
    spec.resources.cpu_milli = 200;
    let instance = bench.start(spec);
    assert!(matches!(bench.next(instance), Event::Ready { .. }));
    let (_, before) = bench.usage(instance);
    let began = Instant::now();
    let (mut now, mut seen) = (before, 0);
    while seen < 3 {
        (_, now) = bench.usage(instance);
        seen += 1;
    }
    let share = (now.0 - before.0) as f64 / 1e6 / began.elapsed().as_secs_f64();
    assert!((0.05..0.35).contains(&share), "{share} of a core");
}

#[test]
fn a_worker_killed_for_memory_ends_its_instance() {
    if cgroup_report().memory.is_err() {
        eprintln!("SKIPPED: {:?}", cgroup_report().memory);
        return;
    }
    let bench = Bench::with(&LAUNCHED, "worker-memory", true);
    // The service stays; the worker beside it takes too much.
    let mut spec = script(&bench, "(sleep 0.5; x=0123456789; while :; do x=$x$x; done) & exec \"$@\"");
    spec.resources.memory_bytes = 100_000_000;
    let instance = bench.start(spec);
    assert!(matches!(bench.next(instance), Event::Ready { .. }));
    bench.dies(instance, &["used more memory than its limit (", " of 100.0 MB)"]);
}

#[test]
fn files_are_a_keys_and_go_with_it() {
    let state = scratch("key-files");
    let (sender, events) = std::sync::mpsc::channel();
    let settings = ProcessSettings { state_folder: Some(state.clone()), ..ProcessSettings::default() };
    let sink: Sink = std::sync::Arc::new(move |event| drop(sender.send(event)));
    let backend = ProcessBackend::new(settings, sink).unwrap();
    let line = "cat \"$FORERUN_FILES/conf/jo.txt\"; ls -la {files}/conf; sleep 600";
    let specialise = Specialise {
        files: BTreeMap::from([("conf/{key}.txt".to_owned(), "hello {key} on {port}".to_owned())]),
        ..Specialise::default()
    };
    let of_key = |key: &str, specialise: &Specialise| {
        std::sync::Arc::new(ServiceSpec {
            variant: Some(Variant { of: ServiceId(1), key: key.to_owned() }),
            specialise: Some(specialise.clone()),
            ready: forerun_types::Readiness::Log { text: "jo.txt".to_owned() },
            start_timeout: Span::from_secs(5),
            ..spec(&["sh", "-c", line], None)
        })
    };
    let next = || loop {
        match events.recv_timeout(Duration::from_secs(30)).unwrap() {
            Event::InstanceUsage { .. } => {}
            event => return event,
        }
    };
    let (instance, generation) = (InstanceId(4), Generation(1));
    backend.start(StartOrder { instance, generation, spec: of_key("jo", &specialise) }).unwrap();
    let Event::Ready { address, .. } = next() else { panic!("not ready") };
    let file = state.join("files/i4/conf/jo.txt");
    assert_eq!(fs::read_to_string(&file).unwrap(), format!("hello jo on {}", address.port()));
    backend.stop(StopOrder { instance, generation, grace: Span::from_secs(10) }).unwrap();
    assert!(matches!(next(), Event::Stopped { .. }));
    // The spawner removes it after what is told.
    let until = Instant::now() + Duration::from_secs(10);
    while state.join("files/i4").exists() && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(2));
    }
    assert!(!state.join("files/i4").exists());
    // Neither a key nor the configuration leads out of the folder.
    let outside = |path: &str| Specialise {
        files: BTreeMap::from([(path.to_owned(), String::new())]),
        ..Specialise::default()
    };
    for (id, key, specialise, mention) in [
        (5, "../../x", specialise.clone(), "would lie in another place"),
        (6, "jo", outside("/etc/forerun-test"), "outside of the instance's folder"),
        (7, "jo", outside("../i4/x"), "outside of the instance's folder"),
    ] {
        let spec = of_key(key, &specialise);
        backend.start(StartOrder { instance: InstanceId(id), generation, spec }).unwrap();
        match next() {
            Event::StartFailed { why, .. } => assert!(why.contains(mention), "{why}"),
            other => panic!("{other:?} instead of StartFailed"),
        }
    }
    drop(backend);
    assert!(!state.join("files").exists());
    fs::remove_dir_all(state).unwrap();
}

#[test]
fn it_is_left_alone_until_it_has_settled() {
    let bench = Bench::new(&LAUNCHED, "settle");
    let began = Instant::now();
    let instance = bench.start(ServiceSpec { settle: Span::from_millis(700), ..bench.spec(&[]) });
    let Event::Ready { took, .. } = bench.next(instance) else { panic!("not ready") };
    assert!(took >= Span::from_millis(700) && took <= Span::from(began.elapsed()), "{took}");
    // What dies meanwhile has failed to start, and what is stopped meanwhile stops.
    let settle = Span::from_secs(60);
    let spec = ServiceSpec { settle, ..bench.spec(&["--exit", "3", "--after", "300"]) };
    let dying = bench.start(spec);
    match bench.next(dying) {
        Event::StartFailed { why, .. } => {
            assert!(why.contains("ended before it was ready: exit code 3"), "{why}")
        }
        other => panic!("{other:?} instead of StartFailed"),
    }
    let stopped = bench.start(ServiceSpec { settle, ..bench.spec(&[]) });
    std::thread::sleep(Duration::from_millis(300));
    bench.stop(stopped, Span::from_secs(10));
    bench.stopped(stopped);
}
