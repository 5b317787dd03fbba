//! `advise`: decided and told, and nothing done.
#![allow(clippy::unwrap_used)]

mod story;

use forerun_types::*;
use story::*;

fn advised(story: &Story<forerun_core::KeepAlive>) -> Vec<(u32, u32, String)> {
    let of = |a: &Action| match a {
        Action::Advise { from, to, reason, .. } => Some((*from, *to, reason.would(*from, *to))),
        _ => None,
    };
    story.actions.iter().filter_map(of).collect()
}

fn in_mode(mode: Mode) -> ServiceSpec {
    ServiceSpec { mode, ..ServiceSpec::named(A, "s0") }
}

/// A request comes and goes, and the keep-alive of a minute runs out.
fn one_visit(mode: Mode) -> Story<forerun_core::KeepAlive> {
    let mut story = Story::begin(&[in_mode(mode)]);
    story.gauge(A, 1, 0);
    story.gauge(A, 0, 0);
    story.pass(59);
    story.gauge(A, 0, 0);
    story.pass(5);
    story
}

#[test]
fn advise_tells_each_start_and_stop_once_and_orders_none() {
    let story = one_visit(Mode::Advise);
    let told = advised(&story);
    let ends: Vec<_> = told.iter().map(|t| (t.0, t.1)).collect();
    assert_eq!(ends, [(0, 1), (1, 0)], "{told:?}");
    assert_eq!(told[0].2, "would start 1: 1 needed at the load of now");
    assert!(told[1].2.starts_with("would stop 1: "), "{told:?}");
    assert_eq!((story.starts(), story.stops()), (0, 0));
    let kept: Vec<_> = story.status(A).advice.iter().map(|a| (a.from, a.to)).collect();
    assert_eq!(kept, ends);
}

#[test]
fn what_is_only_observed_or_acted_on_is_not_advised_on() {
    for mode in [Mode::Observe, Mode::Act] {
        let story = one_visit(mode);
        assert_eq!(advised(&story), [], "{mode:?}");
        assert_eq!(story.status(A).advice, []);
    }
}

#[test]
fn what_others_start_and_stop_would_have_been_so_all_the_same() {
    let mut story = Story::begin(&[ServiceSpec { mode: Mode::Advise, ..container(A) }]);
    // It is started by hand, which is what would have been done.
    story.say(A, Some(1));
    story.found(A, "abc", 81);
    assert_eq!(advised(&story).len(), 1, "{:?}", advised(&story));
    story.say(A, Some(0));
    assert_eq!(advised(&story).last().map(|a| (a.0, a.1)), Some((1, 0)));
    let id = story.adopted()[0].0;
    story.tell(Event::StoppedByHand { instance: id, why: "stopped by hand".to_owned() });
    assert_eq!(advised(&story).len(), 2, "the advice was followed");
    assert_eq!((story.starts(), story.stops()), (0, 0));
}

#[test]
fn there_is_no_advice_beyond_the_room() {
    let mut story = Story::unlisted(&[ServiceSpec { min: 3, ..in_mode(Mode::Advise) }]);
    let site = |instances_max| SiteSpec {
        id: SiteId(0),
        name: "here".to_owned(),
        capacity: Resources::default(),
        instances_max,
    };
    let mut full = Story::begin(&[]);
    full.tell(Event::Site(site(2)));
    full.tell(Event::Service(std::sync::Arc::new(ServiceSpec { min: 3, ..in_mode(Mode::Advise) })));
    story.pass(1);
    full.pass(1);
    let ends = |s: &Story<_>| advised(s).iter().map(|t| (t.0, t.1)).collect::<Vec<_>>();
    assert_eq!((ends(&story), ends(&full)), (vec![(0, 3)], vec![(0, 2)]));
    // Once there is more, the rest is.
    full.tell(Event::Site(site(5)));
    full.say(A, Some(3));
    assert_eq!(ends(&full), [(0, 2), (2, 3)]);
    // Taken back into its own hands, nothing stands of it.
    full.tell(Event::ModeTold { service: A, mode: Some(Mode::Act) });
    assert_eq!(full.starts(), 3);
    assert_eq!(ends(&full).len(), 2);
}
