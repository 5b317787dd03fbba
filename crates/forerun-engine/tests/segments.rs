//! When segments are removed: never the last that a cut of power would spare.

use forerun_backends::{StartOrder, StopOrder};
use forerun_core::{AnyPolicy, Core, KeepAlive};
use forerun_engine::ports::{Backends, Clock, Disk, DiskHealth, DiskOrder, Reading, Routers};
use forerun_engine::shell::{JournalSettings, Ports, Shell};
use forerun_types::*;
use std::collections::BTreeSet;
use std::sync::Arc;

struct Still(u64);
impl Clock for Still {
    fn read(&mut self) -> Reading {
        self.0 += 1_000;
        Reading { now: Time(self.0), jumped: None }
    }
}

/// Knows which segments are whole on the disk, whatever happens now.
#[derive(Default)]
struct Cuttable {
    current: u64,
    spared: BTreeSet<u64>,
    removed: u32,
}
impl Disk for Cuttable {
    fn order(&mut self, order: DiskOrder) {
        match order {
            DiskOrder::Segment { number, .. } => self.current = number,
            DiskOrder::Append(_) => {}
            DiskOrder::Sync => {
                self.spared.insert(self.current);
            }
            DiskOrder::Remove { number } => {
                self.removed += 1;
                self.spared.remove(&number);
                assert!(!self.spared.is_empty(), "segment {number} was the last that a cut of power spares");
            }
        }
    }
    fn health(&mut self) -> DiskHealth {
        DiskHealth::Good
    }
}

struct Nobody;
impl Backends for Nobody {
    fn start(&mut self, _: StartOrder) {}
    fn stop(&mut self, _: StopOrder) {}
    fn adopt(&mut self, _: StartOrder, _: &str) {}
    fn pause(&mut self, _: InstanceId, _: Generation) {}
    fn resume(&mut self, _: InstanceId, _: Generation) {}
    fn specialise(&mut self, _: StartOrder) {}
    fn ask_busy(&mut self, _: StartOrder) {}
    fn let_go(&mut self, _: InstanceId) {}
    fn know(&mut self, _: &[Arc<ServiceSpec>]) {}
}
impl Routers for Nobody {
    fn publish(&mut self, _: Arc<RouteTable>) {}
}

#[test]
fn a_segment_is_removed_only_once_a_newer_one_is_synced() {
    let policy = AnyPolicy::KeepAlive(KeepAlive::new(Span::from_secs(1)));
    let ports = Ports { clock: Still(1), disk: Cuttable::default(), backends: Nobody, routers: Nobody };
    let journal = JournalSettings {
        policy: "keep-alive=1s".to_owned(),
        first_segment: 1,
        existing: Vec::new(),
        segment_bytes_max: 4 << 10,
        bytes_max: 8 << 10,
        flush_interval: Span::from_millis(100),
    };
    let mut shell = Shell::new(Core::new(policy), ports, journal);
    shell.begin(&[Event::Began]);
    for id in 0..2_000 {
        // What does not pack well, so that segments fill.
        let name: String =
            (0..40).map(|n| char::from(b'a' + ((id * 7 + n * n * (id + 3)) % 26) as u8)).collect();
        shell.handle(&Event::Service(Arc::new(ServiceSpec::named(ServiceId(id % 20), name))));
        shell.pass();
    }
    let removed = shell.ports_mut().disk.removed;
    assert!(removed > 3, "only {removed} segments were removed");
}
