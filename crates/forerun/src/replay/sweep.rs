//! `--sweep KEY=X,X,...`: the same trace at several prices, capacities, times of starting, or keep-alives.

use super::sizes::capacity;
use super::{ReplayArgs, bad};
use crate::failure::Failure;
use forerun_lab::{Capacity, Options, PolicyName};
use forerun_trace::parse_duration;
use forerun_types::Span;
use std::sync::Arc;

/// What every policy is replayed at.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Point {
    price: f64,
    /// Somebody named it.
    asked_price: bool,
    capacity: Capacity,
    start: Span,
    /// As they were written, where a sweep says so.
    pub(super) told: Told,
}

/// What of a point a person must be told, in the words that they used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) price: bool,
    pub(super) capacity: Option<String>,
    pub(super) start: Option<String>,
}

/// All points, in order: starts, capacities, prices.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Sweep {
    pub(super) points: Vec<Point>,
    /// Keep-alives that are policies beside those asked for.
    pub(super) policies: Vec<(String, PolicyName)>,
}

impl Point {
    /// `reprice`: recorded classes give way to a price that somebody asks for.
    pub(super) fn apply(&self, options: &mut Options, reprice: bool) {
        options.cold_start_gbs = self.price;
        if reprice && self.asked_price {
            for spec in options.services.values_mut() {
                Arc::make_mut(spec).sla.cold_start_milli_gbs = (self.price * 1e3).round() as u64;
            }
        }
        options.world.capacity = self.capacity;
        if self.told.start.is_some() {
            options.world.start = self.start;
            // A sweep over starts is about what if they took so long, not about what was measured.
            options.starts.clear();
        }
    }
}

impl Sweep {
    pub(super) fn parse(args: &ReplayArgs, options: &Options) -> Result<Self, Failure> {
        let named = args.cold_start_cost.map(|x| price("--cold-start-cost", x)).transpose()?;
        let mut prices = vec![named.unwrap_or(options.cold_start_gbs)];
        let mut capacities = vec![(None, options.world.capacity)];
        let mut starts = vec![(None, options.world.start)];
        let (mut told_price, mut policies) = (false, Vec::new());
        for sweep in &args.sweep {
            let (key, list) = sweep.split_once('=').unwrap_or((sweep, ""));
            let values = || list.split(',').map(str::trim);
            match key {
                "cold-start-cost" => {
                    let one = |text: &str| {
                        let number =
                            text.parse().map_err(|_| bad(format!("--sweep: {text:?} is no number")))?;
                        price("--sweep", number)
                    };
                    prices = values().map(one).collect::<Result<_, _>>()?;
                    told_price = true;
                }
                "capacity" => {
                    let one = |text: &str| Ok((Some(text.to_owned()), capacity("--sweep", text)?));
                    capacities = values().map(one).collect::<Result<_, Failure>>()?;
                }
                "start" => {
                    starts = values()
                        .map(|t| Ok((Some(t.to_owned()), span(t)?)))
                        .collect::<Result<_, Failure>>()?
                }
                "keep-alive" => {
                    for text in values() {
                        policies.push((format!("keep-alive={text}"), PolicyName::KeepAlive(span(text)?)));
                    }
                }
                _ => {
                    return Err(bad(format!(
                        "--sweep: {sweep:?} is unknown: write cold-start-cost=20,40,80,160, capacity=8,16,32GB, \
                         start=1s,10s or keep-alive=1m,10m"
                    )));
                }
            }
        }
        let mut points = Vec::new();
        for (start_told, start) in &starts {
            for (capacity_told, capacity) in &capacities {
                for &price in &prices {
                    let told = Told {
                        price: told_price,
                        capacity: capacity_told.clone(),
                        start: start_told.clone(),
                    };
                    let asked_price = told_price || named.is_some();
                    points.push(Point { price, asked_price, capacity: *capacity, start: *start, told });
                }
            }
        }
        Ok(Self { points, policies })
    }
}

fn price(option: &str, price: f64) -> Result<f64, Failure> {
    let good = (0.0..=1e12).contains(&price);
    if good { Ok(price) } else { Err(bad(format!("{option}: {price} is no price from 0 to 10^12"))) }
}

fn span(text: &str) -> Result<Span, Failure> {
    parse_duration(text).map_err(|why| bad(format!("--sweep: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: ReplayArgs,
    }

    fn sweep(flags: &[&str]) -> Result<Sweep, Failure> {
        let line = Line::parse_from([&["replay", "x.csv"], flags].concat());
        Sweep::parse(&line.args, &Options::default())
    }

    #[test]
    fn every_combination_is_a_point() {
        let one = sweep(&[]).unwrap();
        assert_eq!((one.points.len(), one.policies.len()), (1, 0));
        let many = sweep(&[
            "--sweep",
            "cold-start-cost=20,40,80",
            "--sweep",
            "capacity=8,16GB",
            "--sweep",
            "keep-alive=1m,5m",
        ]);
        let many = many.unwrap();
        assert_eq!(many.points.len(), 6);
        assert_eq!(many.points[4].price, 40.0);
        assert_eq!(many.points[4].told.capacity.as_deref(), Some("16GB"));
        assert_eq!(
            many.policies[1],
            ("keep-alive=5m".to_owned(), PolicyName::KeepAlive(Span::from_secs(300)))
        );
        let mut options = Options::default();
        sweep(&["--sweep", "start=3s"]).unwrap().points[0].apply(&mut options, false);
        assert_eq!(options.world.start, Span::from_secs(3));
    }

    #[test]
    fn what_cannot_be_swept_is_named() {
        for (text, part) in [
            ("price=1", "\"price=1\" is unknown"),
            ("capacity", "--sweep: \"\" is neither"),
            ("cold-start-cost=1,x", "\"x\" is no number"),
            ("cold-start-cost=-1", "no price"),
            ("start=soon", "--sweep: "),
        ] {
            let error = sweep(&["--sweep", text]).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
