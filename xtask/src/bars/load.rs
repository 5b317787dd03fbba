//! Sets of load series, cut as the referee cuts them: the last fifth is the test part, forecasts start a horizon apart.

use super::{Bar, less, more};
use std::fmt::Write;
use std::path::Path;

/// A set of series.
pub(super) struct Load {
    pub(super) set: &'static str,
    /// The file or folder of the data.
    folder: &'static str,
    series: fn(&Path) -> Result<Vec<Series>, String>,
    season: usize,
    horizon: usize,
    /// Origins of a series, at most.
    origins_max: usize,
    pub(super) bars: &'static [Bar],
}

struct Series {
    name: String,
    values: Vec<String>,
    /// Where the test part begins, if the set says it.
    test_from: Option<usize>,
}

/// What should be .9 and .99: within .02 and .005.
const C90: &str = "/scores/coverage_90";
const C99: &str = "/scores/coverage_99";

pub(super) const LOADS: &[Load] = &[
    Load {
        set: "nab_aws",
        folder: "nab/realAWSCloudwatch",
        series: nab,
        season: 288,
        horizon: 12,
        origins_max: 40,
        bars: &[less("/scores/sql", 0.402, 0.405), more(C90, 0.88, 0.88), less(C90, 0.92, 0.92)],
    },
    Load {
        set: "m4_dev",
        folder: "m4_hourly",
        series: m4,
        season: 24,
        horizon: 48,
        origins_max: 1,
        bars: &[
            less("/scores/mase", 1.204, 0.82),
            more(C90, 0.88, 0.88),
            less(C90, 0.92, 0.92),
            more(C99, 0.985, 0.985),
            less(C99, 0.995, 0.995),
        ],
    },
];

impl Load {
    /// The series and the origins, as `forerun forecast` reads them.
    ///
    /// # Errors
    /// Data that are not there or not what they were.
    pub(super) fn cut(&self, data: &Path) -> Result<(String, String), String> {
        let all = (self.series)(&data.join(self.folder))?;
        let (mut values, mut origins) =
            ("series,t,value\n".to_owned(), "series,origin,horizon,season,test_from\n".to_owned());
        for series in &all {
            for (t, value) in series.values.iter().enumerate() {
                // Writing to a string cannot fail.
                let _ = writeln!(values, "{},{t},{value}", series.name);
            }
            let n = series.values.len();
            let test_from = series.test_from.unwrap_or(n * 4 / 5);
            let every: Vec<usize> =
                (test_from.saturating_sub(1)..n.saturating_sub(self.horizon)).step_by(self.horizon).collect();
            let kept = every.len().min(self.origins_max);
            for k in 0..kept {
                let origin = every[k * every.len() / kept];
                let _ = writeln!(
                    origins,
                    "{},{origin},{},{},{test_from}",
                    series.name, self.horizon, self.season
                );
            }
        }
        Ok((values, origins))
    }
}

fn read(path: &Path) -> Result<String, String> {
    std::fs::read_to_string(path).map_err(|e| format!("{}: {e}", path.display()))
}

/// A file for each series, `timestamp,value`.
fn nab(folder: &Path) -> Result<Vec<Series>, String> {
    let listed = std::fs::read_dir(folder).map_err(|e| format!("{}: {e}", folder.display()))?;
    let mut files: Vec<_> = listed.flatten().map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|e| e == "csv"));
    files.sort();
    let series = |path: &std::path::PathBuf| {
        let text = read(path)?;
        let values = text.lines().skip(1).filter_map(|line| line.rsplit(',').next());
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Series { name, values: values.map(str::to_owned).collect(), test_from: None })
    };
    files.iter().map(series).collect()
}

/// A row for each series; what comes after the training part is in a file of its own.
fn m4(folder: &Path) -> Result<Vec<Series>, String> {
    let (train, test) = (read(&folder.join("Hourly-train.csv"))?, read(&folder.join("Hourly-test.csv"))?);
    let cells = |line: &str| -> Vec<String> {
        line.split(',')
            .map(|cell| cell.trim_matches('"').to_owned())
            .filter(|cell| !cell.is_empty())
            .collect()
    };
    let mut all = Vec::new();
    for (row, (train, test)) in train.lines().zip(test.lines()).enumerate().skip(1) {
        let (mut values, test) = (cells(train), cells(test));
        if values.is_empty() || test.first() != values.first() {
            return Err(format!("{}: row {row} is not the same series in both files", folder.display()));
        }
        let name = values.remove(0);
        let test_from = values.len();
        values.extend(test.into_iter().skip(1));
        all.push(Series { name, values, test_from: Some(test_from) });
    }
    Ok(all)
}
