use super::*;

fn trace(requests: &[u32], bytes: Option<&[u64]>) -> KeyTrace {
    let keys = requests.iter().max().map_or(0, |m| *m as usize + 1);
    KeyTrace { requests: requests.to_vec(), keys, bytes: bytes.map(<[u64]>::to_vec), ..KeyTrace::default() }
}

/// Hits (`+`) and misses (`.`) of each request.
fn run(rival: CacheRival, capacity: u64, requests: &[u32], sizes: Option<&[u64]>) -> String {
    let trace = trace(requests, sizes);
    let size = if sizes.is_some() { CacheSize::Bytes(capacity) } else { CacheSize::Entries(capacity) };
    let units = size.units_of(&trace).unwrap();
    let mut out = String::new();
    let mut told = |hit| out.push(if hit { '+' } else { '.' });
    let mut keep: Box<dyn Keep> = match rival {
        CacheRival::Lru => Box::new(lru::Lru::new(capacity, units)),
        CacheRival::Arc => Box::new(arc::ArcCache::new(capacity, units)),
        CacheRival::S3Fifo => Box::new(s3fifo::S3Fifo::new(capacity, units)),
        CacheRival::WTinyLfu => Box::new(tinylfu::TinyLfu::new(capacity, capacity, units)),
        CacheRival::Belady => {
            belady::hits(&trace.requests, &units, capacity, |_, hit| told(hit));
            return out;
        }
    };
    trace.requests.iter().for_each(|key| told(keep.request(*key)));
    out
}

#[test]
fn least_recently_used_by_hand() {
    assert_eq!(run(CacheRival::Lru, 2, &[0, 1, 0, 2, 1, 0, 0], None), "..+...+");
    // Of 10 bytes: 0 takes 4, 1 takes 6, 2 takes 7 and drives both out, 3 is larger than all.
    assert_eq!(run(CacheRival::Lru, 10, &[0, 1, 0, 2, 0, 3, 3, 2], Some(&[4, 6, 7, 11])), "..+.....");
}

#[test]
fn adaptive_replacement_by_hand() {
    // 0 is asked for twice and moves to T2. A scan of 1, 2, 3 passes through T1 and leaves 0.
    assert_eq!(run(CacheRival::Arc, 2, &[0, 0, 1, 2, 3, 0], None), ".+...+");
    // 1 fell out of T1 into B1: asked for again it is a miss, moves the target up and goes to T2, from which 0 falls out.
    assert_eq!(run(CacheRival::Arc, 2, &[0, 0, 1, 2, 1, 2, 1, 0], None), ".+...++.");
}

#[test]
fn three_queues_by_hand() {
    // Capacity 4: the small queue is 1, the main queue 3. A scan goes through the small queue and leaves what was asked for
    // three times in the main queue.
    assert_eq!(run(CacheRival::S3Fifo, 4, &[0, 0, 0, 1, 2, 3, 4, 5, 6, 0], None), ".++......+");
    // 0 is asked for once and again too seldom: it leaves for the ghost queue, and comes back into the main one, where a scan
    // does not reach it.
    assert_eq!(run(CacheRival::S3Fifo, 4, &[0, 1, 2, 3, 4, 0, 5, 6, 7, 0], None), ".........+");
}

#[test]
fn the_door_of_frequency_by_hand() {
    // Capacity 3: a window of 1. 0 and 1 are asked for often; a scan of newcomers, each asked for once, does not get in.
    let requests = [0, 1, 0, 1, 0, 1, 2, 3, 4, 5, 6, 7, 8, 0, 1];
    assert_eq!(run(CacheRival::WTinyLfu, 3, &requests, None), "..++++.......++");
}

#[test]
fn the_optimum_by_hand() {
    // Belady's own kind of example: of three, keep what comes soonest; the newcomer that comes latest stays out.
    assert_eq!(run(CacheRival::Belady, 2, &[0, 1, 2, 0, 1, 2, 0], None), "...++.+");
    assert_eq!(run(CacheRival::Belady, 1, &[0, 1, 0], None), "..+");
    assert_eq!(run(CacheRival::Belady, 10, &[0, 1, 0, 1, 2, 2], Some(&[5, 6, 11])), "..+...");
}

/// The most hits that any choice could have, by trying them all.
fn exhaustive(requests: &[u32], held: Vec<u32>, capacity: usize) -> u64 {
    let Some((key, rest)) = requests.split_first() else { return 0 };
    if held.contains(key) {
        return 1 + exhaustive(rest, held, capacity);
    }
    let stays_out = exhaustive(rest, held.clone(), capacity);
    if held.len() < capacity {
        let mut with = held;
        with.push(*key);
        return stays_out.max(exhaustive(rest, with, capacity));
    }
    (0..held.len())
        .map(|out| {
            let mut with = held.clone();
            with[out] = *key;
            exhaustive(rest, with, capacity)
        })
        .fold(stays_out, u64::max)
}

/// A stream of draws, so that the test is the same each time.
fn draws(seed: u64) -> impl FnMut(u64) -> u64 {
    let mut state = seed;
    move |below| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) % below
    }
}

#[test]
fn nothing_beats_the_optimum_and_it_is_attained() {
    let mut draw = draws(1);
    for _ in 0..200 {
        let capacity = 1 + draw(3);
        let requests: Vec<u32> = (0..9).map(|_| draw(5) as u32).collect();
        let optimum = run(CacheRival::Belady, capacity, &requests, None).matches('+').count() as u64;
        assert_eq!(optimum, exhaustive(&requests, Vec::new(), capacity as usize), "{requests:?} {capacity}");
        for rival in CacheRival::ALL {
            let hits = run(rival, capacity, &requests, None).matches('+').count() as u64;
            assert!(hits <= optimum, "{rival:?} {requests:?}");
        }
    }
}

#[test]
fn scores_count_requests_and_bytes() {
    let trace = trace(&[0, 1, 0, 0], Some(&[10, 30]));
    let scores = replay_rival(CacheRival::Lru, CacheSize::Bytes(40), (&trace, 0), &mut |_| {}).unwrap();
    assert_eq!((scores.requests, scores.hits, scores.hit_ratio), (4, 2, 0.5));
    assert_eq!(scores.byte_hit_ratio, Some(20.0 / 60.0));
    let unsized_trace = KeyTrace { bytes: None, ..trace };
    assert!(replay_rival(CacheRival::Lru, CacheSize::Bytes(40), (&unsized_trace, 0), &mut |_| {}).is_none());
    let scores =
        replay_rival(CacheRival::Lru, CacheSize::Entries(1), (&unsized_trace, 0), &mut |_| {}).unwrap();
    assert_eq!((scores.hits, scores.byte_hit_ratio), (1, None));
}
