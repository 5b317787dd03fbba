//! What is asked of a running instance: to freeze, to thaw, to become a key's, to say whether it is busy.

use super::engine::{Engine, EngineError};
use super::keeper::Keeper;
use super::life::{Done, Held, PATIENCE};
use super::make;
use super::owner;
use crate::hooks::{self, BUSY_WITHIN, BusyFound, SPECIALISE_WITHIN};
use forerun_types::{Busy, Event, Hook, InstanceId, ServiceSpec, Specialise};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

pub(super) async fn pause(keeper: Rc<Keeper>, instance: InstanceId, held: Held) -> Done {
    let pause = async |engine: &Engine| already(engine.pause(&held.id).await, engine, &held.id, true).await;
    match keeper.link.insist(Instant::now() + PATIENCE, pause).await {
        Ok(()) => Done { event: Event::Paused { instance }, paused: Some(true), spec: None },
        Err(error) => not_changed(instance, error.to_string()),
    }
}

pub(super) async fn resume(keeper: Rc<Keeper>, instance: InstanceId, held: Held) -> Done {
    let began = Instant::now();
    let thaw = async |engine: &Engine| already(engine.unpause(&held.id).await, engine, &held.id, false).await;
    match keeper.link.insist(began + PATIENCE, thaw).await {
        Ok(()) => {
            let took = began.elapsed().into();
            Done { event: Event::Resumed { instance, took }, paused: Some(false), spec: None }
        }
        Err(error) => not_changed(instance, error.to_string()),
    }
}

/// Being so already is as good as becoming so: the first attempt's answer may have been lost.
async fn already(
    done: Result<(), EngineError>,
    engine: &Engine,
    id: &str,
    paused: bool,
) -> Result<(), EngineError> {
    let Err(error) = done else { return Ok(()) };
    if error.is_silence() || error.is_absent() {
        return Err(error);
    }
    let state = engine.inspect(id).await?.state.unwrap_or_default();
    let so = state.running == Some(true) && state.paused.unwrap_or(false) == paused;
    if so { Ok(()) } else { Err(error) }
}

fn not_changed(instance: InstanceId, why: String) -> Done {
    Done { event: Event::NotChanged { instance, why }, paused: None, spec: None }
}

pub(super) async fn specialise(
    keeper: Rc<Keeper>,
    instance: InstanceId,
    held: Held,
    address: SocketAddr,
    spec: Arc<ServiceSpec>,
) -> Done {
    let began = Instant::now();
    match become_its(&keeper, instance, &held, address, &spec).await {
        Ok(()) => {
            let took = began.elapsed().into();
            Done { event: Event::Specialised { instance, took }, paused: None, spec: Some(spec) }
        }
        Err(why) => not_changed(instance, why),
    }
}

async fn become_its(
    keeper: &Keeper,
    instance: InstanceId,
    held: &Held,
    address: SocketAddr,
    spec: &Arc<ServiceSpec>,
) -> Result<(), String> {
    if held.own {
        return Err("it runs in the user's own container, which is nobody's alone".to_owned());
    }
    if held.paused {
        return Err("it is paused".to_owned());
    }
    let (Some(variant), Some(adds)) = (&spec.variant, &spec.specialise) else {
        return Err("the order names no key".to_owned());
    };
    let Some(hook) = &adds.hook else {
        return Err(
            "the service has no hook (`specialise.hook`): only a start makes an instance a key's".to_owned()
        );
    };
    let key = variant.key.as_str();
    hooks::check_key(key).map_err(|error| error.to_string())?;
    let files = hooks::fill_files(&adds.files, key, None).map_err(|error| error.to_string())?;
    let until = Instant::now() + SPECIALISE_WITHIN;
    let engine = keeper.link.engine(until).await.map_err(|error| error.to_string())?;
    // Before it knows the key, and where the next life reads it: a generic one it shall never be again.
    let name = owner::claimed(&keeper.owner.name(spec, instance));
    let renamed = engine.rename(&held.id, &name).await;
    renamed.map_err(|error| error.to_string())?;
    if !files.is_empty() {
        let archive = make::archive(&files)?;
        engine.upload(&held.id, archive).await.map_err(|error| error.to_string())?;
    }
    run_hook(&engine, held, address, hook, key, adds).await?;
    let (paths, key, service) = (adds.preload.clone(), key.to_owned(), spec.name.clone());
    let left = until.saturating_duration_since(Instant::now());
    let loading = tokio::task::spawn_blocking(move || hooks::preload(address, &paths, &key, left));
    for warning in loading.await.unwrap_or_default() {
        tracing::warn!(service, warning, "a request before the first did not succeed");
    }
    Ok(())
}

async fn run_hook(
    engine: &Engine,
    held: &Held,
    address: SocketAddr,
    hook: &Hook,
    key: &str,
    adds: &Specialise,
) -> Result<(), String> {
    match hook {
        Hook::Http { path } => {
            let (path, key) = (path.clone(), key.to_owned());
            let asking = move || hooks::specialise_http(address, &path, &key, SPECIALISE_WITHIN);
            tokio::task::spawn_blocking(asking).await.map_err(|error| error.to_string())?
        }
        Hook::Command(words) => {
            let words = hooks::fill_args(words, key).map_err(|error| error.to_string())?;
            let mut env = vec![format!("FORERUN_KEY={key}"), format!("PORT={}", address.port())];
            env.extend(adds.env.iter().map(|(name, value)| format!("{name}={}", hooks::fill(value, key))));
            match engine.exec(&held.id, words, env, SPECIALISE_WITHIN).await {
                Ok((0, _)) => Ok(()),
                Ok((code, printed)) => Err(super::end::Ended::printed(&printed)
                    .with_lines(format!("the hook ended with exit code {code}"))),
                Err(error) => Err(error.to_string()),
            }
        }
    }
}

/// No answer is busy.
pub(super) async fn ask_busy(
    keeper: Rc<Keeper>,
    instance: InstanceId,
    held: Held,
    address: SocketAddr,
    spec: Arc<ServiceSpec>,
) {
    let BusyFound { busy, why } = match &spec.busy {
        None => BusyFound::free("the service has no `busy`"),
        Some(_) if held.paused => BusyFound::free("it is paused"),
        Some(Busy::Http { path, pointer }) => {
            let (path, pointer) = (path.clone(), pointer.clone());
            let asking = move || hooks::busy_http(address, &path, pointer.as_deref(), BUSY_WITHIN);
            let found = tokio::task::spawn_blocking(asking).await;
            found.unwrap_or_else(|error| BusyFound::busy(error.to_string()))
        }
        Some(Busy::Command(words)) => by_command(&keeper, &held, words).await,
        Some(Busy::Cpu { milli }) => {
            let rate =
                keeper.books.borrow().readings.get(&instance).and_then(|readings| readings.cpu_milli());
            by_rate(rate, *milli, "thousandths of a core")
        }
        Some(Busy::Network { bytes_per_s }) => {
            let readings = keeper.books.borrow().readings.get(&instance).copied();
            by_rate(
                readings.and_then(|readings| readings.network_bytes_per_s()),
                *bytes_per_s,
                "bytes a second",
            )
        }
    };
    // Nothing is told of an instance that has ended meanwhile.
    if keeper.books.borrow().runs.contains_key(&instance) {
        keeper.tell(Event::BusyAnswer { instance, busy, why });
    }
}

async fn by_command(keeper: &Keeper, held: &Held, words: &[String]) -> BusyFound {
    let until = Instant::now() + BUSY_WITHIN;
    let engine = match keeper.link.engine(until).await {
        Ok(engine) => engine,
        Err(error) => return BusyFound::busy(error.to_string()),
    };
    let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    match engine.exec(&held.id, words.to_vec(), Vec::new(), left).await {
        Ok((0, _)) => BusyFound::busy("its busy command ended with exit code 0"),
        // As a shell and the engine tell it.
        Ok((code @ (126 | 127), _)) => {
            BusyFound::busy(format!("its busy command cannot be run (exit code {code})"))
        }
        Ok((code, _)) => BusyFound::free(format!("its busy command ended with exit code {code}")),
        Err(error) => BusyFound::busy(error.to_string()),
    }
}

fn by_rate(rate: Option<u64>, floor: u64, unit: &str) -> BusyFound {
    match rate {
        None => BusyFound::busy("what it uses has not been read twice yet"),
        Some(rate) => {
            BusyFound { busy: rate > floor, why: format!("it uses {rate} {unit}, and {floor} is idle") }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_busy_above_its_floor() {
        assert!(by_rate(None, 50, "x").busy);
        assert!(by_rate(Some(51), 50, "x").busy && !by_rate(Some(50), 50, "x").busy);
        assert_eq!(by_rate(Some(7), 50, "bytes a second").why, "it uses 7 bytes a second, and 50 is idle");
    }
}
