//! What if: the traffic of a journal, decided anew by other policies or in another world.

use super::ReplayArgs;
use crate::failure::Failure;
use forerun_engine::journal::{Recording, traffic};
use forerun_lab::{Capacity, Options};
use forerun_trace::Recorded;
use std::collections::BTreeSet;
use std::path::Path;

/// What of a journal is not its traffic.
#[derive(Clone, Debug, Default)]
pub(super) struct Journal {
    /// Services whose starts were measured.
    pub(super) measured_starts: usize,
    /// Requests whose end it does not tell.
    pub(super) unfinished: u64,
    pub(super) torn_bytes: u64,
    pub(super) lost: Vec<String>,
}

impl Journal {
    /// The traffic as a trace. What the journal tells of the world stands wherever no flag and no configuration says
    /// otherwise.
    pub(super) fn read(
        path: &Path,
        args: &ReplayArgs,
        options: &mut Options,
    ) -> Result<(Recorded, Self), Failure> {
        let Recording { trace, services, starts, sites, unfinished, torn_bytes, lost } =
            traffic(path).map_err(|e| Failure::Running(e.to_string()))?;
        let journal = Self { measured_starts: starts.len(), unfinished, torn_bytes, lost };
        if args.start.is_none() {
            options.starts = starts;
        }
        if args.per_instance.is_none() {
            options.concurrency = services.iter().map(|(name, s)| (name.clone(), s.concurrency)).collect();
        }
        if args.capacity.is_none() {
            let bytes: u64 = sites.iter().map(|s| s.capacity.memory_bytes).sum();
            let instances: u32 = sites.iter().map(|s| s.instances_max).sum();
            options.world.capacity = match (bytes, instances) {
                (0, 0) => Capacity::Unlimited,
                (0, instances) => Capacity::Instances(instances),
                (bytes, _) => Capacity::Bytes(bytes),
            };
        }
        let prices: BTreeSet<u64> = services.values().map(|s| s.sla.cold_start_milli_gbs).collect();
        if let (Some(&price), 1) = (prices.first(), prices.len()) {
            options.cold_start_gbs = price as f64 / 1e3;
        }
        for (name, spec) in services {
            options.services.entry(name).or_insert(spec);
        }
        Ok((Recorded::Requests(trace), journal))
    }

    /// What a person must be told before the figures.
    pub(super) fn sentences(&self) -> String {
        let mut text = format!("starts of {} services as they were measured", self.measured_starts);
        if self.unfinished > 0 {
            text += &format!("; {} requests never ended and count as their service's mean", self.unfinished);
        }
        if self.torn_bytes > 0 {
            text += &format!("; {} bytes after the last whole record are torn off", self.torn_bytes);
        }
        for lost in &self.lost {
            text += &format!("\nnot read: {lost}");
        }
        text
    }
}
