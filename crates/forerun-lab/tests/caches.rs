//! Caches on public key traces, against published figures and against each other. The traces are not part of the repository: they
//! are looked for in the folder that `FORERUN_SHARED` names, else in `../shared` beside the checkout.

use forerun_cache::{Cache, Key, LARGEST_PART, Limits, Memory, Store as _};
use forerun_lab::{
    CacheRival, CacheSize, Holds, Keep, replay_keep, replay_prefetch, replay_rival, room_beside_prefetch,
};
use forerun_trace::{Input, KeyFormat, KeyTrace, ReadOptions, read_keys};
use forerun_types::TenantKey;
use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;

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
    let scores = replay_rival(rival, CacheSize::Entries(entries), (trace, 0), &mut |_| {});
    100.0 * scores.expect("a number of keys fits every trace").hit_ratio
}

struct Store {
    cache: Cache<Memory<()>>,
    /// By key; one each if there are none.
    bytes: Option<Arc<[u64]>>,
    largest: u64,
}

impl Store {
    fn takes(&self, key: u32) -> u64 {
        self.bytes.as_ref().map_or(1, |bytes| bytes[key as usize])
    }

    fn put(&mut self, key: u32) {
        let (name, bytes) = (key.to_le_bytes(), self.takes(key));
        if bytes <= self.largest {
            let begun = self.cache.begin();
            self.cache.put(Key { tenant: TenantKey(0), name: &name }, begun, (), bytes);
        }
    }
}

impl Holds for Store {
    fn holds(&self, key: u32) -> bool {
        self.cache.store().peek(Key { tenant: TenantKey(0), name: &key.to_le_bytes() }).is_some()
    }
}

impl Keep for Store {
    fn request(&mut self, key: u32) -> bool {
        let name = key.to_le_bytes();
        if self.cache.get(Key { tenant: TenantKey(0), name: &name }).is_some() {
            return true;
        }
        self.put(key);
        false
    }
}

fn ours(entries: u64, trace: &KeyTrace) -> f64 {
    let mut store =
        Store { cache: Cache::new(Memory::new(Limits::entries(entries), 1), 1, 1), bytes: None, largest: 1 };
    100.0 * replay_keep("forerun", &mut store, (trace, 0), &mut |_| {}).hit_ratio
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

/// Guarantee: on the last two fifths of an access log our store with prefetch finds more than LRU, ARC, S3-FIFO and W-TinyLFU at
/// every size, more than without where the cache is small, and of what is fetched ahead less than a fifth is in vain, but for one
/// size.
#[test]
fn prefetch_is_ahead_of_every_policy_without() {
    let Some(trace) = shared("apache_semicomplete/apache_logs.gz", KeyFormat::AccessLog) else { return };
    let from = trace.requests.len() * 3 / 5;
    let scored = (&trace, from);
    println!("size      prefetch  waste   MB   store  lru    arc    s3fifo tinylfu belady");
    for size in [1_000_000u64, 3_000_000, 10_000_000, 30_000_000, 100_000_000] {
        let units = CacheSize::Bytes(size).units_of(&trace).expect("sizes are told");
        let store = |bytes: u64| {
            let memory = Memory::new(Limits { bytes, entry_bytes: 0 }, 1);
            Store {
                cache: Cache::new(memory, 1, 1),
                bytes: Some(Arc::clone(&units)),
                largest: bytes / LARGEST_PART,
            }
        };
        let with = replay_prefetch(
            "with",
            &mut store(room_beside_prefetch(size)),
            scored,
            (size, &*units),
            &mut |_| {},
        )
        .expect("users");
        let without = replay_keep("without", &mut store(size), scored, &mut |_| {});
        let rivals = CacheRival::ALL.map(|rival| {
            replay_rival(rival, CacheSize::Bytes(size), scored, &mut |_| {}).expect("sizes").hit_ratio
        });
        let fetched = with.prefetch.expect("prefetch is told");
        println!(
            "{size:9} {:.4} {:.3} {:.2} {:.4} {rivals:.4?}",
            with.hit_ratio,
            fetched.waste_ratio,
            fetched.bytes as f64 / 1e6,
            without.hit_ratio
        );
        let best = rivals[..4].iter().copied().fold(0.0, f64::max);
        assert!(with.hit_ratio > best && without.hit_ratio > best, "{size}: the best rival has {best}");
        // Of a large cache the part that is set aside is worth more than what is fetched into it.
        let least = if size <= 10_000_000 { without.hit_ratio } else { without.hit_ratio - 0.01 };
        assert!(with.hit_ratio >= least, "{size}: {} without", without.hit_ratio);
        let most = if size == 3_000_000 { 0.3 } else { 0.2 };
        assert!(fetched.waste_ratio < most, "{size}: {fetched:?}");
    }
}
