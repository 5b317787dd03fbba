//! What the plan costs on public traces, against the best that was measured elsewhere. One replay takes seconds to
//! minutes of a core.

use super::{Bar, hold, less};
use crate::cargo::Count;
use crate::run;
use crate::stages::{check, skip};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// For a slow machine under load.
const LIMIT: Duration = Duration::from_secs(1_800);

const MINUTES: &[&str] = &["--format", "minutes"];
const IMAGES: &[&str] = &[
    "--format",
    "csv",
    "--map",
    "at=gmt_create,service=checkpoint_model_version_id,user=groupId,duration_s=exec_time_seconds",
    "--start",
    "10s",
    "--memory",
    "1GB",
];
const CASES: &[&str] = &[
    "--format",
    "csv",
    "--map",
    "at=CompleteTimestamp,service=ActivityID,user=CaseID",
    "--start",
    "10s",
    "--duration",
    "1s",
];

/// What of the replayed rows is held to the bar.
#[derive(Clone, Copy)]
enum Figure {
    /// A figure of the first row.
    First(&'static str),
    /// Cold starts where so much of a figure is spent, between the two rows around it.
    ColdAt(&'static str, f64),
    /// The first row's cost over the second's.
    CostRatio,
}

/// A trace, how it is replayed, and the bar.
struct Plan {
    name: &'static str,
    file: &'static str,
    /// A table of the set beside it: only services with a value in this column count.
    only: Option<(&'static str, &'static str)>,
    replay: &'static [&'static [&'static str]],
    figure: Figure,
    bar: f64,
    limit: f64,
}

const AZURE: &str = "azure2019_femux100";
const PUBLISHED: Option<(&str, &str)> = Some(("published_sim_results_per_app.csv", "femux_cold_starts"));
const GENTD: &str = "gentd26/lora_request_trace.csv";
/// Room is all that counts.
const DEAR: &[&str] = &["--cold-start-cost", "1000000"];

const PLANS: &[Plan] = &[
    Plan {
        name: "azure2019_femux100, 41 apps: RUM",
        file: AZURE,
        only: PUBLISHED,
        replay: &[MINUTES],
        figure: Figure::First("/rum"),
        bar: 2_250.0,
        limit: 2_230.0,
    },
    Plan {
        name: "azure2019_femux100, 41 apps: cold starts at 225,000 GB-s",
        file: AZURE,
        only: PUBLISHED,
        replay: &[MINUTES, &["--sweep", "cold-start-cost=80.55,130,170,220,300"]],
        figure: Figure::ColdAt("/memory_gb_seconds/total", 225_000.0),
        bar: 300.0,
        limit: 295.0,
    },
    Plan {
        name: "gentd26, at most 8 instances: cold starts",
        file: GENTD,
        only: None,
        replay: &[IMAGES, DEAR, &["--capacity", "8"]],
        figure: Figure::First("/cold_starts"),
        bar: 3_950.0,
        limit: 3_880.0,
    },
    Plan {
        name: "gentd26, at most 16 instances: cold starts",
        file: GENTD,
        only: None,
        replay: &[IMAGES, DEAR, &["--capacity", "16"]],
        figure: Figure::First("/cold_starts"),
        bar: 1_660.0,
        limit: 1_480.0,
    },
    Plan {
        name: "gentd26, at most 32 instances: cold starts",
        file: GENTD,
        only: None,
        replay: &[IMAGES, DEAR, &["--capacity", "32"]],
        figure: Figure::First("/cold_starts"),
        bar: 745.0,
        limit: 670.0,
    },
    Plan {
        name: "gentd26, no limit: cold starts at 3.26 million idle GB-s",
        file: GENTD,
        only: None,
        replay: &[IMAGES, &["--sweep", "cold-start-cost=1200,1600"]],
        figure: Figure::ColdAt("/memory_gb_seconds/idle", 3_260_000.0),
        bar: 3_050.0,
        limit: 2_900.0,
    },
    Plan {
        name: "helpdesk: cost over that without users",
        file: "process_logs/helpdesk.csv",
        only: None,
        replay: &[CASES, &["--cold-start-cost", "3600", "--policy", "forerun,forerun-no-users"]],
        figure: Figure::CostRatio,
        bar: 0.97,
        limit: 0.93,
    },
];

pub(super) fn run(forerun: &Path, data: &Path, work: &Path) -> Count {
    let mut count = Count::default();
    for plan in PLANS {
        let file = data.join(plan.file);
        if !file.exists() {
            count.add(skip(plan.name, "not in ../shared/data"));
            continue;
        }
        count.add(plan.run(forerun, &file, work));
    }
    count
}

impl Plan {
    fn run(&self, forerun: &Path, file: &Path, work: &Path) -> Count {
        let mut replay = Command::new(forerun);
        replay.arg("replay").arg(file).args(self.replay.concat()).arg("--json");
        if let Some((table, column)) = self.only {
            let list = work.join("only");
            let names = std::fs::read_to_string(file.join(table))
                .map_err(|e| format!("{table}: {e}"))
                .and_then(|text| named(&text, column));
            let written = names.and_then(|names| std::fs::write(&list, names).map_err(|e| e.to_string()));
            if let Err(why) = written {
                return check(self.name, Err(why));
            }
            replay.arg("--only").arg(list);
        }
        let ran = run::quiet(&mut replay, LIMIT);
        let printed: Value = match serde_json::from_str(&ran.text) {
            Ok(printed) if ran.good => printed,
            _ => return check(self.name, Err(ran.trouble.unwrap_or_else(|| "failed, see above".to_owned()))),
        };
        let rows = printed["policies"].as_array().map_or(&[][..], Vec::as_slice);
        let Some(value) = value(self.figure, rows) else {
            return check(self.name, Err("it is not in what was printed".to_owned()));
        };
        let bar: Bar = less("/value", self.bar, self.limit);
        let (what, result) = hold(&json!({ "value": value }), &bar);
        let of = |key: &str| rows[0][key].as_f64().unwrap_or_default();
        let (precision, recall) = (of("prewarm_precision"), of("prewarm_recall"));
        let what = format!("{}: {what}; prewarm precision {precision:.3}, recall {recall:.3}", self.name);
        check(&what, result)
    }
}

/// The first column's cells of the lines that have a value in a column.
fn named(table: &str, column: &str) -> Result<String, String> {
    let mut lines = table.lines();
    let cells = |line: &str| line.split(',').map(str::to_owned).collect::<Vec<_>>();
    let at = lines.next().and_then(|head| cells(head).iter().position(|c| c == column));
    let at = at.ok_or_else(|| format!("there is no column {column}"))?;
    let rows = lines.map(cells).filter(|row| row.get(at).is_some_and(|cell| !cell.is_empty()));
    Ok(rows.map(|row| row[0].clone() + "\n").collect())
}

fn value(figure: Figure, rows: &[Value]) -> Option<f64> {
    let of = |row: &Value, path: &str| row.pointer(path).and_then(Value::as_f64);
    match figure {
        Figure::First(path) => of(rows.first()?, path),
        Figure::CostRatio => Some(of(rows.first()?, "/cost")? / of(rows.get(1)?, "/cost")?),
        Figure::ColdAt(path, spent) => {
            let mut points: Vec<(f64, f64)> = rows
                .iter()
                .map(|row| Some((of(row, path)?, of(row, "/cold_starts")?)))
                .collect::<Option<_>>()?;
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            let around = points.windows(2).find(|w| (w[0].0..=w[1].0).contains(&spent))?;
            let part = (spent - around[0].0) / (around[1].0 - around[0].0).max(f64::MIN_POSITIVE);
            Some(around[0].1 + part * (around[1].1 - around[0].1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_divided_and_interpolated() {
        let row = |idle: f64, cold: u32, cost: f64| json!({"idle": idle, "cold_starts": cold, "cost": cost});
        let rows = [row(300.0, 10, 9.0), row(100.0, 30, 10.0), row(200.0, 20, 7.0)];
        for (figure, expect) in [
            (Figure::First("/idle"), Some(300.0)),
            (Figure::CostRatio, Some(0.9)),
            (Figure::ColdAt("/idle", 150.0), Some(25.0)),
            (Figure::ColdAt("/idle", 300.0), Some(10.0)),
            (Figure::ColdAt("/idle", 301.0), None),
            (Figure::First("/none"), None),
        ] {
            assert_eq!(value(figure, &rows), expect);
        }
        assert_eq!(value(Figure::CostRatio, &rows[..1]), None);
    }

    #[test]
    fn services_with_a_figure_are_named() {
        assert_eq!(named("app,x,y\na,1,\nb,2,3\nc,,0\n", "y").unwrap(), "b\nc\n");
        assert!(named("app,x\n", "y").is_err());
    }
}
