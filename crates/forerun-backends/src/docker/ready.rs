//! Whether a started container takes requests.

use super::address::candidates;
use super::engine::{Engine, EngineError};
use crate::output::Tail;
use bollard::models::{ContainerInspectResponse, HealthConfig, HealthStatusEnum};
use forerun_types::{Readiness, ServiceSpec};
use futures_util::StreamExt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

/// An attempt to connect that gets no answer: a started container's network refuses at once, or is not there.
const CONNECT: Duration = Duration::from_secs(1);
/// Long, because a service that listens before it serves answers the attempt that waits the moment it can.
const ANSWER: Duration = Duration::from_secs(2);
/// What one run of a health check may take unless it says so itself.
const CHECK: Duration = Duration::from_secs(30);
/// The status stands within the first bytes: `HTTP/1.1 204`.
const STATUS_BYTES: usize = 12;
/// Bytes of an answer that are read so that closing does not cut it short.
const ANSWER_BYTES_MAX: u64 = 64 << 10;

/// A container that is being waited for.
#[derive(Clone, Debug)]
pub(super) struct Waited {
    pub(super) id: String,
    places: Vec<SocketAddr>,
    check: Option<HealthConfig>,
    pub(super) started_secs: i32,
}

impl Waited {
    /// # Errors
    /// Nothing can reach it, or the engine does not say.
    pub(super) async fn new(
        engine: &Engine,
        found: &ContainerInspectResponse,
        spec: &ServiceSpec,
    ) -> Result<Self, String> {
        let check = found.config.as_ref().and_then(|config| config.healthcheck.clone());
        Ok(Self {
            id: found.id.clone().unwrap_or_default(),
            places: candidates(engine, found, spec).await?,
            check: check.filter(|check| command_of(check).is_some()),
            started_secs: started_secs(found),
        })
    }

    /// Where it most likely answers.
    pub(super) fn first_place(&self) -> SocketAddr {
        // `candidates` never gives none.
        self.places.first().copied().unwrap_or_else(|| SocketAddr::from(([0, 0, 0, 0], 0)))
    }

    /// Waits until it is ready, for as long as that takes. Returns where it answers.
    pub(super) async fn ready(&self, engine: &Engine, spec: &ServiceSpec) -> Result<SocketAddr, String> {
        let place = match &spec.ready {
            Readiness::None => self.first_place(),
            Readiness::Tcp => self.knock(None).await,
            Readiness::Http { path } => self.knock(Some(path)).await,
            Readiness::Log { text } => {
                self.says(engine, text).await?;
                self.nearest().await
            }
            Readiness::Health => match &self.check {
                Some(check) => {
                    self.healthy(engine, check).await?;
                    self.nearest().await
                }
                None if self.first_place().port() == 0 => self.first_place(),
                None => self.knock(None).await,
            },
        };
        sleep(spec.settle.into()).await;
        Ok(place)
    }

    /// Tries its places in turn until one answers.
    async fn knock(&self, path: Option<&str>) -> SocketAddr {
        let began = Instant::now();
        loop {
            for place in &self.places {
                if answers(*place, path).await {
                    return *place;
                }
            }
            sleep(pause(began.elapsed())).await;
        }
    }

    /// The place that accepts a connection, where readiness is told otherwise; the likeliest if none does.
    pub(super) async fn nearest(&self) -> SocketAddr {
        if self.places.len() > 1 {
            for place in &self.places {
                if matches!(timeout(CONNECT, TcpStream::connect(place)).await, Ok(Ok(_))) {
                    return *place;
                }
            }
        }
        self.first_place()
    }

    /// Waits for a line of its log. A log that cannot be followed is tried again: its driver may keep none.
    async fn says(&self, engine: &Engine, text: &str) -> Result<(), String> {
        let mut pause = Duration::from_millis(20);
        loop {
            let mut tail = Tail::default();
            let mut log = engine.log(&self.id, self.started_secs);
            while let Some(piece) = log.next().await {
                match piece {
                    Ok(piece) => {
                        if tail.push(&piece.into_bytes(), Some(text)) {
                            return Ok(());
                        }
                    }
                    Err(error) => match engine.failed("follow its log", &error) {
                        refused @ EngineError::Refused { .. } => return Err(refused.to_string()),
                        _ => break,
                    },
                }
            }
            sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Runs the check that the image brings, as the engine would. The engine itself first does so after a whole
    /// interval, by default half a minute.
    async fn healthy(&self, engine: &Engine, check: &HealthConfig) -> Result<(), String> {
        let Some(command) = command_of(check) else { return Ok(()) };
        let nanos = u64::try_from(check.timeout.unwrap_or(0)).unwrap_or(0);
        let within = if nanos == 0 { CHECK } else { Duration::from_nanos(nanos) };
        loop {
            let began = Instant::now();
            match engine.exec(&self.id, command.clone(), Vec::new(), within).await {
                Ok((0, _)) => return Ok(()),
                Ok(_) | Err(EngineError::NoAnswer { .. } | EngineError::Unreachable { .. }) => {}
                // It is not running any more, or cannot run commands: its end tells, or the engine's own check does.
                Err(_) => {
                    let state = engine.inspect(&self.id).await.ok().and_then(|found| found.state);
                    let health = state.and_then(|state| state.health?.status);
                    if health == Some(HealthStatusEnum::HEALTHY) {
                        return Ok(());
                    }
                }
            }
            // A check may be heavy: at most half of the time is its own.
            sleep(began.elapsed().clamp(Duration::from_millis(50), Duration::from_secs(5))).await;
        }
    }
}

/// The command of a health check; `None` if there is none or it is switched off.
fn command_of(check: &HealthConfig) -> Option<Vec<String>> {
    let (kind, rest) = check.test.as_deref()?.split_first()?;
    match kind.as_str() {
        "CMD" if !rest.is_empty() => Some(rest.to_vec()),
        "CMD-SHELL" => Some(vec!["/bin/sh".to_owned(), "-c".to_owned(), rest.join(" ")]),
        _ => None,
    }
}

/// Whether a GET answers 2xx or 3xx there, or without a path a connection is accepted.
async fn answers(place: SocketAddr, path: Option<&str>) -> bool {
    let Ok(Ok(mut stream)) = timeout(CONNECT, TcpStream::connect(place)).await else { return false };
    let Some(path) = path else { return true };
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: localhost:{}\r\nUser-Agent: forerun\r\nAccept: */*\r\nConnection: close\r\n\r\n",
        place.port()
    );
    let ask = async {
        stream.write_all(request.as_bytes()).await.ok()?;
        let mut head = [0; STATUS_BYTES];
        stream.read_exact(&mut head).await.ok()?;
        let good = head.starts_with(b"HTTP/1.") && matches!(head[9], b'2' | b'3');
        let _ = tokio::io::copy(&mut stream.take(ANSWER_BYTES_MAX), &mut tokio::io::sink()).await;
        good.then_some(())
    };
    matches!(timeout(ANSWER, ask).await, Ok(Some(())))
}

/// Dense at first, since a wait is felt, and thinner the longer it takes anyway.
pub(super) fn pause(elapsed: Duration) -> Duration {
    (elapsed / 50).clamp(Duration::from_millis(2), Duration::from_millis(200))
}

/// Whole seconds since 1970 at which it was started, by the engine's clock; 0 if that cannot be read.
pub(super) fn started_secs(found: &ContainerInspectResponse) -> i32 {
    let at = found.state.as_ref().and_then(|state| state.started_at.as_deref()).unwrap_or_default();
    seconds(at).and_then(|secs| i32::try_from(secs).ok()).unwrap_or(0)
}

/// `2026-11-25T04:00:40.58Z` as seconds since 1970 (Hinnant, "days from civil").
fn seconds(text: &str) -> Option<i64> {
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<i64>().ok();
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year.rem_euclid(400);
    let of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    Some(days * 86_400 + number(11, 13)? * 3_600 + number(14, 16)? * 60 + number(17, 19)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_times_are_read() {
        for (text, secs) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("2000-02-29T12:30:15.123456789Z", Some(951_827_415)),
            ("2026-11-25T04:00:40.58Z", Some(1_795_579_240)),
            ("", None),
            ("soon", None),
        ] {
            assert_eq!(seconds(text), secs, "{text}");
        }
    }

    #[test]
    fn checks_are_commands() {
        let check = |test: &[&str], expected: Option<&[&str]>| {
            let test = Some(test.iter().map(|word| (*word).to_owned()).collect());
            let found = command_of(&HealthConfig { test, ..HealthConfig::default() });
            assert_eq!(
                found.as_deref(),
                expected.map(|words| words.iter().map(|w| (*w).to_owned()).collect::<Vec<_>>()).as_deref()
            );
        };
        check(&["CMD", "curl", "-f", "x"], Some(&["curl", "-f", "x"]));
        check(&["CMD-SHELL", "curl -f x || exit 1"], Some(&["/bin/sh", "-c", "curl -f x || exit 1"]));
        check(&["NONE"], None);
        check(&[], None);
        check(&["CMD"], None);
    }
}
