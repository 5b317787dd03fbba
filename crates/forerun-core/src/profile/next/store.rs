//! What has followed each context: a hash table within a bound on memory, a cache line for each context, and blocks
//! beside it for those that many things follow. What tells keys apart and how much each would be missed
//! stands beside it once more, in few bytes: most contexts that are asked for are not there, and of those that are counted
//! many are new.

use super::profile::{Context, Contexts};
use super::slots::Slots;
use super::windows::{ERAS, WINDOW, Window, Worth, mark, place};
use crate::profile::table::spread;
use serde::{Deserialize, Serialize};

/// Followers that stand in the slot itself: most contexts never see more.
const INLINE: usize = 4;
/// Followers that a block of each class holds.
const BLOCK: [usize; 3] = [16, 64, 256];
const NONE: u32 = u32::MAX;
/// Of the memory: what slots get, the old half and the new whole while they grow; blocks of each class share the rest.
const SLOTS_SHARE: f64 = 0.6;
/// A count that reaches this halves all counts of its context.
const COUNT_MAX: u16 = 60_000;
/// A slot and what stands of it in its window.
const SLOT_BYTES: usize = size_of::<Slot>() + size_of::<Window>() / WINDOW;

/// One context, in one cache line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[repr(align(64))]
pub(super) struct Slot {
    /// 0 is a free slot.
    key: u64,
    /// Whose own context it is; 0 is everyone's.
    owner: u64,
    /// The sum of all counts that are held.
    total: u32,
    /// What followed last, and how often in a row.
    pub(super) last: u32,
    pub(super) streak: u16,
    /// Followers held.
    len: u16,
    /// Class (upper two bits) and number of the block that holds them; [`NONE`]: the slot itself.
    block: u32,
    items: [u32; INLINE],
    counts: [u16; INLINE],
}

const FREE: Slot = Slot {
    key: 0,
    owner: 0,
    total: 0,
    last: NONE,
    streak: 0,
    len: 0,
    block: NONE,
    items: [0; INLINE],
    counts: [0; INLINE],
};

impl Slot {
    pub(super) fn total(&self) -> u32 {
        self.total
    }

    pub(super) fn distinct(&self) -> usize {
        usize::from(self.len)
    }
}

/// Blocks of one class.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Blocks {
    items: Vec<u32>,
    counts: Vec<u16>,
    free: Vec<u32>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Store {
    windows: Vec<Window>,
    slots: Slots<Slot>,
    blocks: [Blocks; 3],
    blocks_max: [usize; 3],
    len: usize,
    slots_max: usize,
    /// Eras so far: the table was counted in as often as it has slots in [`ERAS`] of them. And how often it was in this one.
    era: u32,
    clock: usize,
}

impl Store {
    /// A store that never takes more than about `bytes_max`.
    pub(super) fn new(bytes_max: usize) -> Self {
        let fit = (bytes_max as f64 * SLOTS_SHARE) as usize / SLOT_BYTES;
        let slots_max = ((fit * 2 / 3).max(1) + 1).next_power_of_two() / 2;
        let mut blocks_max = [0; 3];
        for (max, len) in blocks_max.iter_mut().zip(BLOCK) {
            let each = bytes_max as f64 * (1.0 - SLOTS_SHARE) / BLOCK.len() as f64;
            *max = each as usize / (len * (size_of::<u32>() + size_of::<u16>()));
        }
        Self {
            windows: vec![Window::default(); Slots::<Slot>::MIN / WINDOW],
            slots: Slots::new(FREE),
            blocks: Default::default(),
            blocks_max,
            len: 0,
            slots_max: slots_max.max(Slots::<Slot>::MIN),
            era: 0,
            clock: 0,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        let blocks: usize = self.blocks.iter().map(|b| b.items.len() * 6).sum();
        self.slots.len() * SLOT_BYTES + blocks
    }

    fn home(&self, key: u64) -> usize {
        (key as usize) & (self.slots.len() - 1) & !(WINDOW - 1)
    }

    /// The place of a context, good until the next one is made.
    #[inline]
    pub(super) fn find(&self, key: u64) -> Option<usize> {
        let home = self.home(key);
        let marked = self.windows[home / WINDOW].marks.iter().zip(home..);
        let mut places = marked.filter(|(held, _)| **held == mark(key)).map(|(_, at)| at);
        places.find(|at| self.slots[*at].key == key)
    }

    /// The places of those contexts that are there, with their numbers. All are reached for at once, marks first, then
    /// slots, then blocks: the memory is slow, and they do not depend on one another. No branch looks at what one of
    /// them says before all are on their way. Of the first `nested` none is there if the one before is not.
    pub(super) fn find_all<const N: usize>(
        &self,
        keys: &[u64; N],
        nested: usize,
        out: &mut Vec<(usize, usize)>,
    ) {
        let homes = keys.map(|key| self.home(key));
        let windows = homes.map(|home| self.windows[home / WINDOW].marks);
        let mut places = [(0, 0); N];
        let mut there = 0;
        for (k, key) in keys.iter().enumerate() {
            let (inside, marked) = place(windows[k], mark(*key));
            places[there] = (k, homes[k] + inside);
            there += usize::from(marked & (*key != 0));
        }
        let places = &places[..there];
        // A mark stands for many keys, though two of them hardly ever meet.
        let met = places.iter().fold(true, |met, (k, at)| met & (self.slots[*at].key == keys[*k]));
        out.clear();
        if met {
            out.extend_from_slice(places);
        } else {
            out.extend(places.iter().filter_map(|(k, _)| self.find(keys[*k]).map(|at| (*k, at))));
        }
        // Of those that are nested none is there if the one before is not.
        let mut next = 0;
        out.retain(|(k, _)| {
            let kept = *k >= nested || *k == next;
            next += usize::from(kept);
            kept
        });
        let touched = out.iter().map(|(_, at)| self.touch(*at)).fold(0, |sum, n| sum ^ n);
        std::hint::black_box(touched);
    }

    /// Reaches for the slots that new contexts will take, all at once.
    pub(super) fn expect<const N: usize>(&self, new: impl Iterator<Item = u64>) {
        let (mut places, mut count) = ([0; N], 0);
        for key in new.take(N) {
            let home = self.home(key);
            places[count] = home + self.windows[home / WINDOW].room(self.era);
            count += 1;
        }
        std::hint::black_box(places[..count].iter().fold(0, |sum, at| sum ^ self.slots[*at].block));
    }

    /// Reads what will be read soon.
    #[inline]
    fn touch(&self, at: usize) -> u32 {
        match self.slots[at].block {
            NONE => 0,
            block => {
                let (class, start) = block_at(block);
                self.blocks[class].items[start] ^ u32::from(self.blocks[class].counts[start])
            }
        }
    }

    #[inline]
    pub(super) fn slot(&self, at: usize) -> &Slot {
        &self.slots[at]
    }

    /// What has followed, and how often: the most frequent first.
    #[inline]
    pub(super) fn followers(&self, at: usize) -> (&[u32], &[u16]) {
        let slot = &self.slots[at];
        let len = usize::from(slot.len);
        if slot.block == NONE {
            return (&slot.items[..len], &slot.counts[..len]);
        }
        let (class, start) = block_at(slot.block);
        let blocks = &self.blocks[class];
        (&blocks.items[start..start + len], &blocks.counts[start..start + len])
    }

    /// Counts a follower of a context. `fade` is the total at which its counts are halved.
    /// `place`: where the context was found, if it was and if nothing else is there now.
    pub(super) fn add(&mut self, place: Option<usize>, key: u64, owner: u64, item: u32, fade: u32) {
        self.tick();
        let still = place.filter(|at| self.slots.get(*at).is_some_and(|slot| slot.key == key));
        let at = still.unwrap_or_else(|| self.entry(key, owner));
        let slot = &mut self.slots[at];
        if slot.last == item {
            slot.streak = slot.streak.saturating_add(1);
        } else {
            slot.last = item;
            slot.streak = 1;
        }
        slot.total += 1;
        self.windows[at / WINDOW].worths[at % WINDOW] = Worth::new(self.era, slot.total);
        let full = slot.total >= fade;
        let capacity = if slot.block == NONE { INLINE } else { BLOCK[block_at(slot.block).0] };
        let (items, counts, len) = self.parts(at);
        if let Some(found) = items[..len].iter().position(|i| *i == item) {
            counts[found] += 1;
            let big = counts[found] >= COUNT_MAX;
            rise(items, counts, found);
            if full || big {
                self.fade(at);
            }
            return;
        }
        if len == capacity && !self.grow(at) {
            let (items, counts, len) = self.parts(at);
            let gone = u32::from(counts[len - 1]);
            (items[len - 1], counts[len - 1]) = (item, 1);
            self.slots[at].total -= gone;
        } else {
            let (items, counts, len) = self.parts(at);
            (items[len], counts[len]) = (item, 1);
            self.slots[at].len += 1;
        }
        if full {
            self.fade(at);
        }
    }

    fn tick(&mut self) {
        self.clock += 1;
        if self.clock >= self.slots_max / ERAS as usize {
            (self.era, self.clock) = (self.era.wrapping_add(1), 0);
        }
    }

    fn parts(&mut self, at: usize) -> (&mut [u32], &mut [u16], usize) {
        let slot = &mut self.slots[at];
        let len = usize::from(slot.len);
        if slot.block == NONE {
            return (&mut slot.items, &mut slot.counts, len);
        }
        let (class, start) = block_at(slot.block);
        let blocks = &mut self.blocks[class];
        let end = start + BLOCK[class];
        (&mut blocks.items[start..end], &mut blocks.counts[start..end], len)
    }

    /// Halves all counts of a context; what was seen once is let go, unless all was.
    fn fade(&mut self, at: usize) {
        let (items, counts, len) = self.parts(at);
        let mut left = 0;
        let mut sum = 0u32;
        for i in 0..len {
            let half = if counts[0] > 1 { counts[i] / 2 } else { u16::from(i < len.div_ceil(2)) };
            if half > 0 {
                (items[left], counts[left]) = (items[i], half);
                left += 1;
                sum += u32::from(half);
            }
        }
        let slot = &mut self.slots[at];
        slot.len = left as u16;
        slot.total = sum;
    }

    /// Moves a context into the next class of blocks, if there is room.
    fn grow(&mut self, at: usize) -> bool {
        let from = self.slots[at].block;
        let class = if from == NONE { 0 } else { block_at(from).0 + 1 };
        let Some(&size) = BLOCK.get(class) else { return false };
        let Some(number) = self.take_block(class, size) else { return false };
        let (items, counts) = self.followers(at);
        let len = items.len();
        let mut copy = ([0u32; 256], [0u16; 256]);
        copy.0[..len].copy_from_slice(items);
        copy.1[..len].copy_from_slice(counts);
        let start = number as usize * size;
        self.blocks[class].items[start..start + len].copy_from_slice(&copy.0[..len]);
        self.blocks[class].counts[start..start + len].copy_from_slice(&copy.1[..len]);
        self.free_block(from);
        self.slots[at].block = (class as u32) << 30 | number;
        true
    }

    fn take_block(&mut self, class: usize, size: usize) -> Option<u32> {
        let max = self.blocks_max[class];
        let blocks = &mut self.blocks[class];
        if let Some(number) = blocks.free.pop() {
            return Some(number);
        }
        let number = blocks.items.len() / size;
        if number >= max {
            return None;
        }
        blocks.items.resize(blocks.items.len() + size, 0);
        blocks.counts.resize(blocks.counts.len() + size, 0);
        u32::try_from(number).ok()
    }

    fn free_block(&mut self, block: u32) {
        if block != NONE {
            let (class, start) = block_at(block);
            self.blocks[class].free.push((start / BLOCK[class]) as u32);
        }
    }

    fn entry(&mut self, key: u64, owner: u64) -> usize {
        if let Some(at) = self.find(key) {
            return at;
        }
        let at = self.make_room(key);
        // A free slot is not read: the memory is slow.
        if self.windows[at / WINDOW].marks[at % WINDOW] != 0 {
            self.free_block(self.slots[at].block);
        }
        self.set(at, Slot { key, owner, ..FREE });
        at
    }

    fn set(&mut self, at: usize, slot: Slot) {
        self.windows[at / WINDOW].marks[at % WINDOW] = if slot.key == 0 { 0 } else { mark(slot.key) };
        self.slots[at] = slot;
    }

    /// A slot for a new key: a free one, one of a larger table, or that of the neighbour that would be missed least.
    fn make_room(&mut self, key: u64) -> usize {
        loop {
            let home = self.home(key);
            let window = &self.windows[home / WINDOW];
            let place = window.room(self.era);
            let free = window.marks[place] == 0;
            if free || self.slots.len() >= self.slots_max {
                self.len += usize::from(free);
                return home + place;
            }
            self.double();
        }
    }

    /// Each window is split over two: the one of old and one in the new half.
    fn double(&mut self) {
        let old = self.slots.len();
        self.slots.double(FREE);
        self.windows.resize(self.slots.len() / WINDOW, Window::default());
        for at in 0..old {
            let slot = self.slots[at];
            let home = self.home(slot.key);
            if slot.key == 0 || home < old {
                continue;
            }
            // Of four at most there is always room.
            if let (place, true) = place(self.windows[home / WINDOW].marks, 0) {
                let to = home + place;
                self.set(to, slot);
                self.windows[to / WINDOW].worths[to % WINDOW] = self.windows[at / WINDOW].worths[at % WINDOW];
                self.set(at, FREE);
            }
        }
    }

    /// What is one owner's.
    pub(super) fn owned(&self, owner: u64) -> Contexts {
        let mut out = Contexts::default();
        for at in
            (0..self.slots.len()).filter(|at| self.slots[*at].key != 0 && self.slots[*at].owner == owner)
        {
            let slot = &self.slots[at];
            let (items, counts) = self.followers(at);
            let followers = items.iter().copied().zip(counts.iter().copied()).collect();
            out.insert(slot.key, Context { last: slot.last, streak: slot.streak, followers });
        }
        out
    }

    /// Puts contexts in the place of all that is one owner's. Of followers that have no room the rarest are let go.
    pub(super) fn replace(&mut self, owner: u64, contexts: &Contexts) {
        self.forget(owner);
        for (key, context) in contexts.iter().filter(|(key, _)| *key != 0) {
            self.tick();
            let at = self.entry(key, owner);
            let slot = &mut self.slots[at];
            (slot.last, slot.streak) = (context.last, context.streak);
            for (item, count) in context.followers.iter().take(BLOCK[BLOCK.len() - 1]) {
                let len = usize::from(self.slots[at].len);
                let block = self.slots[at].block;
                let capacity = if block == NONE { INLINE } else { BLOCK[block_at(block).0] };
                if len == capacity && !self.grow(at) {
                    break;
                }
                let (items, counts, len) = self.parts(at);
                (items[len], counts[len]) = (*item, (*count).min(COUNT_MAX - 1));
                self.slots[at].len += 1;
                self.slots[at].total += u32::from((*count).min(COUNT_MAX - 1));
            }
            self.windows[at / WINDOW].worths[at % WINDOW] = Worth::new(self.era, self.slots[at].total);
        }
    }

    /// Drops what is one owner's.
    pub(super) fn forget(&mut self, owner: u64) {
        for at in 0..self.slots.len() {
            if self.slots[at].key != 0 && self.slots[at].owner == owner {
                self.free_block(self.slots[at].block);
                self.set(at, FREE);
                self.len -= 1;
            }
        }
    }
}

#[inline]
fn block_at(block: u32) -> (usize, usize) {
    let class = (block >> 30) as usize;
    (class, (block & 0x3fff_ffff) as usize * BLOCK[class])
}

/// Moves a follower ahead of those that are rarer.
#[inline]
fn rise(items: &mut [u32], counts: &mut [u16], at: usize) {
    let count = counts[at];
    // All in between are equally frequent.
    let to = counts[..at].partition_point(|c| *c >= count);
    counts.swap(to, at);
    items.swap(to, at);
}

/// Joins a part to the key of a context.
#[inline]
pub(super) fn join(key: u64, part: u64) -> u64 {
    spread(key ^ part.wrapping_mul(0xd6e8_feb8_6659_fd93)).max(1)
}
