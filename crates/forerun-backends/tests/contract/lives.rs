//! Requests that are in flight at the end, and Foreruns beside each other.

use super::bench::{Bench, World, get};
use forerun_types::Span;
use std::time::{Duration, Instant};

pub(crate) fn a_request_in_flight_is_answered(world: &dyn World) {
    let bench = Bench::new(world, "in-flight");
    let (instance, address) = bench.ready(&["--finish"]);
    let began = Instant::now();
    let asking = std::thread::spawn(move || get(address, "/sleep?ms=1500"));
    std::thread::sleep(Duration::from_millis(400));
    bench.stop(instance, Span::from_secs(30));
    bench.stopped(instance);
    assert!(began.elapsed() >= Duration::from_millis(1500), "{:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let answer = asking.join().unwrap();
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(&bench.tag), "{answer}");
    bench.nothing_left();
}

pub(crate) fn owners_leave_each_other_alone(world: &dyn World) {
    let (mut first, second) = (Bench::new(world, "first"), Bench::new(world, "second"));
    // The same ids on purpose.
    let (ours, here) = first.ready(&["--grandchild", "--ignore-term"]);
    let (theirs, there) = second.ready(&["--grandchild"]);
    assert_ne!(here, there);
    first.backend().shutdown(Span::from_millis(300));
    first.stopped(ours);
    first.backend = None;
    first.nothing_left();
    second.has_processes(2);
    assert!(get(there, "/").contains(&second.tag));
    // Nor does the beginning of one touch what another has.
    let third = Bench::new(world, "third");
    let (_, _) = third.ready(&[]);
    assert!(get(there, "/").contains(&second.tag));
    second.silent(Duration::from_millis(300));
    assert_eq!(second.backend().running(), [theirs]);
}
