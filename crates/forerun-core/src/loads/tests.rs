use super::*;

const A: ServiceId = ServiceId(3);
const MINUTE: u64 = 60_000_000;

/// Lets so many minutes pass, each with the load that `load` gives for it.
fn run(loads: &mut Loads, minutes: std::ops::Range<u64>, load: impl Fn(u64) -> Option<u32>) {
    for minute in minutes {
        let at = Time((1_000_000 + minute) * MINUTE);
        loads.pass(at, true);
        while loads.left > 0 {
            loads.tick(loads.next_tick, |_| Span::from_secs(30));
        }
        match load(minute) {
            Some(n) => {
                loads.seen(A, n, 0);
                loads.pass(at + STEP, true);
            }
            None => loads.pass(at + STEP, false),
        }
    }
}

fn on() -> Loads {
    let mut loads = Loads::default();
    loads.switch_on();
    loads
}

/// Every ten minutes five requests at a time, else one.
fn timer(minute: u64) -> Option<u32> {
    Some(if minute.is_multiple_of(10) { 5 } else { 1 })
}

#[test]
fn a_rhythm_is_foreseen_with_its_quantiles() {
    let mut loads = on();
    run(&mut loads, 0..400, timer);
    loads.tick(loads.next_tick, |_| Span::from_secs(30));
    let told = loads.forecast(A).expect("a forecast");
    assert_eq!((told.steps.len(), told.step), (5, STEP));
    // Minute 400 is the next.
    assert_eq!(told.from, Time(1_000_400 * MINUTE));
    assert!(told.steps[0][4] > 4.0, "{:?}", told.steps);
    assert!(told.steps[2][MEDIAN] < 2.0, "{:?}", told.steps);
    for step in &told.steps {
        assert!(step.is_sorted(), "{step:?}");
    }
    let coverage = told.coverage.expect("enough steps");
    assert!(coverage[4] > 0.9 && coverage[0] < coverage[4], "{coverage:?}");
}

#[test]
fn what_nobody_told_is_not_zero() {
    let (mut whole, mut gaps) = (on(), on());
    run(&mut whole, 0..300, |_| Some(7));
    run(&mut gaps, 0..300, |minute| if (200..260).contains(&minute) { None } else { Some(7) });
    for loads in [&mut whole, &mut gaps] {
        loads.tick(loads.next_tick, |_| Span::from_secs(30));
    }
    let median = |loads: &Loads| loads.forecast(A).expect("a forecast").steps[0][MEDIAN];
    assert!((median(&whole) - 7.0).abs() < 0.1 && (median(&gaps) - 7.0).abs() < 0.1);
}

#[test]
fn a_model_elsewhere_is_believed_as_far_as_it_was_right() {
    let weight = |right: bool| {
        let mut loads = on();
        // A load that no rhythm tells.
        let load = |minute: u64| (minute.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 60) as u32;
        for minute in 0..600 {
            let at = Time((1_000_000 + minute) * MINUTE);
            let says = |i: u64| if right { load(minute + i) } else { 40 };
            let told: Vec<[u32; 5]> = (0..5).map(|i| [says(i) * 1_000; 5]).collect();
            loads.outside(A, at, STEP, &told);
            run(&mut loads, minute..minute + 1, |m| Some(load(m)));
        }
        let told = loads.forecast(A).expect("a forecast");
        told.weights.iter().find(|(name, _)| *name == "outside").map_or(0.0, |w| w.1)
    };
    let (right, wrong) = (weight(true), weight(false));
    assert!(right > 0.8 && wrong < 0.1, "{right} {wrong}");
}

#[test]
fn what_is_kept_is_bounded_however_many_there_are() {
    let mut loads = on();
    for id in 0..4_000 {
        loads.seen(ServiceId(id), 1, 1);
    }
    loads.pass(Time(MINUTE), true);
    loads.pass(Time(100_000 * MINUTE), true);
    while loads.left > 0 {
        loads.tick(loads.next_tick, |_| Span::ZERO);
    }
    let kept: usize = loads.services.iter().flatten().map(|l| l.values.len()).sum();
    assert!(kept <= 4_000 * KEPT_LEAST * 9 / 8, "{kept}");
    loads.gone(ServiceId(7));
    loads.gone(ServiceId(7));
    assert_eq!(loads.count, 3_999);
}

#[test]
fn services_are_forecast_some_at_a_time() {
    let mut loads = on();
    for minute in 0..20 {
        for id in 0..100 {
            loads.seen(ServiceId(id), 1 + id % 3, 0);
        }
        loads.pass(Time((50 + minute) * MINUTE), true);
    }
    let mut ticks = 0;
    while loads.next_due() < Time(70 * MINUTE) {
        loads.tick(loads.next_due(), |_| Span::ZERO);
        ticks += 1;
    }
    assert_eq!(ticks, 100_usize.div_ceil(PER_TICK));
    assert!((0..100).all(|id| loads.forecast(ServiceId(id)).is_some()));
}

#[test]
fn switched_off_it_costs_nothing() {
    let mut loads = Loads::default();
    loads.seen(A, 1, 1);
    loads.outside(A, Time(1), STEP, &[[1; 5]]);
    loads.pass(Time(10 * MINUTE), true);
    assert_eq!((loads.next_due(), loads.services.len()), (Time::NEVER, 0));
}

#[test]
fn what_was_not_noted_in_time_is_unknown() {
    let mut loads = on();
    loads.pass(Time(10 * MINUTE), true);
    loads.seen(A, 4, 4);
    // Nobody has a turn for longer than ended steps are kept.
    for minute in 11..=10 + ENDED_KEPT as u64 + 20 {
        loads.pass(Time(minute * MINUTE), true);
    }
    loads.seen(A, 4, 4);
    let values = &loads.get(A).expect("it was told of").values;
    assert_eq!(values.len(), ENDED_KEPT + 20);
    assert_eq!(values[..20], [UNKNOWN; 20]);
    assert_eq!(values[20..], [4; ENDED_KEPT]);
}

#[test]
fn more_services_than_a_step_has_turns_for_all_have_theirs() {
    let mut loads = on();
    let services = 100;
    let told = |loads: &Loads| (0..services).filter(|id| loads.forecast(ServiceId(*id)).is_some()).count();
    for minute in 0..30 {
        for id in 0..services {
            loads.seen(ServiceId(id), 1, 1);
        }
        loads.pass(Time((50 + minute) * MINUTE), true);
        // A fifth of the turns that all would need.
        for _ in 0..3 {
            loads.tick(loads.next_tick, |_| Span::ZERO);
        }
    }
    assert_eq!(told(&loads), services as usize);
}
