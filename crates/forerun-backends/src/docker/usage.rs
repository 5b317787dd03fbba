//! What instances use, about once a second: one question each, a few at a time.

use super::engine::Engine;
use super::keeper::Keeper;
use bollard::models::ContainerStatsResponse;
use forerun_types::{Event, InstanceId, Span};
use futures_util::StreamExt;
use std::rc::Rc;
use std::time::Instant;
use tokio::time::{MissedTickBehavior, interval};

/// Questions at a time: the engine answers each within some milliseconds.
const ASKED_MAX: usize = 8;

/// What an instance had used at a time since its container began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    pub(super) at: Instant,
    pub(super) cpu: Span,
    pub(super) memory_bytes: u64,
    pub(super) network_bytes: u64,
    pub(super) storage_bytes: u64,
}

/// The last reading and the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Readings {
    pub(super) last: Reading,
    pub(super) before: Option<Reading>,
}

impl Readings {
    /// Thousandths of a core over the last two readings.
    pub(super) fn cpu_milli(&self) -> Option<u64> {
        let before = self.before?;
        let micros = self.last.at.duration_since(before.at).as_micros().max(1);
        let used = u128::from(self.last.cpu.0.saturating_sub(before.cpu.0));
        u64::try_from(used * 1_000 / micros).ok()
    }

    pub(super) fn network_bytes_per_s(&self) -> Option<u64> {
        let before = self.before?;
        let micros = self.last.at.duration_since(before.at).as_micros().max(1);
        let bytes = u128::from(self.last.network_bytes.saturating_sub(before.network_bytes));
        u64::try_from(bytes * 1_000_000 / micros).ok()
    }
}

/// Asks for ever.
pub(super) async fn watch(keeper: Rc<Keeper>) {
    let mut tick = interval(keeper.settings.usage_every.into());
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        let Some(engine) = keeper.link.get() else { continue };
        let asked: Vec<(InstanceId, String)> = {
            let books = keeper.books.borrow();
            let runs = books.runs.iter().filter(|(_, run)| run.counts);
            runs.filter_map(|(instance, run)| Some((*instance, run.container.clone()?))).collect()
        };
        futures_util::stream::iter(asked)
            .for_each_concurrent(ASKED_MAX, |(instance, container)| {
                let (keeper, engine) = (Rc::clone(&keeper), engine.clone());
                async move { ask(&keeper, &engine, instance, &container).await }
            })
            .await;
    }
}

async fn ask(keeper: &Keeper, engine: &Engine, instance: InstanceId, container: &str) {
    match engine.stats(container).await {
        Ok(stats) => {
            // One that has just ended is told as all zeros.
            let Some(reading) = reading(&stats) else { return };
            let mut books = keeper.books.borrow_mut();
            // It may have ended or been frozen meanwhile, and nothing is told after an end.
            if !books.runs.get(&instance).is_some_and(|run| run.counts) {
                return;
            }
            let before = books.readings.get(&instance).map(|readings| readings.last);
            books.readings.insert(instance, Readings { last: reading, before });
            drop(books);
            let Reading { cpu, memory_bytes, network_bytes, storage_bytes, .. } = reading;
            keeper.tell(Event::InstanceUsage { instance, memory_bytes, cpu });
            keeper.tell(Event::InstanceTraffic { instance, network_bytes, storage_bytes });
        }
        Err(error) if error.is_silence() => keeper.link.doubt.notify_one(),
        Err(_) => {}
    }
}

fn reading(stats: &ContainerStatsResponse) -> Option<Reading> {
    let cpu_nanos = stats.cpu_stats.as_ref()?.cpu_usage.as_ref()?.total_usage?;
    let memory = stats.memory_stats.clone().unwrap_or_default();
    let used = memory.usage?;
    // Cache that the kernel would give back at once; its name is another with each version of control groups.
    let cache = memory
        .stats
        .as_ref()
        .and_then(|stats| stats.get("total_inactive_file").or(stats.get("inactive_file")));
    let networks = stats.networks.iter().flatten();
    let network = networks.map(|(_, of)| of.rx_bytes.unwrap_or(0) + of.tx_bytes.unwrap_or(0)).sum();
    let storage = stats.blkio_stats.as_ref().and_then(|of| of.io_service_bytes_recursive.as_ref());
    let moves = |op: &str| op.eq_ignore_ascii_case("read") || op.eq_ignore_ascii_case("write");
    let storage = storage.into_iter().flatten().filter(|entry| entry.op.as_deref().is_some_and(moves));
    Some(Reading {
        at: Instant::now(),
        cpu: Span(cpu_nanos / 1_000),
        memory_bytes: used.saturating_sub(cache.copied().unwrap_or(0)),
        network_bytes: network,
        storage_bytes: storage.map(|entry| entry.value.unwrap_or(0)).sum(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::{
        ContainerBlkioStatEntry, ContainerBlkioStats, ContainerCpuStats, ContainerCpuUsage,
        ContainerMemoryStats, ContainerNetworkStats,
    };
    use std::time::Duration;

    #[test]
    fn stats_become_a_reading() {
        let entry = |op: &str, value| ContainerBlkioStatEntry {
            op: Some(op.to_owned()),
            value: Some(value),
            ..ContainerBlkioStatEntry::default()
        };
        let network = ContainerNetworkStats { rx_bytes: Some(10), tx_bytes: Some(5), ..Default::default() };
        let stats = ContainerStatsResponse {
            cpu_stats: Some(ContainerCpuStats {
                cpu_usage: Some(ContainerCpuUsage { total_usage: Some(2_500_000), ..Default::default() }),
                ..Default::default()
            }),
            memory_stats: Some(ContainerMemoryStats {
                usage: Some(1_000),
                stats: Some(
                    [("inactive_file".to_owned(), 300), ("total_inactive_file".to_owned(), 400)].into(),
                ),
                ..Default::default()
            }),
            networks: Some([("eth0".to_owned(), network.clone()), ("eth1".to_owned(), network)].into()),
            blkio_stats: Some(ContainerBlkioStats {
                io_service_bytes_recursive: Some(vec![
                    entry("Read", 7),
                    entry("write", 1),
                    entry("Total", 8),
                ]),
                ..Default::default()
            }),
            ..Default::default()
        };
        let reading = reading(&stats).unwrap();
        assert_eq!((reading.cpu, reading.memory_bytes), (Span(2_500), 600));
        assert_eq!((reading.network_bytes, reading.storage_bytes), (30, 8));
        assert_eq!(super::reading(&ContainerStatsResponse::default()), None);
    }

    #[test]
    fn two_readings_make_a_rate() {
        let before = Reading {
            at: Instant::now(),
            cpu: Span(1_000),
            memory_bytes: 0,
            network_bytes: 100,
            storage_bytes: 0,
        };
        let last = Reading {
            at: before.at + Duration::from_secs(2),
            cpu: Span(1_001_000),
            network_bytes: 2_100,
            ..before
        };
        let readings = Readings { last, before: Some(before) };
        assert_eq!((readings.cpu_milli(), readings.network_bytes_per_s()), (Some(500), Some(1_000)));
        assert_eq!(Readings { last, before: None }.cpu_milli(), None);
    }
}
