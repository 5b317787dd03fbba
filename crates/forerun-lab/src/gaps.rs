//! Policies that decide gap by gap: told that a level has just become idle, they say for which part of the gap to
//! hold an instance for it. What they hold, added up over levels, are the decisions.

use crate::Decision;
use crate::nominal::Use;
use forerun_types::{ServiceId, Span, Time};
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// From and to, counted from the beginning of the gap.
pub(crate) type Hold = (Span, Span);

pub(crate) trait GapPolicy {
    /// Appends what to hold of the gap after `gap`. Of `gap.next` it may learn only by a later call, at or after it.
    fn holds(&mut self, gap: &Use, holds: &mut Vec<Hold>);
}

/// Gaps that have begun, each told once it has ended.
#[derive(Debug, Default)]
pub(crate) struct Begun(BinaryHeap<Reverse<(Time, u32, Span)>>);

impl Begun {
    /// The gap after a use; one without an end teaches nothing.
    pub(crate) fn begin(&mut self, gap: &Use) {
        if let Some(next) = gap.next {
            self.0.push(Reverse((next, gap.level, next.since(gap.to))));
        }
    }

    /// Tells of the gaps that have ended by now: whose, and how long they were.
    pub(crate) fn ended(&mut self, now: Time, mut each: impl FnMut(u32, Span)) {
        while let Some(&Reverse((at, level, length))) = self.0.peek()
            && at <= now
        {
            self.0.pop();
            each(level, length);
        }
    }
}

/// The fixed keep-alive.
pub(crate) struct Fixed(pub(crate) Span);

impl GapPolicy for Fixed {
    fn holds(&mut self, _gap: &Use, holds: &mut Vec<Hold>) {
        holds.push((Span::ZERO, self.0));
    }
}

#[derive(Clone, Copy)]
struct Edge {
    at: Time,
    /// Services in the order in which they were first idle: the order of decisions of one instant.
    rank: u32,
    service: u32,
    change: i32,
}

/// The decisions of a gap policy over all uses, which stand in order of their ends.
pub(crate) fn decide(
    uses: &[Use],
    services: usize,
    policy: &mut dyn GapPolicy,
    progress: &mut dyn FnMut(u64),
) -> Vec<Decision> {
    let mut ranks: Vec<Option<u32>> = vec![None; services];
    let mut ranked = 0;
    let mut edges: Vec<Edge> = Vec::with_capacity(uses.len() * 2);
    let mut holds = Vec::new();
    for (done, gap) in uses.iter().enumerate() {
        let rank = *ranks[gap.service as usize].get_or_insert_with(|| {
            ranked += 1;
            ranked
        });
        let mut held = |from: Time, to: Time| {
            if from < to {
                edges.push(Edge { at: from, rank, service: gap.service, change: 1 });
                // What is never let go has no second edge.
                if to < Time::NEVER {
                    edges.push(Edge { at: to, rank, service: gap.service, change: -1 });
                }
            }
        };
        holds.clear();
        policy.holds(gap, &mut holds);
        // While in use it is wanted; what is held from then on is the same stretch.
        let (mut from, mut to) = (gap.from, gap.to);
        for &(begin, end) in &holds {
            let (begin, end) = (gap.to + begin, (gap.to + end).min(gap.next.unwrap_or(Time::NEVER)));
            if begin > to {
                held(from, to);
                from = begin;
            }
            to = end.max(to);
            from = from.min(to);
        }
        held(from, to);
        if done % (1 << 16) == 0 {
            progress(done as u64);
        }
    }
    edges.sort_by_key(|e| (e.at, e.rank));
    add_up(&edges, services)
}

fn add_up(edges: &[Edge], services: usize) -> Vec<Decision> {
    let mut wanted = vec![0_i32; services];
    let mut decisions = Vec::new();
    for same in edges.chunk_by(|a, b| (a.at, a.rank) == (b.at, b.rank)) {
        let change: i32 = same.iter().map(|e| e.change).sum();
        if change != 0 {
            let Edge { at, service, .. } = same[0];
            wanted[service as usize] += change;
            let wanted = wanted[service as usize].unsigned_abs();
            decisions.push(Decision { at, service: ServiceId(service), wanted });
        }
    }
    decisions
}
