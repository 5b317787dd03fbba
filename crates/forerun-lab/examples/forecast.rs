//! Forecasts at given origins, without the rest of Forerun: `forecast SERIES.csv ORIGINS.csv OUT.csv`.

use forerun_lab::forecast::{Fitted, read_origins, read_series, write_forecasts};
use std::fs::File;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [series, origins, out] = args.as_slice() else {
        return Err("give SERIES.csv ORIGINS.csv OUT.csv".into());
    };
    let (mut all, _) = read_series(File::open(series)?, true)?;
    read_origins(File::open(origins)?, &mut all)?;
    let began = std::time::Instant::now();
    let mut fitted = Fitted::new(&all);
    let fit = began.elapsed();
    let began = std::time::Instant::now();
    let told = fitted.forecast(&mut |_| {});
    let n: usize = told.iter().map(Vec::len).sum();
    let each = began.elapsed() / n.max(1) as u32;
    write_forecasts(std::io::BufWriter::new(File::create(out)?), &all, &told)?;
    for level in [1, 2] {
        let mut shares = [0.0; 4];
        for told in told.iter().flatten() {
            for (sum, share) in shares.iter_mut().zip(told.shares[level]) {
                *sum += share / n as f64;
            }
        }
        eprint!("shares {shares:.2?}; ");
    }
    eprintln!("fit {fit:.1?} on {} rows; {n} forecasts, {each:.1?} each", fitted.rows);
    Ok(())
}
