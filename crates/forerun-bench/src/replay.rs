//! Requests per second of the lab, decisions and scores included, on one thread.

use crate::Figure;
use forerun_lab::{Options, PolicyName, replay_requests};
use forerun_trace::{Trace, TraceEvent};
use forerun_types::{ActionKey, GroupKey, ServiceId, Span, TenantKey, Time, UserKey};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::hint::black_box;
use std::time::Instant;

const REQUESTS: usize = 1_000_000;
const SERVICES: u64 = 500;
const USERS: u64 = 5_000;

/// A day in which services differ a thousandfold in how often they are asked.
fn trace() -> Trace {
    let mut state = 1u64;
    let mut draw = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state >> 33
    };
    let mut events: Vec<TraceEvent> = (0..REQUESTS)
        .map(|_| {
            let rank = (draw() % SERVICES) * (draw() % SERVICES) / SERVICES;
            TraceEvent {
                at: Time(draw() * 40 % 86_400_000_000),
                service: ServiceId(rank as u32),
                tenant: TenantKey(0),
                user: UserKey(draw() % USERS + 1),
                group: GroupKey(0),
                action: ActionKey(1),
                duration: Some(Span::from_millis(20 + draw() % 200)),
                memory_bytes: Some(200_000_000),
            }
        })
        .collect();
    events.sort_by_key(|e| e.at);
    Trace { services: (0..SERVICES).map(|n| format!("s{n}")).collect(), events, ..Trace::default() }
}

/// What any simulation of requests does at the least: an event queue, each request's end pushed and popped.
fn bare_queue(trace: &Trace) -> f64 {
    let began = Instant::now();
    let mut ends = BinaryHeap::new();
    let mut done = 0u64;
    for event in &trace.events {
        while ends.peek().is_some_and(|Reverse(at)| *at <= event.at) {
            ends.pop();
            done += 1;
        }
        ends.push(Reverse(event.at + event.duration.unwrap_or_default()));
    }
    black_box(done);
    trace.events.len() as f64 / began.elapsed().as_secs_f64()
}

pub(crate) fn run() -> Vec<Figure> {
    let trace = trace();
    let options = Options { profiles_bytes_max: 64 << 20, ..Options::default() };
    let reference = bare_queue(&trace);
    [
        ("none", PolicyName::None),
        ("keep-alive=10m", PolicyName::KeepAlive(Span::from_secs(600))),
        ("forerun", PolicyName::Forerun),
    ]
    .into_iter()
    .map(|(name, policy)| {
        let began = Instant::now();
        if let Err(error) = replay_requests(policy, name, &trace, &options, &mut |_| {}) {
            crate::fail(&error.to_string());
        }
        let value = trace.events.len() as f64 / began.elapsed().as_secs_f64();
        Figure::new(
            format!("requests, {SERVICES} services, {name}"),
            value,
            "per second",
            "bare event queue",
            reference,
        )
    })
    .collect()
}
