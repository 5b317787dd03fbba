//! What orders mean, given once, twice, late or by mistake.

use super::bench::{Bench, World};
use forerun_backends::{OrderError, StartOrder, StopOrder};
use forerun_types::{Event, Generation, InstanceId, ServiceSpec, Span};
use std::sync::Arc;
use std::time::{Duration, Instant};

fn start(bench: &Bench<'_>, id: u64, generation: u64, spec: &Arc<ServiceSpec>) -> Result<(), OrderError> {
    let (instance, generation) = (InstanceId(id), Generation(generation));
    bench.backend().start(StartOrder { instance, generation, spec: Arc::clone(spec) })
}

fn stop(bench: &Bench<'_>, id: u64, generation: u64) -> Result<(), OrderError> {
    let (instance, generation) = (InstanceId(id), Generation(generation));
    bench.backend().stop(StopOrder { instance, generation, grace: Span::from_secs(30) })
}

pub(crate) fn repeated_orders_change_nothing(world: &dyn World) {
    let bench = Bench::new(world, "repeated");
    let spec = Arc::new(bench.spec(&[]));
    let id = InstanceId(5);
    for _ in 0..3 {
        start(&bench, 5, 1, &spec).unwrap();
    }
    assert!(matches!(bench.next(id), Event::Ready { .. }));
    start(&bench, 5, 2, &spec).unwrap();
    bench.has_processes(1);
    for _ in 0..3 {
        stop(&bench, 5, 2).unwrap();
    }
    bench.stopped(id);
    start(&bench, 5, 3, &spec).unwrap();
    stop(&bench, 5, 3).unwrap();
    bench.silent(Duration::from_millis(400));
    bench.nothing_left();
}

pub(crate) fn older_generations_are_refused(world: &dyn World) {
    let bench = Bench::new(world, "older");
    let spec = Arc::new(bench.spec(&[]));
    start(&bench, 5, 7, &spec).unwrap();
    let stale = |ordered| {
        let (ordered, obeyed) = (Generation(ordered), Generation(7));
        Err(OrderError::Stale { instance: InstanceId(5), ordered, obeyed })
    };
    assert_eq!(stop(&bench, 5, 6), stale(6));
    assert_eq!(start(&bench, 5, 1, &spec), stale(1));
    assert!(matches!(bench.next(InstanceId(5)), Event::Ready { .. }));
    bench.silent(Duration::from_millis(300));
    bench.has_processes(1);
    stop(&bench, 5, 7).unwrap();
    bench.stopped(InstanceId(5));
}

pub(crate) fn stop_of_a_stranger(world: &dyn World) {
    let bench = Bench::new(world, "stranger");
    stop(&bench, 9, 1).unwrap();
    bench.stopped(InstanceId(9));
    // The start that it overtook.
    start(&bench, 9, 1, &Arc::new(bench.spec(&[]))).unwrap();
    bench.silent(Duration::from_millis(300));
    bench.has_processes(0);
}

pub(crate) fn what_it_cannot_do(world: &dyn World) {
    let bench = Bench::new(world, "cannot");
    let can = bench.backend().capabilities();
    let (instance, generation) = (InstanceId(1), Generation(1));
    let unsupported = |result| matches!(result, Err(OrderError::Unsupported { .. }));
    assert_eq!(unsupported(bench.backend().pause(instance, generation)), !can.pause);
    assert_eq!(unsupported(bench.backend().resume(instance, generation)), !can.pause);
    let order = || StartOrder { instance, generation, spec: Arc::new(bench.spec(&[])) };
    assert_eq!(unsupported(bench.backend().specialise(order())), !can.specialise);
    assert_eq!(unsupported(bench.backend().adopt(order(), "none")), !can.adopt);
}

pub(crate) fn orders_do_not_wait(world: &dyn World) {
    let bench = Bench::new(world, "wait");
    let spec = Arc::new(bench.spec(&["--start-delay", "500", "--ignore-term"]));
    let began = Instant::now();
    for id in 0..20 {
        start(&bench, id, 1, &spec).unwrap();
        stop(&bench, id, 1).unwrap();
    }
    bench.backend().shutdown(Span::from_secs(1));
    // Whatever waits for a process waits longer.
    assert!(began.elapsed() < Duration::from_millis(400), "{:?}", began.elapsed());
    (0..20).for_each(|id| bench.stopped(InstanceId(id)));
    bench.nothing_left();
}
