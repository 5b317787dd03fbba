//! What predictions, forecasts and the plan score on public sets, against the bar: the best that was measured elsewhere. Sets and
//! the program that cuts them into steps live beside the checkout, not in it.

mod load;
mod plan;

use crate::cargo::{Count, cargo};
use crate::run::{self, root};
use crate::stages::{check, skip};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A set takes seconds; this is for a slow machine under load.
const LIMIT: Duration = Duration::from_secs(300);

/// One figure of a set.
struct Bar {
    /// Where it is in what `--json` prints.
    figure: &'static str,
    bar: f64,
    /// What it may not be worse than. Where that is worse than the bar, the bar is missed, and this is what Forerun had
    /// when the row was written, and a little.
    limit: f64,
    /// Whether less is better.
    less: bool,
}

const fn less(figure: &'static str, bar: f64, limit: f64) -> Bar {
    Bar { figure, bar, limit, less: true }
}

const fn more(figure: &'static str, bar: f64, limit: f64) -> Bar {
    Bar { figure, bar, limit, less: false }
}

/// A set of steps, as the referee names it.
struct Steps {
    set: &'static str,
    clock: bool,
    bars: &'static [Bar],
    /// What the quick model is held to: how often Kneser-Ney of order 5 is right.
    quick: &'static [Bar],
}

const CRPS: &str = "/when/crps_log";
const STEPS: &[Steps] = &[
    Steps {
        set: "schonlau",
        clock: false,
        bars: &[less("/bits", 0.715, 0.715), more("/acc1", 0.871, 0.871)],
        quick: &[more("/acc1", 0.850, 0.850)],
    },
    Steps {
        set: "gentd26",
        clock: true,
        bars: &[less("/bits", 1.912, 1.885), more("/acc1", 0.691, 0.691), less(CRPS, 0.824, 0.824)],
        quick: &[more("/acc1", 0.675, 0.675)],
    },
    Steps {
        set: "gentd26@tail",
        clock: true,
        bars: &[less("/bits", 1.673, 1.660), more("/acc5", 0.900, 0.899)],
        quick: &[],
    },
    Steps {
        set: "apache@tail",
        clock: true,
        bars: &[less("/bits", 4.715, 4.180), more("/acc1", 0.316, 0.330), less(CRPS, 1.121, 1.121)],
        quick: &[more("/acc1", 0.241, 0.270)],
    },
    Steps {
        set: "bms",
        clock: false,
        bars: &[less("/bits", 3.658, 3.620), more("/acc1", 0.433, 0.430)],
        quick: &[more("/acc1", 0.416, 0.416)],
    },
    Steps {
        set: "fifa",
        clock: false,
        bars: &[less("/bits", 4.411, 4.150), more("/acc1", 0.284, 0.292)],
        quick: &[more("/acc1", 0.189, 0.205)],
    },
    Steps {
        set: "helpdesk@clock",
        clock: true,
        bars: &[less("/bits", 0.865, 0.853), more("/acc1", 0.804, 0.804), less(CRPS, 2.301, 2.301)],
        quick: &[more("/acc1", 0.769, 0.790)],
    },
    Steps {
        set: "bpi_12_w@clock",
        clock: true,
        bars: &[less("/bits", 0.614, 0.488), more("/acc1", 0.799, 0.850), less(CRPS, 1.485, 1.485)],
        quick: &[more("/acc1", 0.775, 0.774)],
    },
];

pub(crate) fn run() -> Count {
    let shared = root().join("../shared");
    let (cutter, data) = (shared.join("referee/nextactivity/score.py"), shared.join("data"));
    if !data.is_dir() {
        return skip("bars", "there is no ../shared/data beside the checkout");
    }
    let built = run::shown(cargo().args(["build", "--release", "--package", "forerun"]), run::LIMIT);
    if !built.good {
        return check("build", Err("see above".to_owned()));
    }
    let forerun = match crate::process::binary() {
        Ok(path) => path,
        Err(what) => return check("build", Err(what)),
    };
    let work = std::env::temp_dir().join(format!("forerun-bars-{}", std::process::id()));
    if let Err(error) = std::fs::create_dir_all(&work) {
        return check("work folder", Err(format!("{}: {error}", work.display())));
    }
    let side = Side { forerun: &forerun, cutter, data, work: &work };
    let mut count = Count::default();
    for steps in STEPS {
        count.add(side.steps(steps));
    }
    for load in load::LOADS {
        count.add(side.load(load));
    }
    count.add(plan::run(side.forerun, &side.data, side.work));
    let _ = std::fs::remove_dir_all(&work);
    count
}

struct Side<'a> {
    forerun: &'a Path,
    cutter: PathBuf,
    data: PathBuf,
    work: &'a Path,
}

impl Side<'_> {
    fn steps(&self, steps: &Steps) -> Count {
        let file = self.work.join(format!("{}.tsv", steps.set));
        if !self.cutter.is_file() {
            return skip(steps.set, "there is no ../shared/referee beside the checkout");
        }
        let mut cut = Command::new("python3");
        cut.arg(&self.cutter).args(["export", "--set", steps.set, "--data"]).arg(&self.data);
        let ran = run::quiet(cut.arg("--out").arg(&file), LIMIT);
        if !ran.good {
            return skip(steps.set, "python3 and the referee do not cut it into steps: are the data there?");
        }
        let mut predict = Command::new(self.forerun);
        predict.arg("predict").arg(&file).args(["--format", "events", "--json"]);
        if steps.clock {
            predict.arg("--when").arg(self.work.join("when.csv"));
        }
        let mut count = self.hold(steps.set, &mut predict, steps.bars);
        if !steps.quick.is_empty() {
            let mut quick = Command::new(self.forerun);
            quick.arg("predict").arg(&file).args(["--format", "events", "--quick", "--json"]);
            count.add(self.hold(&format!("{} quick", steps.set), &mut quick, steps.quick));
        }
        count
    }

    fn load(&self, load: &load::Load) -> Count {
        let (series, origins) = (self.work.join("series.csv"), self.work.join("origins.csv"));
        let (values, points) = match load.cut(&self.data) {
            Ok(cut) => cut,
            Err(why) => return skip(load.set, &why),
        };
        for (path, text) in [(&series, values), (&origins, points)] {
            if let Err(error) = std::fs::write(path, text) {
                return check(load.set, Err(format!("cannot write {}: {error}", path.display())));
            }
        }
        let mut forecast = Command::new(self.forerun);
        forecast.arg("forecast").arg(&series).arg("--origins").arg(&origins).arg("--json");
        self.hold(load.set, forecast.arg("--out").arg(self.work.join("forecasts.csv")), load.bars)
    }

    /// Runs Forerun and holds what it prints to the bars.
    fn hold(&self, set: &str, command: &mut Command, bars: &[Bar]) -> Count {
        let ran = run::quiet(command, LIMIT);
        let printed: Value = match serde_json::from_str(&ran.text) {
            Ok(printed) if ran.good => printed,
            _ => return check(set, Err(ran.trouble.unwrap_or_else(|| "failed, see above".to_owned()))),
        };
        let mut count = Count::default();
        for bar in bars {
            let (what, result) = hold(&printed, bar);
            count.add(check(&format!("{set} {what}"), result));
        }
        count
    }
}

/// What a figure is called with its value and the bar, and whether it is good enough.
fn hold(printed: &Value, bar: &Bar) -> (String, Result<(), String>) {
    let name = bar.figure.trim_start_matches('/');
    let Some(value) = printed.pointer(bar.figure).and_then(Value::as_f64) else {
        return (name.to_owned(), Err(format!("there is no {} in what was printed", bar.figure)));
    };
    let reaches = |than: f64| if bar.less { value <= than } else { value >= than };
    let said = if reaches(bar.bar) { "reached" } else { "missed" };
    let what = format!("{name} {value:.4}, the bar {} is {said}", bar.bar);
    let worse = format!("it may not be worse than {}", bar.limit);
    (what, if reaches(bar.limit) { Ok(()) } else { Err(worse) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_figure_is_held_to_its_limit_and_told_beside_the_bar() {
        let printed = serde_json::json!({"bits": 0.8, "when": {"crps_log": 1.2}, "acc1": 0.5});
        for (bar, good, said) in [
            (less("/bits", 0.7, 0.9), true, "missed"),
            (less("/bits", 0.8, 0.9), true, "reached"),
            (less("/when/crps_log", 1.1, 1.1), false, "missed"),
            (more("/acc1", 0.6, 0.4), true, "missed"),
            (more("/acc1", 0.6, 0.6), false, "missed"),
            (more("/acc5", 0.6, 0.6), false, "acc5"),
        ] {
            let (what, result) = hold(&printed, &bar);
            assert!(result.is_ok() == good && what.contains(said), "{what}: {result:?}");
        }
    }
}
