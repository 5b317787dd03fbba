//! The core over whole minutes.

use super::{Ends, Fleet, STEPS_MAX, restless, spec};
use crate::{LabError, Options};
use forerun_core::AnyPolicy;
use forerun_trace::MinuteTrace;
use forerun_types::{Event, PeriodLoad, ServiceId, Span, Time};
use std::sync::Arc;

const MINUTE: Span = Span::from_secs(60);

/// Runs the core over whole minutes: at the beginning of each it is told of the last, and what it then wants is
/// there for the minute. Instances wanted by app and minute.
pub(crate) fn drive_minutes(
    policy: AnyPolicy,
    name: &str,
    trace: &MinuteTrace,
    needs: &[Vec<u32>],
    options: &Options,
    progress: &mut dyn FnMut(u64),
) -> Result<Vec<Vec<u32>>, LabError> {
    let services = std::iter::repeat_n((Span::ZERO, u32::MAX), trace.apps.len());
    let mut fleet = Fleet::new(policy, services, 0, options);
    let mut ends = Ends::default();
    fleet.run(None, &mut ends);
    let mut wanted: Vec<Vec<u32>> = needs.iter().map(|need| vec![0; need.len()]).collect();
    for minute in 0..trace.minutes() {
        fleet.go_to(Time(minute as u64 * MINUTE.0));
        if minute > 0 {
            let loads = loads_of(&mut fleet, &mut ends, trace, needs, minute - 1, options);
            fleet.tell(Event::PeriodLoads { period: MINUTE, loads }, None, &mut ends);
        }
        fleet.tell(Event::Tick, None, &mut ends);
        while fleet.next_tick() <= fleet.now && fleet.steps <= STEPS_MAX {
            fleet.tell(Event::Tick, None, &mut ends);
        }
        if fleet.steps > STEPS_MAX {
            return Err(restless(name, fleet.now));
        }
        fleet.close_instant();
        for (app, wanted) in wanted.iter_mut().enumerate() {
            if let Some(wanted) = wanted.get_mut(minute) {
                *wanted = fleet.services[app].wanted;
            }
        }
        progress(minute as u64);
    }
    Ok(wanted)
}

/// The minute's loads of all services that have had any; new ones are described first.
fn loads_of(
    fleet: &mut Fleet,
    ends: &mut Ends,
    trace: &MinuteTrace,
    needs: &[Vec<u32>],
    minute: usize,
    options: &Options,
) -> Vec<PeriodLoad> {
    let mut loads = Vec::new();
    for (at, app) in trace.apps.iter().enumerate() {
        let service = ServiceId(at as u32);
        let needed = needs[at].get(minute).copied().unwrap_or(0);
        if needed > 0 && !std::mem::replace(&mut fleet.services[at].known, true) {
            let memory_bytes = (app.memory_mb * 1e6).round() as u64;
            let spec = spec(service, app.name.clone(), memory_bytes, Span::ZERO, 1, options);
            fleet.tell(Event::Service(Arc::new(spec)), None, ends);
        }
        if fleet.services[at].known {
            let busy = app.concurrency.get(minute).copied().unwrap_or(0.0);
            let busy_milli = if needed > 0 { (busy * 1e3).ceil() as u64 } else { 0 };
            loads.push(PeriodLoad { service, busy_milli, needed });
        }
    }
    loads
}
