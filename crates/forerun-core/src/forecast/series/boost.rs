//! Gradient-boosted trees on the quantile loss: histograms of binned features, leaves by gain, values renewed to the
//! quantile of what is left (Friedman 2001; LightGBM, Ke et al. 2017). Deterministic: sums run in one order, and what
//! is drawn is drawn by a hash of its place.

use super::features::{FEATURES, Row};
use serde::{Deserialize, Serialize};

/// Bins of a feature.
const BINS: usize = 64;
const LEAVES_MAX: usize = 31;
/// A leaf rests on as many rows at least.
const LEAF_ROWS_MIN: usize = 30;
/// How much of a tree is believed.
const RATE: f64 = 0.07;
/// Trees of a fit.
pub const TREES: usize = 110;

/// Rows that a tree is grown of at most, where a tree is a slice of the work of a live fit.
pub const ROWS_PER_TREE: usize = 2_048;

/// What is learned from: features, target in local scales, and what a row weighs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Rows {
    /// [`FEATURES`] a row.
    pub features: Vec<f32>,
    pub targets: Vec<f64>,
    pub weights: Vec<f64>,
}

impl Rows {
    pub fn push(&mut self, row: &Row, target: f64, weight: f64) {
        self.features.extend(row);
        self.targets.push(target);
        self.weights.push(weight);
    }

    /// Puts a row in the place of another one.
    pub fn replace(&mut self, at: usize, row: &Row, target: f64, weight: f64) {
        self.features[at * FEATURES..][..FEATURES].copy_from_slice(row);
        (self.targets[at], self.weights[at]) = (target, weight);
    }

    pub fn len(&self) -> usize {
        self.targets.len()
    }

    pub fn is_empty(&self) -> bool {
        self.targets.is_empty()
    }
}

/// The rows in bins, made once for all levels.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Binned {
    /// [`FEATURES`] a row.
    bins: Vec<u8>,
    /// The highest value of each bin but the last.
    edges: Vec<Vec<f32>>,
}

impl Binned {
    pub fn new(rows: &Rows) -> Binned {
        let mut binned = Binned::default();
        while binned.bin(rows) {}
        binned
    }

    /// Bins one feature: the slice of this. False when all are binned.
    pub fn bin(&mut self, rows: &Rows) -> bool {
        let feature = self.edges.len();
        if feature == FEATURES {
            return false;
        }
        self.bins.resize(rows.len() * FEATURES, 0);
        let edges = edges(rows, feature);
        for (bins, row) in self.bins.chunks_exact_mut(FEATURES).zip(rows.features.chunks_exact(FEATURES)) {
            bins[feature] = edges.partition_point(|e| *e < row[feature]) as u8;
        }
        self.edges.push(edges);
        true
    }

    /// How many features are in bins so far.
    pub fn features(&self) -> usize {
        self.edges.len()
    }

    fn row(&self, row: usize) -> &[u8] {
        &self.bins[row * FEATURES..][..FEATURES]
    }
}

/// At most [`BINS`] - 1 edges between equal shares of the rows.
fn edges(rows: &Rows, feature: usize) -> Vec<f32> {
    let every = (rows.len() / 20_000).max(1);
    let mut values: Vec<f32> =
        rows.features.chunks_exact(FEATURES).step_by(every).map(|r| r[feature]).collect();
    values.sort_unstable_by(f32::total_cmp);
    let mut edges: Vec<f32> =
        (1..BINS).filter_map(|i| values.get(i * values.len() / BINS).copied()).collect();
    edges.dedup();
    if edges.last() == values.last() {
        edges.pop();
    }
    edges
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Node {
    /// Goes left if at most the threshold.
    pub(super) feature: u16,
    bin: u8,
    pub(super) threshold: f32,
    /// Children; a leaf has none, and a value.
    pub(super) left: u16,
    pub(super) right: u16,
    pub(super) value: f32,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Tree {
    nodes: Vec<Node>,
}

impl Tree {
    fn leaf(&self, left: impl Fn(&Node) -> bool) -> usize {
        let mut at = 0;
        while self.nodes[at].left != 0 {
            let node = &self.nodes[at];
            at = usize::from(if left(node) { node.left } else { node.right });
        }
        at
    }
}

/// Trees of one level.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Booster {
    start: f64,
    trees: Vec<Tree>,
}

impl Booster {
    /// What is said before the first tree.
    pub(super) fn start(&self) -> f64 {
        self.start
    }

    /// The nodes of each tree.
    pub(super) fn trees(&self) -> impl ExactSizeIterator<Item = &[Node]> {
        self.trees.iter().map(|tree| &*tree.nodes)
    }

    /// What is said of each row, tree by tree: the plain way, which [`super::forest`] is held to.
    pub fn predict(&self, rows: &[Row]) -> Vec<f64> {
        let mut said = vec![self.start; rows.len()];
        for tree in &self.trees {
            for (said, row) in said.iter_mut().zip(rows) {
                let leaf = tree.leaf(|n| row[usize::from(n.feature)] <= n.threshold);
                *said += f64::from(tree.nodes[leaf].value);
            }
        }
        said
    }
}

/// A fit under way.
#[derive(Debug)]
pub struct Fit<'a> {
    rows: &'a Rows,
    binned: &'a Binned,
    level: f64,
    /// A tree is grown of one row in so many, drawn anew.
    one_in: u64,
    state: FitState,
}

/// How far a fit has come.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FitState {
    /// Of each row; empty before the fit has begun.
    said: Vec<f64>,
    booster: Booster,
}

impl<'a> Fit<'a> {
    pub fn new(rows: &'a Rows, binned: &'a Binned, level: f64) -> Self {
        Self::resume(rows, binned, level, 2, FitState::default())
    }

    /// Goes on where another one of the same was left.
    pub fn resume(rows: &'a Rows, binned: &'a Binned, level: f64, one_in: u64, mut state: FitState) -> Self {
        if state.said.is_empty() {
            let mut all: Vec<(f64, f64)> =
                rows.targets.iter().copied().zip(rows.weights.iter().copied()).collect();
            let start = weighted_quantile(&mut all, level);
            state = FitState { said: vec![start; rows.len()], booster: Booster { start, trees: Vec::new() } };
        }
        Self { rows, binned, level, one_in, state }
    }

    /// What is needed to go on.
    pub fn pause(self) -> FitState {
        self.state
    }

    /// Grows one tree: the slice of a fit. False when the fit is done.
    pub fn grow(&mut self) -> bool {
        let FitState { said, booster } = &mut self.state;
        let n = booster.trees.len();
        if n == TREES || self.rows.len() < 2 * LEAF_ROWS_MIN {
            return false;
        }
        let rows = self.rows;
        let gradients: Vec<(f32, f32)> = (0..rows.len())
            .map(|i| {
                let over = if rows.targets[i] < said[i] { 1.0 } else { 0.0 };
                ((rows.weights[i] * (self.level - over)) as f32, rows.weights[i] as f32)
            })
            .collect();
        // Some of the rows and half of the features for each tree, drawn anew.
        let drawn = (0..rows.len() as u32)
            .filter(|i| hash(u64::from(*i), n as u64).is_multiple_of(self.one_in))
            .collect();
        let features =
            (0..FEATURES).filter(|f| hash(1 << 40 | *f as u64, n as u64).is_multiple_of(2)).collect();
        let mut grown = Growing {
            binned: self.binned,
            gradients: &gradients,
            features,
            tree: Tree::default(),
            open: Vec::new(),
        };
        grown.run(drawn);
        let Growing { mut tree, open, .. } = grown;
        for leaf in open {
            let mut left: Vec<(f64, f64)> = leaf
                .rows
                .iter()
                .map(|i| (rows.targets[*i as usize] - said[*i as usize], rows.weights[*i as usize]))
                .collect();
            tree.nodes[leaf.node].value = (RATE * weighted_quantile(&mut left, self.level)) as f32;
        }
        for (said, bins) in said.iter_mut().zip(self.binned.bins.chunks_exact(FEATURES)) {
            let leaf = tree.leaf(|n| bins[usize::from(n.feature)] <= n.bin);
            *said += f64::from(tree.nodes[leaf].value);
        }
        booster.trees.push(tree);
        booster.trees.len() < TREES
    }

    /// What has been grown.
    pub fn finish(self) -> Booster {
        self.state.booster
    }
}

/// A leaf that may be split.
struct Open {
    node: usize,
    rows: Vec<u32>,
    sums: Vec<[f64; 2]>,
    best: Option<Split>,
}

#[derive(Clone, Copy)]
struct Split {
    gain: f64,
    feature: usize,
    bin: u8,
}

struct Growing<'a> {
    binned: &'a Binned,
    gradients: &'a [(f32, f32)],
    features: Vec<usize>,
    tree: Tree,
    open: Vec<Open>,
}

const LEAF: Node = Node { feature: 0, bin: 0, threshold: 0.0, left: 0, right: 0, value: 0.0 };

impl Growing<'_> {
    fn run(&mut self, rows: Vec<u32>) {
        self.tree.nodes.push(LEAF);
        let sums = self.sums(&rows);
        self.open(0, rows, sums);
        while self.open.len() < LEAVES_MAX {
            let mut best: Option<(usize, Split)> = None;
            for (i, leaf) in self.open.iter().enumerate() {
                if let Some(split) = leaf.best
                    && best.is_none_or(|(_, b)| split.gain > b.gain)
                {
                    best = Some((i, split));
                }
            }
            let Some((at, split)) = best else { break };
            let leaf = self.open.swap_remove(at);
            self.split(leaf, split);
        }
    }

    fn sums(&self, rows: &[u32]) -> Vec<[f64; 2]> {
        let mut sums = vec![[0.0; 2]; self.features.len() * BINS];
        for i in rows {
            let (g, w) = self.gradients[*i as usize];
            let bins = self.binned.row(*i as usize);
            for (slot, f) in sums.chunks_exact_mut(BINS).zip(&self.features) {
                let sum = &mut slot[usize::from(bins[*f]) % BINS];
                sum[0] += f64::from(g);
                sum[1] += f64::from(w);
            }
        }
        sums
    }

    fn open(&mut self, node: usize, rows: Vec<u32>, sums: Vec<[f64; 2]>) {
        let best = if rows.len() < 2 * LEAF_ROWS_MIN { None } else { self.best(&rows, &sums) };
        self.open.push(Open { node, rows, sums, best });
    }

    fn best(&self, rows: &[u32], sums: &[[f64; 2]]) -> Option<Split> {
        let first = sums.get(..BINS)?;
        let total = first.iter().fold([0.0, 0.0], |t, s| [t[0] + s[0], t[1] + s[1]]);
        let least = total[1] * LEAF_ROWS_MIN as f64 / rows.len() as f64;
        let whole = total[0] * total[0] / total[1].max(1e-12);
        let mut best: Option<Split> = None;
        for (slot, f) in sums.chunks_exact(BINS).zip(&self.features) {
            let mut left = [0.0, 0.0];
            for (bin, sum) in slot.iter().enumerate().take(self.binned.edges[*f].len()) {
                left = [left[0] + sum[0], left[1] + sum[1]];
                let right = [total[0] - left[0], total[1] - left[1]];
                if left[1] < least || right[1] < least {
                    continue;
                }
                let gain = left[0] * left[0] / left[1] + right[0] * right[0] / right[1] - whole;
                if gain > best.map_or(1e-9, |b| b.gain) {
                    best = Some(Split { gain, feature: *f, bin: bin as u8 });
                }
            }
        }
        best
    }

    fn split(&mut self, leaf: Open, split: Split) {
        let (left, right): (Vec<u32>, Vec<u32>) =
            leaf.rows.iter().partition(|i| self.binned.row(**i as usize)[split.feature] <= split.bin);
        if left.is_empty() || right.is_empty() {
            self.open.push(Open { best: None, ..leaf });
            return;
        }
        let at = self.tree.nodes.len();
        self.tree.nodes.extend([LEAF, LEAF]);
        self.tree.nodes[leaf.node] = Node {
            feature: split.feature as u16,
            bin: split.bin,
            threshold: self.binned.edges[split.feature][usize::from(split.bin)],
            left: at as u16,
            right: at as u16 + 1,
            value: 0.0,
        };
        // The smaller half is counted, the larger is what remains.
        let small = self.sums(if left.len() <= right.len() { &left } else { &right });
        let large = leaf.sums.iter().zip(&small).map(|(a, b)| [a[0] - b[0], a[1] - b[1]]).collect();
        let (of_left, of_right) = if left.len() <= right.len() { (small, large) } else { (large, small) };
        self.open(at, left, of_left);
        self.open(at + 1, right, of_right);
    }
}

/// The least value under which `p` of the weight lies; 0 of nothing.
fn weighted_quantile(values: &mut [(f64, f64)], p: f64) -> f64 {
    values.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.total_cmp(&b.1)));
    let total: f64 = values.iter().map(|v| v.1).sum();
    let mut under = 0.0;
    for (value, weight) in values.iter() {
        under += weight;
        if under >= p * total {
            return *value;
        }
    }
    values.last().map_or(0.0, |v| v.0)
}

/// The finaliser of splitmix64 over two numbers.
pub fn hash(a: u64, b: u64) -> u64 {
    let mut z = a.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ b.wrapping_mul(0xD1B5_4A32_D192_ED03);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) >> 7
}
