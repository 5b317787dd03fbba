//! The runs of a replay, beside each other.

use super::sweep::Told;
use forerun_lab::{Saved, Scores, Tried, dominated, saved};

/// A policy at a point of the sweep.
#[derive(Clone, Debug)]
pub(super) struct Row {
    pub(super) scores: Scores,
    pub(super) told: Told,
    /// It knew the future.
    pub(super) bound: bool,
    /// Another has no more cold starts, no more memory, and less of one of them.
    pub(super) dominated: bool,
}

impl Row {
    pub(super) fn new(scores: Scores, told: &Told, bound: bool) -> Self {
        Self { scores, told: told.clone(), bound, dominated: false }
    }

    /// In the same world, at the same price.
    fn beside(&self, other: &Self) -> bool {
        self.told == other.told
            && self.scores.cold_start_cost.total_cmp(&other.scores.cold_start_cost).is_eq()
    }
}

/// All of them, in the order in which they were replayed.
#[derive(Clone, Debug)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// Requests or minutes a second.
    pub(super) speed: f64,
}

impl Table {
    /// Finds those that another is better than in every way.
    pub(super) fn weigh(&mut self) {
        let mut worlds: Vec<Option<String>> = Vec::new();
        let mut tried = Vec::new();
        for row in &self.rows {
            let start = &row.told.start;
            let world = worlds.iter().position(|w| w == start).unwrap_or_else(|| {
                worlds.push(start.clone());
                worlds.len() - 1
            });
            tried.push(Tried::of(&row.scores, world, row.bound));
        }
        for (row, dominated) in self.rows.iter_mut().zip(dominated(&tried)) {
            row.dominated = dominated;
        }
    }

    /// More than one run: there is something to weigh.
    pub(super) fn compares(&self) -> bool {
        self.rows.len() > 1
    }

    pub(super) fn told(&self, of: impl Fn(&Told) -> bool) -> bool {
        self.rows.iter().any(|row| of(&row.told))
    }

    /// The run that another is measured against: a fixed keep-alive of the same world, else Knative, always-on, or
    /// nothing kept.
    pub(super) fn baseline(&self, of: &Row) -> Option<&Row> {
        ["keep-alive=", "knative", "always-on", "none"].iter().find_map(|name| {
            self.rows.iter().find(|row| row.scores.policy.starts_with(name) && row.beside(of))
        })
    }

    /// What a run saved, and against which other; `None` for that other itself.
    pub(super) fn saved(&self, of: &Row) -> Option<(&Row, Saved)> {
        let baseline = self.baseline(of).filter(|b| b.scores.policy != of.scores.policy)?;
        Some((baseline, saved(&of.scores, &baseline.scores)?))
    }

    /// What a run saved against another of the same world.
    pub(super) fn against(&self, of: &Row, other: &Row) -> Option<Saved> {
        other.beside(of).then(|| saved(&of.scores, &other.scores))?
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(policy: &str, cold_starts: u64, total: f64, start: Option<&str>) -> Row {
        let mut scores = Scores { policy: policy.to_owned(), cold_starts, ..Scores::default() };
        scores.memory_gb_seconds.total = total;
        let told = Told { start: start.map(str::to_owned), ..Told::default() };
        Row::new(scores, &told, policy == "belady")
    }

    #[test]
    fn runs_are_weighed_in_their_own_world() {
        let rows = vec![
            row("none", 9, 1.0, None),
            row("knative", 5, 4.0, None),
            row("forerun", 4, 3.0, None),
            row("belady", 1, 1.0, None),
            row("forerun", 4, 5.0, Some("1s")),
        ];
        let mut table = Table { rows, speed: 1.0 };
        table.weigh();
        let dominated: Vec<bool> = table.rows.iter().map(|r| r.dominated).collect();
        assert_eq!(dominated, [false, true, false, false, false]);
        assert_eq!(table.baseline(&table.rows[2]).unwrap().scores.policy, "knative");
        assert!(table.baseline(&table.rows[4]).is_none());
    }
}
