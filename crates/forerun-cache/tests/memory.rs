//! The memory tier stays within its bounds, keeps whole keys apart, and is the same every time.

use forerun_cache::{Kept, Key, Limits, Memory, Stamp, Store};
use forerun_types::TenantKey;
use proptest::prelude::*;

fn key(name: &[u8]) -> Key<'_> {
    Key { tenant: TenantKey(0), name }
}

#[test]
fn an_entry_is_found_under_its_whole_key() {
    let mut memory = Memory::new(Limits::of(1 << 20), 1);
    assert_eq!(memory.put(key(b"/a"), Stamp(1), "a", 10), Kept::Yes);
    assert_eq!(memory.get(key(b"/a")), Some((Stamp(1), &"a")));
    let other = Key { tenant: TenantKey(1), name: b"/a" };
    assert_eq!(memory.get(other), None);
    assert_eq!(memory.get(key(b"/b")), None);
    assert!(!memory.remove(other));
    assert!(memory.remove(key(b"/a")));
    assert_eq!(memory.get(key(b"/a")), None);
    assert_eq!((memory.len(), memory.bytes()), (0, 0));
}

#[test]
fn what_is_too_large_is_refused_and_drives_nobody_out() {
    let mut memory = Memory::new(Limits::of(16_000), 1);
    assert_eq!(memory.put(key(b"/a"), Stamp(1), 1, 1_000), Kept::Yes);
    // More than an eighth of all, with what it takes beside its value.
    assert_eq!(memory.put(key(b"/large"), Stamp(2), 2, 1_600), Kept::TooLarge);
    assert_eq!(memory.put(key(b"/huge"), Stamp(2), 2, 16_000), Kept::TooLarge);
    assert_eq!(memory.put(key(b"/endless"), Stamp(2), 2, u64::MAX), Kept::TooLarge);
    assert_eq!(memory.get(key(b"/a")), Some((Stamp(1), &1)));
    // In place of a smaller one it takes that one along: what is there would be the old one.
    assert_eq!(memory.put(key(b"/a"), Stamp(3), 3, 16_000), Kept::TooLarge);
    assert_eq!(memory.get(key(b"/a")), None);
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn empty_entries_are_bounded_in_number() {
    let mut memory = Memory::new(Limits::of(100_000), 1);
    for n in 0u32..10_000 {
        memory.put(key(&n.to_le_bytes()), Stamp(1), (), 0);
    }
    assert!((1..=250).contains(&memory.len()), "{} entries in 100 kB", memory.len());
    assert!(memory.bytes() <= 100_000);
}

#[test]
fn a_scan_does_not_drive_out_what_is_asked_for_often() {
    let mut memory = Memory::new(Limits::entries(100), 1);
    let ask = |memory: &mut Memory<()>, n: u32| {
        let name = n.to_le_bytes();
        let hit = memory.get(key(&name)).is_some();
        if !hit {
            memory.put(key(&name), Stamp(1), (), 1);
        }
        hit
    };
    for round in 0..20 {
        for n in 0..50 {
            ask(&mut memory, n);
        }
        for n in 0..200 {
            ask(&mut memory, 1_000 + round * 200 + n);
        }
    }
    let hits = (0..50).filter(|n| ask(&mut memory, *n)).count();
    assert!(hits >= 45, "{hits} of 50 are left after the scans");
}

#[derive(Clone, Copy, Debug)]
enum Call {
    Get(u8),
    Put(u8, u16),
    Remove(u8),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let call = prop_oneof![
        4 => (0u8..80).prop_map(Call::Get),
        4 => (0u8..80, 0u16..3_000).prop_map(|(n, bytes)| Call::Put(n, bytes)),
        1 => (0u8..80).prop_map(Call::Remove),
    ];
    prop::collection::vec(call, 0..3_000)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Against a plain map of all that was ever put: what is there is what was put last, bounds hold after every call, and a
    /// second store does the same.
    #[test]
    fn any_calls_keep_the_bounds_and_the_last_word(calls in calls(), capacity in 1u64..20_000, seed in any::<u64>()) {
        let limits = Limits { bytes: capacity, entry_bytes: seed % 3 * 50 };
        let (mut memory, mut twin) = (Memory::new(limits, seed), Memory::new(limits, seed));
        let mut last = std::collections::BTreeMap::new();
        for (at, call) in calls.into_iter().enumerate() {
            let stamp = Stamp(at as u64);
            match call {
                Call::Get(n) => {
                    let got = memory.get(key(&[n])).map(|(stamp, value)| (stamp, *value));
                    prop_assert_eq!(got, twin.get(key(&[n])).map(|(stamp, value)| (stamp, *value)));
                    if let Some(got) = got {
                        prop_assert_eq!(Some(&got), last.get(&n));
                    }
                }
                Call::Put(n, bytes) => {
                    let kept = memory.put(key(&[n]), stamp, at, u64::from(bytes));
                    prop_assert_eq!(kept, twin.put(key(&[n]), stamp, at, u64::from(bytes)));
                    prop_assert_eq!(memory.peek(key(&[n])).is_some(), kept == Kept::Yes);
                    last.insert(n, (stamp, at));
                }
                Call::Remove(n) => {
                    let removed = memory.remove(key(&[n]));
                    prop_assert_eq!(removed, twin.remove(key(&[n])));
                    last.remove(&n);
                }
            }
            prop_assert!(memory.bytes() <= capacity);
            prop_assert_eq!(memory.bytes() == 0, memory.is_empty());
            prop_assert_eq!((memory.bytes(), memory.len()), (twin.bytes(), twin.len()));
        }
    }
}
