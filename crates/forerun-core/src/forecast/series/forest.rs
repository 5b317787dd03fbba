//! The trees of all levels as one table, for forecasts. A tree is not walked: every fork that a row goes right at strikes
//! out the leaves on its left, and the first leaf that remains is where the walk would end (QuickScorer, Lucchese et al.
//! 2015). Forks stand by feature and threshold, so that those which all steps of a forecast go right at are struck once.

use super::boost::{Booster, Node};
use super::features::{FEATURES, Row};
use super::{LEVELS, Quantiles};

/// Leaves of a tree at most: a bit each.
const LEAVES: usize = u32::BITS as usize;

/// What the trees say, laid out to be asked.
#[derive(Clone, Debug, PartialEq)]
pub struct Forest {
    start: Quantiles,
    /// Where each feature's forks begin; the last is where all end.
    from: [usize; FEATURES + 1],
    /// Of each fork, never falling within a feature.
    thresholds: Vec<f32>,
    forks: Vec<Fork>,
    /// [`LEAVES`] a tree, and of all levels a tree in turn.
    values: Vec<f32>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Fork {
    tree: u32,
    /// The leaves that remain for who goes right.
    remain: u32,
}

/// Forks as they are found, by feature.
struct Planting {
    forks: Vec<Vec<(f32, Fork)>>,
    values: Vec<f32>,
}

impl Forest {
    /// `None` unless there are trees for each of [`LEVELS`], or where one of them is no tree.
    pub fn new(boosters: &[Booster]) -> Option<Forest> {
        let boosters: &[Booster; LEVELS.len()] = boosters.try_into().ok()?;
        // A level of fewer trees than another has some that say nothing.
        let rounds = boosters.iter().map(|b| b.trees().len()).max()?;
        let mut planting =
            Planting { forks: vec![Vec::new(); FEATURES], values: vec![0.0; rounds * LEVELS.len() * LEAVES] };
        for (level, booster) in boosters.iter().enumerate() {
            for (round, nodes) in booster.trees().enumerate() {
                let (tree, mut leaves) = (round * LEVELS.len() + level, 0);
                planting.plant(nodes, (0, 0), tree, &mut leaves)?;
            }
        }
        let Planting { mut forks, values } = planting;
        let (mut from, mut thresholds, mut all) = ([0; FEATURES + 1], Vec::new(), Vec::new());
        for (f, forks) in forks.iter_mut().enumerate() {
            forks.sort_by(|a, b| a.0.total_cmp(&b.0));
            thresholds.extend(forks.iter().map(|fork| fork.0));
            all.extend(forks.iter().map(|fork| fork.1));
            from[f + 1] = all.len();
        }
        Some(Forest { start: boosters.each_ref().map(Booster::start), from, thresholds, forks: all, values })
    }

    /// What is said of each row, by level; to the bit what [`Booster::predict`] says.
    pub fn predict(&self, rows: &[Row]) -> Vec<Quantiles> {
        let right: Vec<[usize; FEATURES]> = rows.iter().map(|row| self.right(row)).collect();
        let mut together = [0; FEATURES];
        let mut common = vec![u32::MAX; self.values.len() / LEAVES];
        for (f, together) in together.iter_mut().enumerate() {
            *together = right.iter().map(|right| right[f]).min().unwrap_or_default();
            self.strike(self.from[f], *together, &mut common);
        }
        let mut left = common.clone();
        let say = |right: &[usize; FEATURES]| {
            left.copy_from_slice(&common);
            for (together, right) in together.iter().zip(right) {
                self.strike(*together, *right, &mut left);
            }
            let mut said = self.start;
            let trees = left.chunks_exact(LEVELS.len());
            for (left, values) in trees.zip(self.values.chunks_exact(LEVELS.len() * LEAVES)) {
                for ((said, left), values) in said.iter_mut().zip(left).zip(values.chunks_exact(LEAVES)) {
                    *said += f64::from(values[left.trailing_zeros() as usize % LEAVES]);
                }
            }
            said
        };
        right.iter().map(say).collect()
    }

    /// Where the forks end that a row goes right at, by feature.
    fn right(&self, row: &Row) -> [usize; FEATURES] {
        let mut right = [0; FEATURES];
        for (f, (right, value)) in right.iter_mut().zip(row).enumerate() {
            let thresholds = &self.thresholds[self.from[f]..self.from[f + 1]];
            // Who is no number goes right everywhere.
            *right = self.from[f] + thresholds.partition_point(|t| *t < *value || value.is_nan());
        }
        right
    }

    fn strike(&self, from: usize, to: usize, left: &mut [u32]) {
        for fork in self.forks.get(from..to).unwrap_or_default() {
            left[fork.tree as usize] &= fork.remain;
        }
    }
}

impl Planting {
    /// Adds a node and what is below it. `leaves` counts those from the left; returned are the node's own, a bit each.
    fn plant(
        &mut self,
        nodes: &[Node],
        (at, depth): (usize, usize),
        tree: usize,
        leaves: &mut usize,
    ) -> Option<u32> {
        let node = nodes.get(at)?;
        if node.left == 0 {
            let leaf = *leaves;
            *leaves += 1;
            let values = self.values.get_mut(tree * LEAVES..)?.get_mut(..LEAVES)?;
            *values.get_mut(leaf)? = node.value;
            return Some(1 << leaf);
        }
        // Deeper than it has leaves it is none that was grown.
        if depth == LEAVES {
            return None;
        }
        let left = self.plant(nodes, (usize::from(node.left), depth + 1), tree, leaves)?;
        let right = self.plant(nodes, (usize::from(node.right), depth + 1), tree, leaves)?;
        let fork = Fork { tree: tree as u32, remain: !left };
        self.forks.get_mut(usize::from(node.feature))?.push((node.threshold, fork));
        Some(left | right)
    }
}

#[cfg(test)]
mod tests {
    use super::super::boost::{Binned, Fit, Rows, hash};
    use super::*;

    /// Features of all kinds: with ties, of few values, and the least there is.
    fn row(n: u64) -> Row {
        let mut row = [0.0; FEATURES];
        for (f, slot) in row.iter_mut().enumerate() {
            let drawn = hash(n, f as u64);
            *slot = match f % 4 {
                0 => (drawn % 1_000) as f32 / 100.0 - 5.0,
                1 => (drawn % 3) as f32,
                2 if drawn.is_multiple_of(5) => f32::MIN,
                2 => (drawn % 40) as f32,
                _ => 1.0,
            };
        }
        row
    }

    fn grown(trees: impl Fn(usize) -> usize) -> Vec<Booster> {
        let mut rows = Rows::default();
        for n in 0..3_000 {
            let row = row(n);
            let noise = (hash(n, 900) % 100) as f64 / 30.0;
            rows.push(&row, f64::from(row[0] * row[1] - row[4].abs()) + noise, 1.0 + noise);
        }
        let binned = Binned::new(&rows);
        let grow = |(l, level): (usize, &f64)| {
            let mut fit = Fit::new(&rows, &binned, *level);
            (0..trees(l)).for_each(|_| {
                fit.grow();
            });
            fit.finish()
        };
        LEVELS.iter().enumerate().map(grow).collect()
    }

    #[test]
    fn it_says_to_the_bit_what_the_trees_say() {
        for trees in [|_| 25, |level| 3 * level] {
            let boosters = grown(trees);
            let forest = Forest::new(&boosters).expect("they were grown");
            for from in (5_000..5_400).step_by(8) {
                let mut rows: Vec<Row> = (from..from + 8).map(row).collect();
                rows[7][0] = f32::NAN;
                // Steps of one forecast share most of their features.
                let shared = rows[0];
                rows[3][4..].copy_from_slice(&shared[4..]);
                for rows in [&rows[..], &rows[..1], &rows[2..4]] {
                    let plain: Vec<Vec<f64>> = boosters.iter().map(|b| b.predict(rows)).collect();
                    for (i, said) in forest.predict(rows).iter().enumerate() {
                        for (l, said) in said.iter().enumerate() {
                            assert_eq!(said.to_bits(), plain[l][i].to_bits(), "row {i}, level {l}");
                        }
                    }
                }
            }
            assert!(forest.predict(&[]).is_empty());
        }
    }

    #[test]
    fn it_needs_trees_of_all_levels() {
        let boosters = grown(|_| 1);
        assert!(Forest::new(&boosters[1..]).is_none());
        assert!(Forest::new(&[]).is_none());
        let none = vec![Booster::default(); LEVELS.len()];
        assert_eq!(Forest::new(&none).expect("no trees are some").predict(&[row(1)]), [[0.0; LEVELS.len()]]);
    }
}
