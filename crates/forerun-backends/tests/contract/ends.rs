//! From `Ready`, or a start that is not wanted any more, to the end.

use super::bench::{Bench, World, get};
use forerun_types::{Event, ServiceSpec, Span};
use std::time::{Duration, Instant};

const GRACE: Span = Span::from_millis(600);

pub(crate) fn stop_is_obeyed(world: &dyn World) {
    let bench = Bench::new(world, "obeyed");
    let (instance, _) = bench.ready(&["--grandchild"]);
    let began = Instant::now();
    bench.stop(instance, Span::from_secs(60));
    bench.stopped(instance);
    bench.nothing_left();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    bench.silent(Duration::from_millis(300));
}

pub(crate) fn stop_is_forced(world: &dyn World) {
    let bench = Bench::new(world, "forced");
    for (flags, grace) in
        [(&["--ignore-term"][..], GRACE), (&["--ignore-term", "--grandchild"], GRACE), (&[], Span::ZERO)]
    {
        let (instance, _) = bench.ready(flags);
        let began = Instant::now();
        bench.stop(instance, grace);
        bench.stopped(instance);
        bench.nothing_left();
        assert!(began.elapsed() >= Duration::from(grace), "{:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from(grace) + Duration::from_secs(5), "{:?}", began.elapsed());
    }
}

pub(crate) fn everything_goes(world: &dyn World) {
    let bench = Bench::new(world, "everything");
    let (instance, _) = bench.ready(&["--grandchild", "--grandchild-group", "--ignore-term"]);
    bench.has_processes(3);
    bench.stop(instance, GRACE);
    bench.stopped(instance);
    bench.nothing_left();
}

pub(crate) fn death_is_noticed(world: &dyn World) {
    let bench = Bench::new(world, "death");
    let (instance, address) = bench.ready(&["--say", "all well"]);
    let began = Instant::now();
    get(address, "/exit?code=7");
    bench.dies(instance, &["exit code 7; last lines: all well"]);
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    assert_eq!(bench.backend().running(), []);
    bench.silent(Duration::from_millis(300));
}

pub(crate) fn death_by_signal(world: &dyn World) {
    let bench = Bench::new(world, "death-signal");
    let (instance, _) = bench.ready(&["--signal", "6", "--after", "300"]);
    bench.dies(instance, &["killed by SIGABRT"]);
}

pub(crate) fn death_takes_the_rest_along(world: &dyn World) {
    let bench = Bench::new(world, "rest");
    let (instance, address) = bench.ready(&["--grandchild", "--grandchild-group", "--ignore-term"]);
    get(address, "/exit?code=1");
    bench.dies(instance, &["exit code 1"]);
}

pub(crate) fn stop_during_start(world: &dyn World) {
    let bench = Bench::new(world, "during");
    // At once, so that it may come before there is a process, and a little later.
    for wait in [Duration::ZERO, Duration::from_millis(1), Duration::from_millis(200)] {
        for flags in [&["--no-listen", "--grandchild"][..], &["--start-delay", "100"]] {
            let instance = bench.start(bench.spec(flags));
            std::thread::sleep(wait);
            bench.stop(instance, Span::from_secs(30));
            match bench.next(instance) {
                Event::Stopped { .. } => {}
                // It was faster.
                Event::Ready { .. } => bench.stopped(instance),
                other => panic!("{other:?} instead of Stopped"),
            }
            bench.nothing_left();
        }
    }
    bench.silent(Duration::from_millis(200));
}

pub(crate) fn memory_limit(world: &dyn World) {
    let bench = Bench::with(world, "limit", true);
    if !bench.backend().capabilities().limits {
        return;
    }
    let limited = |flags: &[&str]| {
        let mut spec = bench.spec(flags);
        spec.resources.memory_bytes = 150_000_000;
        spec
    };
    let modest = bench.start(limited(&["--eat", "50000000"]));
    assert!(matches!(bench.next(modest), Event::Ready { .. }));
    let eater = bench.start(limited(&["--eat", "300000000"]));
    let mut event = bench.next(eater);
    if matches!(event, Event::Ready { .. }) {
        event = bench.next(eater);
    }
    let (Event::Died { why, .. } | Event::StartFailed { why, .. }) = event else { panic!("{event:?}") };
    assert!(why.contains("used more memory than its limit") && why.contains(" of 150.0 MB"), "{why}");
    assert_eq!(bench.backend().running(), [modest]);
    bench.has_processes(1);
}

pub(crate) fn shutdown(world: &dyn World) {
    let bench = Bench::new(world, "shutdown");
    let (obedient, _) = bench.ready(&[]);
    let (stubborn, _) = bench.ready(&["--ignore-term"]);
    let starting = bench.start(bench.spec(&["--no-listen"]));
    bench.backend().shutdown(Span::from_secs(60));
    bench.stopped(obedient);
    bench.stopped(starting);
    assert_eq!(bench.backend().running(), [stubborn]);
    bench.fails_while_shutting_down();
    // A second, less patient one hastens the first.
    bench.backend().shutdown(Span::ZERO);
    bench.stopped(stubborn);
    bench.nothing_left();
}

pub(crate) fn drop_leaves_nothing(world: &dyn World) {
    if !world.ends_with_its_backend() {
        return;
    }
    let mut bench = Bench::new(world, "drop");
    bench.ready(&["--ignore-term", "--grandchild"]);
    bench.start(ServiceSpec { start_timeout: Span::from_secs(60), ..bench.spec(&["--no-listen"]) });
    bench.backend = None;
    bench.nothing_left();
}

impl Bench<'_> {
    fn fails_while_shutting_down(&self) {
        let late = self.start(self.spec(&[]));
        match self.next(late) {
            Event::StartFailed { why, .. } => assert!(why.contains("shutting down"), "{why}"),
            other => panic!("{other:?} instead of StartFailed"),
        }
    }
}
