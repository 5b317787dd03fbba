//! What is played, from the committed manifest.

use crate::{DemoError, RunsOn};
use forerun_types::Span;
use toml_edit::{Document, Item};

const MANIFEST: &str = include_str!("../manifest.toml");

/// How one act is played.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Rules {
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
    /// Requests that an instance serves at a time; 0 is any number.
    pub(crate) concurrency: u32,
    /// What the recording does not tell.
    pub(crate) untold: Untold,
}

/// What only some recordings tell; the manifest says it for the others.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Untold {
    /// What names the service of a logged request.
    pub(crate) service: String,
    pub(crate) memory_bytes: u64,
    /// How long a request takes, at recorded speed.
    pub(crate) duration: Span,
}

impl Rules {
    /// Of the act of this name.
    ///
    /// # Errors
    /// A manifest that does not have what it must have.
    pub(crate) fn load(act: &str, runs: RunsOn) -> Result<Self, DemoError> {
        Self::parse(MANIFEST, act, runs)
    }

    fn parse(text: &str, act: &str, runs: RunsOn) -> Result<Self, DemoError> {
        let document = Document::parse(text).map_err(|e| DemoError::Manifest(e.message().to_owned()))?;
        let missing = |key: &str| missing(act, key);
        let table = document.get(act).ok_or_else(|| missing(""))?;
        let own = match runs {
            RunsOn::Processes => None,
            RunsOn::Containers => table.get("docker"),
        };
        let item = |key: &'static str| {
            own.and_then(|own| own.get(key)).or_else(|| table.get(key)).ok_or_else(|| missing(key))
        };
        let number = |key: &'static str| natural(item(key)?).ok_or_else(|| missing(key));
        let numbers = |key: &'static str| naturals(item(key)?).ok_or_else(|| missing(key));
        let pair = |key: &'static str| match numbers(key)?[..] {
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
            keep_alives: numbers("keep_alive_s")?.into_iter().map(Span::from_secs).collect(),
            concurrency: u32::try_from(number("concurrency")?).map_err(|_| missing("concurrency"))?,
            untold: match table.get("memory_mb") {
                None => Untold::default(),
                Some(_) => Untold {
                    service: item("service")?.as_str().ok_or_else(|| missing("service"))?.to_owned(),
                    memory_bytes: number("memory_mb")? * 1_000_000,
                    duration: Span::from_millis(number("duration_ms")?),
                },
            },
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

fn missing(act: &str, key: &str) -> DemoError {
    DemoError::Manifest(format!("{act}.{key} is missing or not what it should be"))
}

fn natural(item: &Item) -> Option<u64> {
    item.as_integer().and_then(|n| u64::try_from(n).ok())
}

fn naturals(item: &Item) -> Option<Vec<u64>> {
    item.as_array()?.iter().map(|v| v.as_integer().and_then(|n| u64::try_from(n).ok())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_manifest_loads_and_races_after_it_learned() {
        for runs in [RunsOn::Processes, RunsOn::Containers] {
            let mut played = Span::ZERO;
            for (act, start) in [("services", 12), ("users", 10)] {
                let rules = Rules::load(act, runs).unwrap();
                assert_eq!(rules.learn_minutes.1, rules.race_minutes.0);
                assert!(rules.keep_alives.is_sorted());
                assert_eq!(rules.recorded(rules.start).as_secs_f64().round() as u64, start);
                let minutes = (rules.race_minutes.1 - rules.race_minutes.0) as u64;
                played = played + rules.played(Span::from_secs(60 * minutes));
            }
            // The whole demo, learning and tables included, stays below four minutes.
            assert!(played <= Span::from_secs(200), "{played}");
        }
    }

    #[test]
    fn a_key_that_is_missing_is_named() {
        let error =
            Rules::parse("[services]\nspeedup = 1", "services", RunsOn::Processes).unwrap_err().to_string();
        assert!(error.contains("services."), "{error}");
    }
}
