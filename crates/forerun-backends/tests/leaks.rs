//! Starting and ending instances for long leaves nothing behind in Forerun itself. Alone in its process, whose file
//! descriptors and threads it counts.
#![allow(clippy::unwrap_used, reason = "a test fails by it")]

use forerun_backends::{Backend, ProcessBackend, ProcessSettings, StartOrder, StopOrder};
use forerun_types::{Event, Generation, InstanceId, Launch, ServiceId, ServiceSpec, Span};
use std::collections::BTreeMap;
use std::fs;
use std::sync::{Arc, mpsc};

const FIXTURE: &str = env!("CARGO_BIN_EXE_forerun-fixture");

fn entries(folder: &str) -> usize {
    fs::read_dir(folder).unwrap().count()
}

#[test]
fn nothing_grows() {
    let (sender, events) = mpsc::channel();
    let helper = |entry: &str| Some(vec![FIXTURE.to_owned(), entry.to_owned()]);
    let settings = ProcessSettings {
        reaper_command: helper("__reaper"),
        launcher_command: helper("__launch"),
        ..ProcessSettings::default()
    };
    let before = (entries("/proc/self/fd"), entries("/proc/self/task"));
    let backend = ProcessBackend::new(settings, Arc::new(move |event| drop(sender.send(event)))).unwrap();
    let round = |ids: std::ops::Range<u64>| {
        for id in ids.clone() {
            // Every third cannot be run, every third crashes, every third is stopped.
            let command: &[&str] = match id % 3 {
                0 => &["/nowhere/at/all"],
                1 => &[FIXTURE, "--exit", "1", "--say", "crash"],
                _ => &[FIXTURE],
            };
            let command = command.iter().map(|word| (*word).to_owned()).collect();
            let launch = Launch::Process { command, env: BTreeMap::new(), folder: None };
            let spec = Arc::new(ServiceSpec { launch, ..ServiceSpec::named(ServiceId(1), "fixture") });
            let order = StartOrder { instance: InstanceId(id), generation: Generation(1), spec };
            backend.start(order).unwrap();
        }
        let mut left = ids.end - ids.start;
        while left > 0 {
            match events.recv_timeout(std::time::Duration::from_secs(30)).unwrap() {
                Event::Ready { instance, .. } => {
                    let (generation, grace) = (Generation(1), Span::from_secs(10));
                    backend.stop(StopOrder { instance, generation, grace }).unwrap();
                }
                Event::StartFailed { .. } | Event::Stopped { .. } => left -= 1,
                Event::InstanceUsage { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    };
    // The census opens files for a moment: so the least of a while.
    let count = || {
        let counts = (0..200).map(|_| {
            std::thread::sleep(std::time::Duration::from_millis(1));
            (entries("/proc/self/fd"), entries("/proc/self/task"))
        });
        counts.min().unwrap()
    };
    round(0..30);
    let first = count();
    round(30..300);
    assert_eq!(count(), first);
    drop(backend);
    assert_eq!(count(), before);
}
