//! What is played, from the committed manifest.

use crate::{DemoError, RunsOn};
use forerun_types::Span;
use toml_edit::{Document, Item};

const MANIFEST: &str = include_str!("../manifest.toml");

/// Act one, services.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Services {
    /// First and one past the last minute.
    pub(crate) learn_minutes: (usize, usize),
    pub(crate) race_minutes: (usize, usize),
    /// Recorded time over playing time.
    pub(crate) speedup: u64,
    /// What a start takes, at playing speed.
    pub(crate) start: Span,
    /// What of that an instance itself sleeps before it listens.
    pub(crate) sleep: Span,
    /// At recorded speed.
    pub(crate) cold_start_gbs: f64,
    pub(crate) seed: u64,
    /// At recorded speed, rising.
    pub(crate) keep_alives: Vec<Span>,
}

impl Services {
    /// # Errors
    /// A manifest that does not have what it must have.
    pub(crate) fn load(runs: RunsOn) -> Result<Self, DemoError> {
        Self::parse(MANIFEST, runs)
    }

    fn parse(text: &str, runs: RunsOn) -> Result<Self, DemoError> {
        let document = Document::parse(text).map_err(|e| DemoError::Manifest(e.message().to_owned()))?;
        let table = document.get("services").ok_or_else(|| missing("services"))?;
        let own = match runs {
            RunsOn::Processes => None,
            RunsOn::Containers => table.get("docker"),
        };
        let item = |key: &'static str| {
            own.and_then(|own| own.get(key)).or_else(|| table.get(key)).ok_or_else(|| missing(key))
        };
        let number = |key: &'static str| natural(item(key)?, key);
        let pair = |key: &'static str| match naturals(item(key)?, key)?[..] {
            [from, to] if from < to => Ok((from as usize, to as usize)),
            _ => Err(missing(key)),
        };
        let cold_start_gbs = item("cold_start_gbs")?.as_float().ok_or_else(|| missing("cold_start_gbs"))?;
        Ok(Self {
            learn_minutes: pair("learn_minutes")?,
            race_minutes: pair("race_minutes")?,
            speedup: number("speedup")?.max(1),
            start: Span::from_millis(number("start_ms")?),
            sleep: Span::from_millis(number("sleep_ms")?),
            cold_start_gbs,
            seed: number("seed")?,
            keep_alives: naturals(item("keep_alive_s")?, "keep_alive_s")?
                .into_iter()
                .map(Span::from_secs)
                .collect(),
        })
    }

    /// A time of the recording at playing speed.
    pub(crate) fn played(&self, recorded: Span) -> Span {
        Span(recorded.0 / self.speedup)
    }

    pub(crate) fn recorded(&self, played: Span) -> Span {
        Span(played.0.saturating_mul(self.speedup))
    }
}

fn missing(key: &str) -> DemoError {
    DemoError::Manifest(format!("services.{key} is missing or not what it should be"))
}

fn natural(item: &Item, key: &str) -> Result<u64, DemoError> {
    item.as_integer().and_then(|n| u64::try_from(n).ok()).ok_or_else(|| missing(key))
}

fn naturals(item: &Item, key: &str) -> Result<Vec<u64>, DemoError> {
    let array = item.as_array().ok_or_else(|| missing(key))?;
    let numbers = array.iter().map(|v| v.as_integer().and_then(|n| u64::try_from(n).ok()));
    numbers.collect::<Option<Vec<u64>>>().ok_or_else(|| missing(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_manifest_loads_and_races_after_it_learned() {
        for runs in [RunsOn::Processes, RunsOn::Containers] {
            let services = Services::load(runs).unwrap();
            assert_eq!(services.learn_minutes.1, services.race_minutes.0);
            assert!(services.keep_alives.is_sorted());
            assert_eq!(services.recorded(services.start), Span::from_secs(12));
            // The whole demo, learning and table included, stays below three minutes.
            let minutes = (services.race_minutes.1 - services.race_minutes.0) as u64;
            assert!(services.played(Span::from_secs(60 * minutes)) <= Span::from_secs(150));
        }
    }

    #[test]
    fn a_key_that_is_missing_is_named() {
        let error = Services::parse("[services]\nspeedup = 1", RunsOn::Processes).unwrap_err().to_string();
        assert!(error.contains("services."), "{error}");
    }
}
