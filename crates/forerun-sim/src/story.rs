//! What happened, for a person to read.

use crate::ports::Given;
use crate::world::BEGAN;
use forerun_types::{Event, RouteTable, Time};

/// Lines that are kept: the last ones.
const LINES_MAX: usize = 20_000;

#[derive(Debug)]
pub(crate) struct Story {
    tells: bool,
    lines: std::collections::VecDeque<String>,
}

impl Story {
    pub(crate) fn new(tells: bool) -> Self {
        Self { tells, lines: std::collections::VecDeque::new() }
    }

    pub(crate) fn line(&mut self, at: Time, line: impl FnOnce() -> String) {
        if !self.tells {
            return;
        }
        if self.lines.len() == LINES_MAX {
            self.lines.pop_front();
        }
        self.lines.push_back(format!("{:>12.6}  {}", at.since(BEGAN).as_secs_f64(), line()));
    }

    pub(crate) fn event(&mut self, at: Time, event: &Event) {
        self.line(at, || match event {
            Event::Service(spec) => format!(
                "event service {}: {:?}, min {} max {} concurrency {}, start {} drain {}, {} MB",
                spec.name,
                spec.mode,
                spec.min,
                spec.max,
                spec.concurrency,
                spec.start_estimate,
                spec.drain_timeout,
                spec.resources.memory_bytes / 1_000_000
            ),
            Event::Traffic(t) => {
                let services: Vec<String> = t
                    .services
                    .iter()
                    .map(|s| format!("s{} {} in flight, {} waiting", s.service.0, s.in_flight, s.waiting))
                    .collect();
                format!("event traffic of {}: {}", t.router, services.join("; "))
            }
            other => format!("event {other:?}"),
        });
    }

    pub(crate) fn table(&mut self, at: Time, before: &RouteTable, table: &RouteTable) {
        self.line(at, || {
            let changed = table.services.iter().filter(|s| before.service(s.spec.id) != Some(s));
            let changed: Vec<String> = changed
                .map(|s| {
                    let ids: Vec<String> = s.instances.iter().map(|i| i.instance.to_string()).collect();
                    let refuses = if s.unavailable.is_some() { ", refuses" } else { "" };
                    format!("{} [{}]{refuses}", s.spec.name, ids.join(" "))
                })
                .collect();
            format!("ORDER table {}: {}", table.generation, changed.join(", "))
        });
    }

    /// An order for what is there already.
    pub(crate) fn order(&mut self, at: Time, order: &Given) {
        self.line(at, || match order {
            Given::Adopt(order, handle) => {
                format!(
                    "ORDER adopt {handle} as {} of {} ({})",
                    order.instance, order.spec.name, order.generation
                )
            }
            Given::Specialise(order) => {
                format!("ORDER specialise {} for {} ({})", order.instance, order.spec.name, order.generation)
            }
            Given::AskBusy(order) => format!("ORDER ask {} whether it is busy", order.instance),
            Given::Know(services) => format!("ORDER know {services:?}"),
            order => format!("ORDER {order:?}"),
        });
    }

    pub(crate) fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.lines).into()
    }
}
