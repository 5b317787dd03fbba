//! Entries in ordered lists, in one slab: what the rules move about.

/// An entry's place in the slab; given anew once the entry has gone.
pub(crate) type Slot = u32;
const NONE: Slot = Slot::MAX;

/// The lists there are. The first four are what the cache holds, the others only names of what it held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum List {
    /// Came in lately.
    Recent,
    /// Left `Recent`, and was asked for once.
    Aside,
    /// Was asked for again, and not for long since.
    Probation,
    /// Was asked for again.
    Protected,
    /// Left from `Recent` or `Aside`.
    GoneRecent,
    /// Left from the other two.
    GoneFrequent,
}

impl List {
    pub(crate) const COUNT: usize = 6;

    pub(crate) fn is_held(self) -> bool {
        matches!(self, List::Recent | List::Aside | List::Probation | List::Protected)
    }
}

#[derive(Clone, Copy, Debug)]
struct Node {
    hash: u64,
    units: u64,
    newer: Slot,
    older: Slot,
    /// `None` while the place is free.
    list: Option<List>,
    /// It was asked for since it came in.
    again: bool,
    /// Counts moves: of two entries the one with less has stood where it is for longer.
    moved: u64,
}

#[derive(Clone, Copy, Debug)]
struct Ends {
    newest: Slot,
    oldest: Slot,
    units: u64,
    entries: usize,
}

/// All moves take constant time.
#[derive(Clone, Debug)]
pub(crate) struct Lists {
    nodes: Vec<Node>,
    free: Vec<Slot>,
    moves: u64,
    ends: [Ends; List::COUNT],
}

impl Default for Lists {
    fn default() -> Self {
        let none = Ends { newest: NONE, oldest: NONE, units: 0, entries: 0 };
        Self { nodes: Vec::new(), free: Vec::new(), moves: 0, ends: [none; List::COUNT] }
    }
}

impl Lists {
    pub(crate) fn hash(&self, slot: Slot) -> u64 {
        self.nodes[slot as usize].hash
    }

    pub(crate) fn size(&self, slot: Slot) -> u64 {
        self.nodes[slot as usize].units
    }

    pub(crate) fn list(&self, slot: Slot) -> Option<List> {
        self.nodes.get(slot as usize).and_then(|node| node.list)
    }

    pub(crate) fn again(&self, slot: Slot) -> bool {
        self.nodes[slot as usize].again
    }

    pub(crate) fn set_again(&mut self, slot: Slot) {
        self.nodes[slot as usize].again = true;
    }

    pub(crate) fn moved(&self, slot: Slot) -> u64 {
        self.nodes[slot as usize].moved
    }

    pub(crate) fn units(&self, list: List) -> u64 {
        self.ends[list as usize].units
    }

    pub(crate) fn entries(&self, list: List) -> usize {
        self.ends[list as usize].entries
    }

    pub(crate) fn oldest(&self, list: List) -> Option<Slot> {
        Some(self.ends[list as usize].oldest).filter(|slot| *slot != NONE)
    }

    /// The one that came into its list after this one.
    pub(crate) fn newer(&self, slot: Slot) -> Option<Slot> {
        Some(self.nodes[slot as usize].newer).filter(|slot| *slot != NONE)
    }

    /// A new entry, at the newest end.
    pub(crate) fn insert(&mut self, hash: u64, units: u64, list: List) -> Slot {
        let node = Node { hash, units, newer: NONE, older: NONE, list: None, again: false, moved: 0 };
        let slot = match self.free.pop() {
            Some(slot) => {
                self.nodes[slot as usize] = node;
                slot
            }
            None => {
                // Memory ends long before 2^32 entries of this size.
                self.nodes.push(node);
                (self.nodes.len() - 1) as Slot
            }
        };
        self.link(slot, list);
        slot
    }

    /// To the newest end of a list.
    pub(crate) fn put(&mut self, slot: Slot, list: List) {
        self.unlink(slot);
        self.link(slot, list);
    }

    /// Out of everything; its place may be given to another.
    pub(crate) fn remove(&mut self, slot: Slot) {
        if self.unlink(slot) {
            self.free.push(slot);
        }
    }

    fn unlink(&mut self, slot: Slot) -> bool {
        let node = &mut self.nodes[slot as usize];
        let Some(list) = node.list.take() else { return false };
        let (newer, older, units) = (node.newer, node.older, node.units);
        let ends = &mut self.ends[list as usize];
        ends.units -= units;
        ends.entries -= 1;
        match newer {
            NONE => ends.newest = older,
            _ => self.nodes[newer as usize].older = older,
        }
        match older {
            NONE => self.ends[list as usize].oldest = newer,
            _ => self.nodes[older as usize].newer = newer,
        }
        true
    }

    fn link(&mut self, slot: Slot, list: List) {
        let ends = &mut self.ends[list as usize];
        let before = std::mem::replace(&mut ends.newest, slot);
        if before == NONE {
            ends.oldest = slot;
        }
        ends.units += self.nodes[slot as usize].units;
        ends.entries += 1;
        let node = &mut self.nodes[slot as usize];
        (node.list, node.newer, node.older, node.moved) = (Some(list), NONE, before, self.moves);
        self.moves += 1;
        if before != NONE {
            self.nodes[before as usize].newer = slot;
        }
    }
}
