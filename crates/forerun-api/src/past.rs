//! The loads of the last minutes beside what had been foreseen of them, kept in memory.
//!
//! A forecast says the most requests at a time in each minute to come. Here each minute's most is what was seen of it, once
//! a second; a peak that is shorter can be missed.

use crate::Status;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, PoisonError};

/// Between two looks.
pub(crate) const EVERY: std::time::Duration = std::time::Duration::from_secs(1);
/// Of one service: two hours.
const KEPT_MOST: usize = 120;
/// Of all services together; each takes about a hundred bytes.
const POINTS_MAX: usize = 100_000;
const STEP_SECONDS: f64 = 60.0;

/// A minute that is past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[cfg_attr(test, derive(utoipa::ToSchema))]
pub struct PastLoad {
    /// When it began; seconds since 1970 UTC.
    pub at: f64,
    /// The most requests at a time that were seen in it.
    pub load: f64,
    /// What had been said of it a minute before, at the levels of the forecast; empty where nothing had been.
    pub said: Vec<f64>,
}

#[derive(Debug, Default)]
struct Minutes {
    past: VecDeque<PastLoad>,
    /// The minute that is now.
    now: Option<PastLoad>,
    /// What was said last, and of which minute.
    said: Option<(f64, Vec<f64>)>,
}

/// The last minutes of every service.
#[derive(Debug, Default)]
pub(crate) struct Past(Mutex<BTreeMap<String, Minutes>>);

impl Past {
    /// Takes in what holds at `status.at`.
    pub(crate) fn look(&self, status: &Status) {
        let begins = (status.at / STEP_SECONDS).floor() * STEP_SECONDS;
        let kept = (POINTS_MAX / status.services.len().max(1)).clamp(1, KEPT_MOST);
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // As many names as services: those that are gone go.
        if all.len() > status.services.len() {
            let names: std::collections::BTreeSet<&str> =
                status.services.iter().map(|s| s.name.as_str()).collect();
            all.retain(|name, _| names.contains(name.as_str()));
        }
        for service in &status.services {
            let minutes = match all.get_mut(&service.name) {
                Some(minutes) => minutes,
                None => all.entry(service.name.clone()).or_default(),
            };
            minutes.look(begins, f64::from(service.in_flight + service.waiting), kept);
            if let Some(told) = &service.forecast
                && let Some(first) = told.steps.first()
                && told.from > begins
            {
                minutes.said = Some((told.from, first.clone()));
            }
        }
    }

    /// Oldest first; empty for a service that is not known.
    pub(crate) fn of(&self, service: &str) -> Vec<PastLoad> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.get(service).map_or_else(Vec::new, |minutes| minutes.past.iter().cloned().collect())
    }
}

impl Minutes {
    fn look(&mut self, begins: f64, load: f64, kept: usize) {
        if let Some(now) = &mut self.now
            && now.at == begins
        {
            now.load = now.load.max(load);
            return;
        }
        self.past.extend(self.now.take());
        while self.past.len() > kept {
            self.past.pop_front();
        }
        let said = self.said.take().filter(|(of, _)| (of - begins).abs() < STEP_SECONDS / 2.0);
        self.now = Some(PastLoad { at: begins, load, said: said.map_or_else(Vec::new, |(_, said)| said) });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{LoadForecast, ServiceStatus};

    fn status(at: f64, load: u32, from: f64, said: f64) -> Status {
        let forecast = LoadForecast {
            from,
            steps: vec![vec![said, said * 2.0], vec![9.0, 9.0]],
            ..LoadForecast::default()
        };
        let service = ServiceStatus {
            name: "web".to_owned(),
            in_flight: load,
            forecast: Some(forecast),
            ..ServiceStatus::default()
        };
        Status { at, services: vec![service], ..Status::default() }
    }

    #[test]
    fn a_minute_has_its_most_and_what_was_said_before_it() {
        let past = Past::default();
        past.look(&status(610.0, 1, 660.0, 3.0));
        past.look(&status(650.0, 5, 660.0, 4.0));
        assert!(past.of("web").is_empty(), "a minute that is not over is not told");
        // What is said of a minute in that minute is no forecast.
        past.look(&status(661.0, 2, 660.0, 7.0));
        past.look(&status(700.0, 1, 720.0, 6.0));
        past.look(&status(721.0, 0, 780.0, 6.0));
        let point = |at, load, said: &[f64]| PastLoad { at, load, said: said.to_vec() };
        assert_eq!(past.of("web"), [point(600.0, 5.0, &[]), point(660.0, 2.0, &[4.0, 8.0])]);
        assert!(past.of("other").is_empty());
    }

    #[test]
    fn it_is_bounded_and_forgets_what_is_gone() {
        let past = Past::default();
        for minute in 0..500 {
            past.look(&status(f64::from(minute) * 60.0, 1, 0.0, 0.0));
        }
        assert_eq!(past.of("web").len(), KEPT_MOST);
        past.look(&Status { at: 30_000.0, ..Status::default() });
        assert!(past.of("web").is_empty());
    }
}
