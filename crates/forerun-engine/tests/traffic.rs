//! The traffic in a journal as a trace.

#![allow(clippy::unwrap_used)]

use forerun_core::{AnyPolicy, Core, KeepAlive};
use forerun_engine::journal::{self, Change, FORMAT_VERSION, Head, Opening, What};
use forerun_types::*;
use std::path::PathBuf;
use std::sync::Arc;

const BEGAN: u64 = 1_700_000_000_000_000;

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("forerun-traffic-{name}-{}", std::process::id()));
        let _ = std::fs::remove_dir_all(&path);
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn at(seconds: u64) -> Time {
    Time(BEGAN + seconds * 1_000_000)
}

fn activity(seconds: u64, service: u32, user: u64, action: u64) -> Activity {
    Activity {
        at: at(seconds),
        tenant: TenantKey(1),
        user: UserKey(user),
        group: GroupKey(2),
        site: SiteId(0),
        service: ServiceId(service),
        action: ActionKey(action),
    }
}

fn finished(service: u32, action: u64, seconds: u64) -> Finished {
    Finished {
        service: ServiceId(service),
        action: ActionKey(action),
        instance: InstanceId(1),
        duration: Span::from_secs(seconds),
        held: Span::ZERO,
        network_bytes: 0,
        status: 200,
    }
}

fn traffic(activities: Vec<Activity>, finished: Vec<Finished>) -> Event {
    Event::Traffic(Traffic { activities, finished, ..Traffic::default() })
}

fn ready(instance: u64, service: u32, seconds: u64) -> (Event, Vec<Change>) {
    let address = ([127, 0, 0, 1], 9_000).into();
    let instance = InstanceId(instance);
    let event = Event::Ready { instance, address, took: Span::from_secs(seconds) };
    let change = Change { service: ServiceId(service), what: What::Ready(instance), reason: String::new() };
    (event, vec![change])
}

/// A segment that opens with what `before` made of a core, and then has `steps`.
fn segment(folder: &Folder, number: u64, before: &[Event], steps: &[(u64, Event, Vec<Change>)]) {
    let mut core = Core::new(AnyPolicy::KeepAlive(KeepAlive::new(Span::from_secs(60))));
    for event in before {
        core.step(at(0), event, &mut Vec::new());
    }
    let head = Head {
        version: FORMAT_VERSION,
        segment: number,
        policy: "keep-alive=60s".to_owned(),
        program: "0".to_owned(),
    };
    let mut bytes = Opening::new(&head, at(0), &core).seal();
    let mut block = Vec::new();
    for (seconds, event, changes) in steps {
        journal::encode_step(at(*seconds), event, 0, changes, &mut block);
    }
    bytes.extend(journal::seal_block(&block));
    std::fs::write(journal::segment_path(&folder.0, number), bytes).unwrap();
}

fn described(id: u32, name: &str, memory_bytes: u64) -> Event {
    let resources = Resources { memory_bytes, ..Resources::default() };
    Event::Service(Arc::new(ServiceSpec {
        resources,
        concurrency: 4,
        ..ServiceSpec::named(ServiceId(id), name)
    }))
}

/// Guarantee: every activity is a request of the trace, with what its end, its service's description and the starts
/// of its instances tell.
#[test]
fn a_journal_is_a_trace() {
    let folder = Folder::new("trace");
    let site = Event::Site(SiteSpec {
        id: SiteId(0),
        name: "local".to_owned(),
        capacity: Resources { memory_bytes: 8_000_000_000, ..Resources::default() },
        instances_max: 0,
    });
    let plain = |seconds, event| (seconds, event, Vec::new());
    let waited = |seconds, (event, changes): (Event, Vec<Change>)| (seconds, event, changes);
    segment(
        &folder,
        1,
        &[site.clone(), described(0, "old", 500_000_000)],
        &[
            plain(1, described(1, "new", 2_000_000_000)),
            waited(2, ready(1, 0, 3)),
            waited(2, ready(2, 0, 9)),
            waited(2, ready(3, 0, 4)),
            // The later one is told first, and the two of one action end in turn.
            plain(10, traffic(vec![activity(10, 1, 7, 5), activity(9, 0, 8, 5)], vec![])),
            plain(12, traffic(vec![activity(11, 0, 8, 5)], vec![finished(0, 5, 2), finished(1, 5, 1)])),
            plain(20, traffic(vec![activity(20, 0, 8, 6)], vec![finished(0, 5, 6)])),
        ],
    );
    segment(
        &folder,
        2,
        &[site, described(0, "old", 500_000_000)],
        &[plain(30, traffic(vec![activity(30, 0, 9, 6)], vec![finished(0, 6, 1)]))],
    );
    std::fs::write(journal::segment_path(&folder.0, 3), b"torn").unwrap();

    let found = journal::traffic(&folder.0).unwrap();
    let requests: Vec<(u64, &str, u64, Option<u64>)> = found
        .trace
        .events
        .iter()
        .map(|e| {
            let name = found.trace.services[e.service.0 as usize].as_str();
            (e.at.0 / 1_000_000, name, e.user.0, e.duration.map(|d| d.0 / 1_000_000))
        })
        .collect();
    // What has no end takes the mean of its service's: 2, 6 and 1 s.
    let expect = [
        (0, "old", 8, Some(2)),
        (1, "new", 7, Some(1)),
        (2, "old", 8, Some(6)),
        (11, "old", 8, Some(1)),
        (21, "old", 9, Some(3)),
    ];
    assert_eq!(requests, expect);
    assert_eq!(found.trace.origin_us, i64::try_from(BEGAN + 9_000_000).unwrap());
    assert_eq!(found.unfinished, 1);
    assert_eq!(found.trace.events[1].memory_bytes, Some(2_000_000_000));
    assert_eq!(found.starts["old"], Span::from_secs(4));
    assert_eq!(found.services["new"].concurrency, 4);
    assert_eq!(found.sites[0].capacity.memory_bytes, 8_000_000_000);
    assert_eq!((found.lost.len(), found.torn_bytes), (1, 0));
}

/// Guarantee: a journal without requests is one, and what is no journal is said.
#[test]
fn oddities_are_no_traffic() {
    let folder = Folder::new("odd");
    assert!(journal::traffic(&folder.0).is_err());
    segment(&folder, 1, &[], &[(1, Event::Tick, Vec::new())]);
    let found = journal::traffic(&folder.0).unwrap();
    assert!(found.trace.events.is_empty() && found.trace.services.is_empty());
    let file = folder.0.join("odd.frj");
    std::fs::write(&file, b"no journal").unwrap();
    assert!(journal::traffic(&file).is_err());
}

/// Descriptions are written without their classes' budgets, which events tell.
#[test]
fn cold_start_budgets_are_those_told_last() {
    let folder = Folder::new("budgets");
    let budget = |ppm| Event::ColdStartBudget { class: "default".to_owned(), ppm };
    let told = || {
        let found = journal::traffic(&folder.0).unwrap();
        found.services.values().map(|s| s.sla.cold_start_budget_ppm).collect::<Vec<_>>()
    };
    let before = [budget(10_000), described(0, "old", 500_000_000)];
    segment(&folder, 1, &before, &[]);
    assert_eq!(told(), [10_000]);
    segment(&folder, 1, &before, &[(1, budget(500), Vec::new()), (2, described(1, "new", 1), Vec::new())]);
    assert_eq!(told(), [500, 500]);
    segment(&folder, 2, &[budget(0), described(0, "old", 500_000_000)], &[]);
    assert_eq!(told(), [0, 0]);
}
