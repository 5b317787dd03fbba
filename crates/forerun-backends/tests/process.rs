//! The process backend against the contract that every backend keeps.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

mod contract;

use contract::{Bench, World};
use forerun_backends::{Backend, ProcessBackend, ProcessSettings, Sink};
use forerun_types::{Event, Launch, ServiceId, ServiceSpec, Span};
use std::collections::BTreeMap;
use std::fs;

const FIXTURE: &str = env!("CARGO_BIN_EXE_forerun-fixture");

struct Processes {
    launcher: bool,
}

impl World for Processes {
    fn backend(&self, sink: Sink, limit_memory: bool) -> Box<dyn Backend> {
        let settings = ProcessSettings {
            reaper_command: Some(vec![FIXTURE.to_owned(), "__reaper".to_owned()]),
            launcher_command: self.launcher.then(|| vec![FIXTURE.to_owned(), "__launch".to_owned()]),
            limit_memory,
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
    crate::contract::contract!(crate::Processes { launcher: true });
}

mod forked {
    crate::contract::contract!(crate::Processes { launcher: false });
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
    let bench = Bench::new(&Processes { launcher: true }, "lost-port");
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
    let bench = Bench::new(&Processes { launcher: true }, "grace");
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
    let bench = Bench::new(&Processes { launcher: true }, "env");
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
    let (instance, generation) = (forerun_types::InstanceId(1), forerun_types::Generation(1));
    let spec = std::sync::Arc::new(spec(&[FIXTURE], None));
    backend.start(forerun_backends::StartOrder { instance, generation, spec }).unwrap();
    match events.recv().unwrap() {
        Event::StartFailed { why, .. } => assert!(why.contains("as many instances exist"), "{why}"),
        other => panic!("{other:?} instead of StartFailed"),
    }
}

#[test]
fn instances_take_turns_at_a_port_of_their_own() {
    let bench = Bench::new(&Processes { launcher: true }, "turns");
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
