//! How often each key was asked for lately, by a count-min sketch of four rows of small counters that are halved as time goes
//! on: Caffeine's `FrequencySketch`, with sixteen counters for each entry that fits.

use super::Key;

const ROWS: usize = 4;
const COUNT_MAX: u8 = 15;
const SEEDS: [u64; ROWS] =
    [0xc3a5_c85c_97cb_3127, 0xb492_b66f_be98_f273, 0x9ae1_6a3b_2f90_404f, 0xcbf2_9ce4_8422_2325];

#[derive(Clone, Debug)]
pub(super) struct Sketch {
    rows: [Vec<u8>; ROWS],
    mask: u64,
    added: u64,
    /// After so many additions all counters are halved.
    sample: u64,
}

impl Sketch {
    pub(super) fn new(entries: u64) -> Self {
        let width = (4 * entries.max(16)).next_power_of_two();
        Self {
            rows: std::array::from_fn(|_| vec![0; width as usize]),
            mask: width - 1,
            added: 0,
            sample: 10 * entries.max(1),
        }
    }

    fn place(&self, row: usize, key: Key) -> usize {
        let mut hash = (u64::from(key) + 1).wrapping_mul(SEEDS[row]);
        hash ^= hash >> 32;
        hash = hash.wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash ^= hash >> 33;
        (hash & self.mask) as usize
    }

    pub(super) fn add(&mut self, key: Key) {
        let mut grew = false;
        for row in 0..ROWS {
            let at = self.place(row, key);
            let counter = &mut self.rows[row][at];
            if *counter < COUNT_MAX {
                *counter += 1;
                grew = true;
            }
        }
        self.added += u64::from(grew);
        if self.added >= self.sample {
            self.halve();
        }
    }

    pub(super) fn count(&self, key: Key) -> u8 {
        (0..ROWS).map(|row| self.rows[row][self.place(row, key)]).min().unwrap_or(0)
    }

    fn halve(&mut self) {
        let mut odd = 0;
        for counter in self.rows.iter_mut().flatten() {
            odd += u64::from(*counter & 1);
            *counter /= 2;
        }
        self.added = self.added.saturating_sub(odd / ROWS as u64) / 2;
    }
}
