//! Caches on public key traces, against published figures and against each other. The traces are not part of the repository: they
//! are looked for in the folder that `FORERUN_SHARED` names, else in `../shared` beside the checkout.

use forerun_cache::{Cache, Key, Limits, Memory};
use forerun_lab::{CacheRival, CacheSize, Keep, replay_keep, replay_rival};
use forerun_trace::{Input, KeyFormat, KeyTrace, ReadOptions, read_keys};
use forerun_types::TenantKey;
use std::io::Write;
use std::path::PathBuf;

/// A trace of the shared data; `None`, and a word about it, if it is not there.
fn shared(path: &str, format: KeyFormat) -> Option<KeyTrace> {
    let root = std::env::var_os("FORERUN_SHARED")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared"), PathBuf::from);
    let file = root.join("data").join(path);
    if !file.exists() {
        // Straight to standard error: the test harness would swallow a print of a test that passes.
        let _ = writeln!(std::io::stderr(), "SKIPPED: {} is not there; set FORERUN_SHARED", file.display());
        return None;
    }
    let options = ReadOptions { strict: true, ..ReadOptions::default() };
    Some(read_keys(&[Input::Path(file)], Some(format), &options, &mut |_| {}).expect("reads"))
}

/// Percent of requests that find their key.
fn rival(rival: CacheRival, entries: u64, trace: &KeyTrace) -> f64 {
    let scores = replay_rival(rival, CacheSize::Entries(entries), trace, &mut |_| {});
    100.0 * scores.expect("a number of keys fits every trace").hit_ratio
}

struct Store(Cache<Memory<()>>);

impl Keep for Store {
    fn request(&mut self, key: u32) -> bool {
        let name = key.to_le_bytes();
        let key = Key { tenant: TenantKey(0), name: &name };
        if self.0.get(key).is_some() {
            return true;
        }
        let begun = self.0.begin();
        self.0.put(key, begun, (), 1);
        false
    }
}

fn ours(entries: u64, trace: &KeyTrace) -> f64 {
    let mut store = Store(Cache::new(Memory::new(Limits::entries(entries), 1), 1, 1));
    100.0 * replay_keep("forerun", &mut store, trace, &mut |_| {}).hit_ratio
}

/// Guarantee: LRU and ARC have the hit ratios that ARC's paper prints for these traces (FAST '03, LRU and ARC at a glance).
#[test]
fn the_paper_of_arc() {
    for (name, requests, keys, lru, arc) in
        [("P3", 3_912_296, 762_543, 3.57, 17.12), ("P6", 12_672_123, 773_770, 4.24, 23.84)]
    {
        let Some(trace) = shared(&format!("cache_arc/{name}.lis.zst"), KeyFormat::Arc) else { return };
        assert_eq!((trace.requests.len(), trace.keys), (requests, keys));
        for (policy, expect) in [(CacheRival::Lru, lru), (CacheRival::Arc, arc)] {
            let measured = rival(policy, 32_768, &trace);
            assert!(
                (measured - expect).abs() < 0.015,
                "{name} {policy:?}: {measured:.3}, published {expect}"
            );
        }
    }
}

/// Guarantee: on these traces our store is within a point of the best of ARC, S3-FIFO and W-TinyLFU.
#[test]
fn our_store_beside_the_rivals() {
    for (path, format, sizes) in [
        ("cache_caffeine/lirs_cs.trace.gz", KeyFormat::Lirs, &[100, 250, 500, 1_000][..]),
        ("cache_caffeine/lirs_loop.trace.gz", KeyFormat::Lirs, &[100, 500, 1_000]),
        ("cache_caffeine/lirs_multi1.trace.gz", KeyFormat::Lirs, &[100, 1_000, 2_000]),
        ("cache_caffeine/lirs_2_pools.trace.gz", KeyFormat::Lirs, &[100, 500, 1_000, 4_000]),
        ("cache_caffeine/corda_trace_vaultservice.gz", KeyFormat::I64, &[512, 4_096, 16_384]),
        ("mooncake/conversation_trace.jsonl.gz", KeyFormat::Mooncake, &[1_000, 4_000, 16_000, 64_000]),
        ("cache_arc/P3.lis.zst", KeyFormat::Arc, &[4_096, 32_768]),
    ] {
        let Some(trace) = shared(path, format) else { return };
        for &size in sizes {
            let rivals = [CacheRival::Arc, CacheRival::S3Fifo, CacheRival::WTinyLfu];
            let best = rivals.map(|policy| rival(policy, size, &trace)).into_iter().fold(0.0, f64::max);
            let (ours, optimum) = (ours(size, &trace), rival(CacheRival::Belady, size, &trace));
            assert!(ours >= best - 1.0, "{path} at {size}: ours {ours:.2}, the best rival {best:.2}");
            assert!(
                ours <= optimum && best <= optimum,
                "{path} at {size}: more than the optimum {optimum:.2}"
            );
        }
    }
}
