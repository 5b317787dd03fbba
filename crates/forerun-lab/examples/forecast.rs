//! Forecasts at given origins, without the rest of Forerun: `forecast SERIES.csv ORIGINS.csv OUT.csv [live|live-no-trees]`.
//! `live` makes them as a running Forerun does, step by step, instead of fitting what is known first.

use forerun_lab::forecast::{Fitted, live, read_origins, read_series, write_forecasts};
use std::fs::File;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (series, origins, out, how) = match args.as_slice() {
        [series, origins, out] => (series, origins, out, "fitted"),
        [series, origins, out, how] => (series, origins, out, how.as_str()),
        _ => return Err("give SERIES.csv ORIGINS.csv OUT.csv, and live or live-no-trees if so".into()),
    };
    let (mut all, _) = read_series(File::open(series)?, true)?;
    read_origins(File::open(origins)?, &mut all)?;
    let began = std::time::Instant::now();
    let told = match how {
        "live" | "live-no-trees" => live(&all, how == "live"),
        "fitted" => {
            let mut fitted = Fitted::new(&all);
            eprint!("fit {:.1?} on {} rows; ", began.elapsed(), fitted.rows);
            let (began, cpu) = (std::time::Instant::now(), cpu_us());
            let told = fitted.forecast(&mut |_| {});
            let n = told.iter().map(Vec::len).sum::<usize>().max(1);
            let (wall, cpu) = (began.elapsed() / n as u32, (cpu_us() - cpu) / n as u64);
            eprint!("{n} forecasts, {wall:.1?} each, {cpu} us of them on a processor; ");
            told
        }
        other => return Err(format!("{other} is neither live nor live-no-trees").into()),
    };
    let n: usize = told.iter().map(Vec::len).sum();
    write_forecasts(std::io::BufWriter::new(File::create(out)?), &all, &told)?;
    for level in [1, 2] {
        let mut shares = [0.0; 4];
        for told in told.iter().flatten() {
            for (sum, share) in shares.iter_mut().zip(told.shares[level]) {
                *sum += share / n.max(1) as f64;
            }
        }
        eprint!("shares {shares:.2?}; ");
    }
    eprintln!("{n} forecasts, {:.1?} for all", began.elapsed());
    Ok(())
}

/// Microseconds that this thread has been on a processor; 0 where the system does not say.
fn cpu_us() -> u64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    text.split(' ').next().and_then(|ns| ns.parse::<u64>().ok()).map_or(0, |ns| ns / 1_000)
}
