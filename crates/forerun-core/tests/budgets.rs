//! Cold-start budgets: a class that has nearly spent its own keeps more; one that has not, and one without, decides as it
//! always does.

#![allow(clippy::unwrap_used)]

mod story;

use forerun_core::{BudgetStatus, LevelValue, Policy, View};
use forerun_types::*;
use story::{A, Story, finished};

/// Keeps one instance as long as its cold start is worth by the price that it counts: a second for each thousandth.
#[derive(Default)]
struct ByPrice {
    used: Time,
    seen: bool,
}

impl Policy for ByPrice {
    fn service(&mut self, _: &View<'_>) {}
    fn service_gone(&mut self, _: ServiceId) {}
    fn activity(&mut self, _: &Activity, _: &mut Vec<ServiceId>) {}
    fn needed(&mut self, now: Time, _: ServiceId, peak: u32, needed: u32) {
        if peak > 0 || needed > 0 {
            (self.used, self.seen) = (now, true);
        }
    }
    fn period(&mut self, _: Time, _: ServiceId, _: Span, _: u32) {}
    fn forget(&mut self, _: UserKey) {}
    fn appraise(&mut self, now: Time, view: &View<'_>, values: &mut Vec<LevelValue>) -> Time {
        if view.needed > 0 || !self.seen {
            return Time::NEVER;
        }
        let idle = now.since(self.used);
        let keep = Span::from_secs(u64::from(view.dearer_milli) / 10);
        let reason = Reason::KeepAlive { idle, keep };
        let worth = keep.as_millis() as i64 - idle.as_millis() as i64;
        values.push(LevelValue::new(worth, Span::from_secs(1), view.spec, reason));
        now + Span::from_secs(1)
    }
    fn next_stop(&self, _: Time, _: &View<'_>) -> Option<Time> {
        None
    }
}

fn story(budget_ppm: u32) -> (Story<ByPrice>, InstanceId) {
    let mut story = Story::with(ByPrice::default(), &[]);
    if budget_ppm > 0 {
        story.tell(Event::ColdStartBudget { class: "default".to_owned(), ppm: budget_ppm });
    }
    story.tell(Event::Service(std::sync::Arc::new(ServiceSpec::named(A, "shop"))));
    story.hold(A, 1);
    let instance = story.last_start();
    story.ready(instance, 1);
    (story, instance)
}

/// So many requests of which so many were held, and for how long the instance is kept after that.
fn kept_after(budget_ppm: u32, requests: u64, cold_starts: u64) -> (u64, Vec<Action>, Option<BudgetStatus>) {
    let (mut story, instance) = story(budget_ppm);
    for n in 0..requests {
        story.tell(finished(instance, Span::from_millis(u64::from(n < cold_starts))));
    }
    let budget = story.core.budgets().next();
    story.gauge(A, 0, 0);
    let from = story.seconds;
    while story.stops() == 0 {
        story.pass(1);
        assert!(story.seconds < from + 1_000, "kept for ever");
    }
    (story.seconds - from, story.actions, budget)
}

#[test]
fn a_budget_that_is_nearly_spent_keeps_longer_and_one_that_is_not_changes_nothing() {
    let (plain, actions, none) = kept_after(0, 1_000, 500);
    assert_eq!((plain, none), (100, None));
    for (cold_starts, kept, spent_milli, dearer_milli) in [
        (0, 100, 0, 1_000),
        (5, 100, 500, 1_000),
        (8, 275, 800, 2_750),
        (10, 400, 1_000, 4_000),
        (500, 400, 50_000, 4_000),
    ] {
        let (seconds, by, budget) = kept_after(10_000, 1_000, cold_starts);
        let class = "default".to_owned();
        let (budget_ppm, requests) = (10_000, 1_000);
        let told = BudgetStatus { class, budget_ppm, requests, cold_starts, spent_milli, dearer_milli };
        assert_eq!((seconds, budget), (kept, Some(told)));
        assert_eq!(by == actions, dearer_milli == 1_000, "{cold_starts} of 1,000");
    }
}

#[test]
fn a_budget_is_set_anew_and_taken_back() {
    let mut story = story(0).0;
    let mut set = |ppm| {
        story.tell(Event::ColdStartBudget { class: "gold".to_owned(), ppm });
        story.core.cold_start_budget("gold")
    };
    assert_eq!((set(500), set(10_000), set(0)), (500, 10_000, 0));
}

#[test]
fn a_budget_is_shown_while_its_class_has_services() {
    let mut story = story(10_000).0;
    let shown = |story: &Story<ByPrice>| story.core.budgets().map(|b| b.class).collect::<Vec<_>>();
    assert_eq!(shown(&story), ["default"]);
    story.tell(Event::ColdStartBudget { class: "gold".to_owned(), ppm: 500 });
    assert_eq!(shown(&story), ["default"]);
    let sla = SlaClass { name: "gold".to_owned(), ..SlaClass::default() };
    story.tell(Event::Service(std::sync::Arc::new(ServiceSpec { sla, ..ServiceSpec::named(A, "shop") })));
    assert_eq!(shown(&story), ["gold"]);
}
