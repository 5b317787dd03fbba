//! A trace of requests as the worlds need it: every gap filled, what policies may know apart from what scores go by.

use crate::options::{Capacity, World};
use crate::{LabError, Options};
use forerun_trace::{Trace, TraceEvent};
use forerun_types::{Span, Time};

/// Requests in order of time, and their services.
#[derive(Debug)]
pub struct Requests<'a> {
    pub(crate) trace: &'a Trace,
    /// Memory of one instance by service, as scores count it: what the trace told last.
    pub(crate) memory: Vec<u64>,
    /// The same as a policy may know it: what the trace told first.
    pub(crate) memory_known: Vec<u64>,
    /// How long a start takes by service.
    pub(crate) start: Vec<Span>,
    /// Requests that one instance serves at a time, by service; `u32::MAX` is any number.
    pub(crate) slots: Vec<u32>,
    pub(crate) scored: Vec<bool>,
    /// Costs count between these two: the trace's second 0 or the split, and the last nominal end.
    pub(crate) from: Time,
    pub(crate) horizon: Time,
    duration: Span,
}

impl<'a> Requests<'a> {
    /// # Errors
    /// When the trace is empty, `only` names nothing in it, or a service never fits the capacity.
    pub fn new(trace: &'a Trace, options: &Options) -> Result<Self, LabError> {
        let World { duration, memory_bytes, capacity, .. } = options.world;
        if trace.events.is_empty() {
            return Err(LabError::Nothing);
        }
        let mut memory = vec![None; trace.services.len()];
        let mut known = vec![None; trace.services.len()];
        let mut horizon = Time(0);
        for event in &trace.events {
            let at = event.service.0 as usize;
            if let Some(bytes) = event.memory_bytes {
                memory[at] = Some(bytes);
            }
            // What comes with the first request is all that is known from then on.
            known[at].get_or_insert(event.memory_bytes.unwrap_or(memory_bytes));
            horizon = horizon.max(event.at + event.duration.unwrap_or(duration));
        }
        let fill =
            |v: Vec<Option<u64>>| v.into_iter().map(|m| m.unwrap_or(memory_bytes)).collect::<Vec<u64>>();
        let (memory, memory_known) = (fill(memory), fill(known));
        if let Capacity::Bytes(most) = capacity {
            for (name, (a, b)) in trace.services.iter().zip(memory.iter().zip(&memory_known)) {
                let bytes = *a.max(b);
                if bytes > most {
                    return Err(LabError::NeverFits { name: name.clone(), bytes, capacity: most });
                }
            }
        }
        let scored = options.scored(trace.services.iter().map(String::as_str))?;
        let start = |name| options.starts.get(name).copied().unwrap_or(options.world.start);
        let start = trace.services.iter().map(start).collect();
        let slots = |name| match options.concurrency.get(name).copied().unwrap_or(options.world.per_instance)
        {
            0 => u32::MAX,
            slots => slots,
        };
        let slots = trace.services.iter().map(slots).collect();
        let from = trace.zero.max(options.split);
        Ok(Self { trace, memory, memory_known, start, slots, scored, from, horizon, duration })
    }

    pub(crate) fn duration(&self, event: &TraceEvent) -> Span {
        event.duration.unwrap_or(self.duration)
    }

    pub(crate) fn services(&self) -> usize {
        self.trace.services.len()
    }
}
