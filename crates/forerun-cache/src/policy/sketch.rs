//! How often a hash was seen lately: a count-min sketch of four rows of counters up to 15, all halved from time to time.
//! G. Cormode, S. Muthukrishnan, "An improved data stream summary", J. Algorithms 55(1), 2005; the halving is TinyLFU's
//! (G. Einziger, R. Friedman, B. Manes, TOS 13(4), 2017).

const ROWS: usize = 4;
const COUNT_MAX: u8 = 15;
/// Counters of a row for each entry that is held: at four, four rows together overcount one entry in some hundreds.
const PER_ENTRY: usize = 4;
/// Sightings between two halvings, for each entry that is held: TinyLFU's sample.
const SAMPLE: u64 = 10;
const WIDTH_MIN: usize = 64;

#[derive(Clone, Debug)]
pub(crate) struct Sketch {
    /// Of equal length, a power of two.
    rows: [Vec<u8>; ROWS],
    seen: u64,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { rows: std::array::from_fn(|_| vec![0; WIDTH_MIN]), seen: 0 }
    }
}

impl Sketch {
    fn place(&self, row: usize, hash: u64) -> usize {
        // Rows see different bits of an odd multiple: the hash itself is already even.
        const ODD: [u64; ROWS] =
            [0x9e37_79b9_7f4a_7c15, 0xbf58_476d_1ce4_e5b9, 0x94d0_49bb_1331_11eb, 0xd6e8_feb8_6659_fd93];
        let mixed = hash.wrapping_mul(ODD[row]);
        (mixed >> 32) as usize & (self.rows[row].len() - 1)
    }

    pub(crate) fn add(&mut self, hash: u64, held: usize) {
        for row in 0..ROWS {
            let at = self.place(row, hash);
            let counter = &mut self.rows[row][at];
            *counter = (*counter + 1).min(COUNT_MAX);
        }
        self.seen += 1;
        self.fit(held);
        if self.seen >= SAMPLE * (held as u64).max(WIDTH_MIN as u64 / PER_ENTRY as u64) {
            self.rows.iter_mut().flatten().for_each(|counter| *counter /= 2);
            self.seen /= 2;
        }
    }

    pub(crate) fn count(&self, hash: u64) -> u64 {
        let counts = (0..ROWS).map(|row| self.rows[row][self.place(row, hash)]);
        u64::from(counts.min().unwrap_or(0))
    }

    /// Grows with what is held. A row doubled by a copy of itself answers as it did before.
    fn fit(&mut self, held: usize) {
        while self.rows[0].len() < PER_ENTRY * held {
            for row in &mut self.rows {
                row.extend_from_within(..);
            }
        }
    }
}
