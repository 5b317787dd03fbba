//! From records to a trace: names become numbers, and all is put in order of time.

use crate::record::{Record, Sink, SinkFull};
use crate::trace::{ReadReport, Trace, TraceEvent};
use forerun_types::{ActionKey, GroupKey, ServiceId, TenantKey, Time, UserKey};
use std::collections::HashMap;

/// Hashes remembered; past that they are computed anew each time.
const MEMO_MAX: usize = 1 << 20;
/// Turns signed microseconds into unsigned ones that sort alike.
const SIGN: u64 = 1 << 63;

#[derive(Debug)]
pub(crate) struct Builder {
    names: HashMap<Box<[u8]>, ServiceId>,
    services: Vec<String>,
    hashes: HashMap<Box<[u8]>, u64>,
    events: Vec<TraceEvent>,
    events_max: usize,
    sorted: bool,
    last: Time,
}

impl Builder {
    pub(crate) fn new(events_max: usize) -> Self {
        Self {
            names: HashMap::new(),
            services: Vec::new(),
            hashes: HashMap::new(),
            events: Vec::new(),
            events_max,
            sorted: true,
            last: Time(0),
        }
    }

    fn service(&mut self, name: &[u8]) -> ServiceId {
        if let Some(&id) = self.names.get(name) {
            return id;
        }
        // There are fewer services than events, whose number is bounded far below 2^32.
        let id = ServiceId(self.services.len() as u32);
        self.services.push(String::from_utf8_lossy(name).into_owned());
        self.names.insert(name.into(), id);
        id
    }

    fn hash(&mut self, text: &[u8]) -> u64 {
        if text.is_empty() {
            return 0;
        }
        if let Some(&hash) = self.hashes.get(text) {
            return hash;
        }
        let bytes = blake3::hash(text);
        let mut first = [0; 8];
        first.copy_from_slice(&bytes.as_bytes()[..8]);
        // 0 means "nobody".
        let hash = u64::from_le_bytes(first).max(1);
        if self.hashes.len() < MEMO_MAX {
            self.hashes.insert(text.into(), hash);
        }
        hash
    }

    /// The trace; its second 0 is the first arrival, or the files' own zero.
    pub(crate) fn finish(mut self, own_zero: bool, report: ReadReport) -> Trace {
        if !self.sorted {
            self.events.sort_by_key(|e| e.at);
        }
        let first = self.events.first().map_or(0, |e| (e.at.0 ^ SIGN) as i64);
        let origin_us = if own_zero { first.min(0) } else { first };
        let mut numbers = vec![None; self.services.len()];
        let mut services = Vec::with_capacity(self.services.len());
        for event in &mut self.events {
            let micros = (event.at.0 ^ SIGN) as i64;
            event.at = Time(micros.abs_diff(origin_us));
            let old = event.service.0 as usize;
            event.service = *numbers[old].get_or_insert_with(|| {
                services.push(std::mem::take(&mut self.services[old]));
                ServiceId(services.len() as u32 - 1)
            });
        }
        let zero = if own_zero { Time(origin_us.unsigned_abs()) } else { Time(0) };
        Trace { services, events: self.events, origin_us, zero, report }
    }
}

impl Sink for Builder {
    fn record(&mut self, record: &Record<'_>) -> Result<(), SinkFull> {
        if self.events.len() >= self.events_max {
            return Err(SinkFull::TooMany { max: self.events_max });
        }
        let at = Time(record.at_us as u64 ^ SIGN);
        self.sorted &= at >= self.last;
        self.last = at;
        let tenant = if record.tenant == b"default" { 0 } else { self.hash(record.tenant) };
        let event = TraceEvent {
            at,
            service: self.service(record.service),
            tenant: TenantKey(tenant),
            user: UserKey(self.hash(record.user)),
            group: GroupKey(self.hash(record.group)),
            action: ActionKey(self.hash(record.action)),
            duration: record.duration,
            memory_bytes: record.memory_bytes,
        };
        self.events.push(event);
        Ok(())
    }
}
