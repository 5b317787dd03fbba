//! The offline optimum: what is asked for again last goes, and a newcomer that is asked for later than all stays out.
//! L. Belady, "A study of replacement algorithms for a virtual-storage computer", IBM Systems Journal 5(2), 1966. No policy has
//! more hits where all entries are of one size; with sizes it is a good plan and no bound.

use super::{Key, NONE};
use std::collections::BinaryHeap;

/// By request: whether it finds its key, in a cache of `capacity` that knows what is to come.
pub(super) fn hits(requests: &[Key], sizes: &[u64], capacity: u64, mut told: impl FnMut(usize, bool)) {
    let next = next_uses(requests, sizes.len());
    // By key: when it is asked for again, NONE if it is not there.
    let mut held = vec![NONE; sizes.len()];
    let mut heap: BinaryHeap<(u32, Key)> = BinaryHeap::new();
    let (mut units, mut entries) = (0, 0usize);
    for (at, &key) in requests.iter().enumerate() {
        let (size, again) = (sizes[key as usize], next[at]);
        let hit = held[key as usize] != NONE;
        told(at, hit);
        if hit {
            units -= size;
            entries -= 1;
            held[key as usize] = NONE;
        }
        if again == NONE || size > capacity {
            continue;
        }
        held[key as usize] = again;
        heap.push((again, key));
        units += size;
        entries += 1;
        while units > capacity {
            let Some((when, last)) = heap.pop() else { break };
            // What was asked for since has a later word of its own in the heap.
            if held[last as usize] == when {
                held[last as usize] = NONE;
                units -= sizes[last as usize];
                entries -= 1;
            }
        }
        if heap.len() > 4 * entries + 1024 {
            heap.retain(|(when, key)| held[*key as usize] == *when);
        }
    }
}

/// For each request the place of the next one of the same key, NONE where there is none.
fn next_uses(requests: &[Key], keys: usize) -> Vec<u32> {
    let mut seen = vec![NONE; keys];
    let mut next = vec![NONE; requests.len()];
    for (at, &key) in requests.iter().enumerate().rev() {
        next[at] = std::mem::replace(&mut seen[key as usize], at as u32);
    }
    next
}
