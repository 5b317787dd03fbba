//! Predictions as rows of a CSV.

use super::RANKS;
use forerun_trace::{Step, Steps, csv_cell};
use std::io::{self, Write};

/// `user,index,item1,p1,...,item10,p10,p_true_or_other,p_new`.
pub(super) fn row(
    out: &mut dyn Write,
    steps: &Steps,
    step: &Step,
    ranked: &[(u32, f64)],
    happened: f64,
    new: f64,
) -> io::Result<()> {
    write!(out, "{},{}", csv_cell(&steps.users[step.user as usize]), step.index)?;
    for rank in 0..RANKS {
        match ranked.get(rank) {
            Some((item, p)) => write!(out, ",{},{p:.9}", csv_cell(&steps.items[*item as usize]))?,
            None => write!(out, ",,")?,
        }
    }
    writeln!(out, ",{happened:.9},{new:.9}")
}

/// `user,index,q05,...,q95`.
pub(super) fn when(out: &mut dyn Write, user: &str, index: u32, quantiles: &[f32]) -> io::Result<()> {
    write!(out, "{},{index}", csv_cell(user))?;
    for q in quantiles {
        write!(out, ",{q:.5}")?;
    }
    writeln!(out)
}
