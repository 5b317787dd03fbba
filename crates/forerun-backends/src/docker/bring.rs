//! From the order to start to a container that takes requests.

use super::books::{Hold, own_name};
use super::clone;
use super::end::{Ended, has_ended};
use super::engine::{Engine, EngineError};
use super::image::Pull;
use super::life::{Held, Life, PATIENCE, grace_of, ordered_to_stop};
use super::make::{self, Recipe};
use super::owner::instance_of;
use super::ready::Waited;
use crate::hooks;
use bollard::models::ContainerInspectResponse;
use forerun_types::{Container, Event, Launch, Readiness};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::time::{sleep, sleep_until, timeout_at};

/// What a container that was to become ready gets to end: it serves nobody, and may be somebody's database.
const GRACE_OWN: Duration = Duration::from_secs(10);
const GRACE_MADE: Duration = Duration::from_secs(1);
/// For cleaning up after a start that failed; what is left then goes when the engine is looked at anew.
const CLEANING: Duration = Duration::from_secs(20);

/// Between looks at whether a container that is being stopped has ended.
const ENDING: Duration = Duration::from_millis(10);

const LATE: &str = "not ready after";

/// Why a start came to nothing.
#[derive(Debug)]
pub(super) enum Fall {
    /// It was ordered to stop.
    Stopped,
    Failed(String),
    /// By itself, before it was ready.
    Ended(String),
    /// It has done what it was to do already.
    Completed(SocketAddr),
    /// What is left of a start that the engine died in; it can never be started again.
    Husk(String),
}

impl From<EngineError> for Fall {
    fn from(error: EngineError) -> Self {
        Self::Failed(error.to_string())
    }
}

/// A container, not started yet.
struct Got {
    id: String,
    own: bool,
    /// Frozen: it is thawed instead.
    paused: bool,
}

/// Starts an instance's container and waits until it is ready.
pub(super) async fn up(life: &mut Life, ordered: Instant) -> Result<(Held, SocketAddr), Fall> {
    check(life).map_err(Fall::Failed)?;
    let timeout = life.spec.start_timeout;
    let until = ordered + Duration::from(timeout).min(Duration::from_secs(365 * 86_400));
    let fall = match up_until(life, until).await {
        Ok(up) => return Ok(up),
        Err(fall) => fall,
    };
    Err(match fall {
        Fall::Husk(why) => Fall::Failed(why),
        Fall::Failed(why) if Instant::now() >= until && !why.starts_with(LATE) => {
            Fall::Failed(format!("{LATE} {timeout}: {why}"))
        }
        fall => fall,
    })
}

async fn up_until(life: &mut Life, until: Instant) -> Result<(Held, SocketAddr), Fall> {
    let mut got = get(life, until).await?;
    if got.own {
        life.keeper.tell(Event::IsOwn { instance: life.instance });
    }
    let mut started = started(life, &got, until).await;
    if let (Err(Fall::Husk(why)), false) = (&started, got.own) {
        tracing::warn!(instance = %life.instance, why, "making a container anew");
        life.keeper.link.insist(until, async |engine| gone(engine.remove(&got.id).await)).await?;
        life.keeper.books.borrow_mut().release(&got.id);
        got = get(life, until).await?;
        started = self::started(life, &got, until).await;
    }
    let held = match started {
        Ok(held) => held,
        Err(fall) => return Err(fail_unready(life, &got, fall).await),
    };
    match wait(life, &held, until).await {
        Ok(address) => Ok((held, address)),
        Err(fall) => Err(fail(life, &held, fall).await),
    }
}

async fn started(life: &mut Life, got: &Got, until: Instant) -> Result<Held, Fall> {
    let _turn = turn(life, until).await?;
    start(life, got, until).await
}

/// What is not there any more is removed.
fn gone(removed: Result<(), EngineError>) -> Result<(), EngineError> {
    removed.or_else(|error| if error.is_absent() { Ok(()) } else { Err(error) })
}

fn check(life: &Life) -> Result<(), String> {
    match &life.spec.ready {
        Readiness::Http { path }
            if !path.starts_with('/') || path.contains(|c: char| c == ' ' || c.is_control()) =>
        {
            Err(format!("the ready path `{}` must start with / and hold no blanks", path.escape_debug()))
        }
        _ => Ok(()),
    }
}

/// The user's own container if it is free, else a new one.
async fn get(life: &mut Life, until: Instant) -> Result<Got, Fall> {
    let spec = Arc::clone(&life.spec);
    let Launch::Container(launch) = &spec.launch else {
        return Err(Fall::Failed("the docker backend runs containers, and this service has none".to_owned()));
    };
    let recipe = match &launch.own {
        Some(name) => {
            let own = own(life, name, until).await?;
            let id = own.id.clone().unwrap_or_default();
            if own_name(&spec).is_some() && held(life, name, &id, until).await? {
                // It may have been waited for.
                let own = self::own(life, name, until).await?;
                let paused = own.state.is_some_and(|state| state.paused == Some(true));
                return Ok(Got { id, own: true, paused });
            }
            clone::like(&own).map_err(Fall::Failed)?
        }
        None => from_image(life, launch, until).await?,
    };
    stopped(life)?;
    make(life, recipe, until).await
}

/// Whether the user's own container is this instance's now. One that is just being stopped is waited for: a clone
/// beside it would write to the same mounts.
async fn held(life: &mut Life, name: &str, id: &str, until: Instant) -> Result<bool, Fall> {
    loop {
        match life.keeper.books.borrow_mut().hold_or_wait(id, life.instance) {
            Hold::Got => return Ok(true),
            Hold::Taken => return Ok(false),
            Hold::Wait => {}
        }
        tokio::select! {
            () = ordered_to_stop(&mut life.stop) => return Err(Fall::Stopped),
            () = sleep_until(until.into()) => {
                let after = life.spec.start_timeout;
                return Err(Fall::Failed(format!("{LATE} {after}: the container `{name}` is still being stopped")));
            }
            () = sleep(ENDING) => {}
        }
    }
}

async fn own(life: &Life, name: &str, until: Instant) -> Result<ContainerInspectResponse, Fall> {
    let own = life.keeper.link.insist(until, async |engine| engine.inspect(name).await).await;
    let own = own.map_err(|error| match error.is_absent() {
        true => Fall::Failed(format!(
            "the container `{name}` does not exist; create it as before (`docker compose up --no-start`, or `docker \
             create`), and it is found"
        )),
        false => error.into(),
    })?;
    if own.host_config.as_ref().is_some_and(|host| host.auto_remove == Some(true)) {
        return Err(Fall::Failed(format!(
            "the container `{name}` was made with `--rm` and would be lost when it stops; make it without"
        )));
    }
    Ok(own)
}

async fn from_image(life: &mut Life, launch: &Container, until: Instant) -> Result<Recipe, Fall> {
    if launch.image.is_empty() {
        return Err(Fall::Failed("the service names neither a container nor an image".to_owned()));
    }
    let keeper = Rc::clone(&life.keeper);
    let look = async || keeper.link.insist(until, async |engine| engine.image(&launch.image).await).await;
    let image = match look().await {
        Err(error) if error.is_absent() => {
            pull(life, &launch.image, until).await?;
            look().await?
        }
        other => other?,
    };
    let engine = keeper.link.engine(until).await?;
    make::from_image(&life.spec, launch, &image, keeper.manner(&engine)).map_err(Fall::Failed)
}

/// Waits for a pull, and tells how far it is.
async fn pull(life: &mut Life, image: &str, until: Instant) -> Result<(), Fall> {
    let engine = life.keeper.link.engine(until).await?;
    let mut pull = life.keeper.images.pull(&engine, image);
    let instance = life.instance;
    loop {
        let now = pull.borrow_and_update().clone();
        let what = match now {
            Pull::Done => return Ok(()),
            Pull::Failed(why) => return Err(Fall::Failed(format!("cannot pull `{image}`: {why}"))),
            Pull::Running(what) => what,
        };
        life.keeper.tell(Event::Progress { instance, what: what.clone() });
        tokio::select! {
            changed = pull.changed() => if changed.is_err() {
                return Err(Fall::Failed(format!("cannot pull `{image}`: it was given up")));
            },
            () = ordered_to_stop(&mut life.stop) => return Err(Fall::Stopped),
            () = sleep_until(until.into()) => {
                let after = life.spec.start_timeout;
                return Err(Fall::Failed(format!("{LATE} {after}: still {what}; the pull goes on")));
            }
        }
    }
}

fn stopped(life: &Life) -> Result<(), Fall> {
    if life.stop.borrow().is_some() { Err(Fall::Stopped) } else { Ok(()) }
}

/// Makes a container. Whatever comes of the order, there is at most one of this name.
async fn make(life: &Life, mut recipe: Recipe, until: Instant) -> Result<Got, Fall> {
    let keeper = &life.keeper;
    let engine = keeper.link.engine(until).await?;
    recipe.finish(&life.spec, life.instance, &keeper.owner, keeper.manner(&engine)).map_err(Fall::Failed)?;
    let archive = match recipe.files.is_empty() {
        true => None,
        false => Some(make::archive(&recipe.files).map_err(Fall::Failed)?),
    };
    let name = keeper.owner.name(&life.spec, life.instance);
    let _turn = keeper.turns.acquire().await;
    let id = keeper.link.insist(until, async |engine| create(life, engine, &name, &recipe).await).await;
    let id = match id {
        Ok(id) => id,
        Err(error) => {
            // An engine that fell silent may have made it all the same.
            if error.is_silence() {
                keeper.look.notify_one();
            }
            return Err(error.into());
        }
    };
    let got = Got { id, own: false, paused: false };
    keeper.books.borrow_mut().hold(&got.id, life.instance);
    let mut outfit = Ok(());
    for (network, endpoint) in &recipe.networks {
        let join = async |engine: &Engine| engine.join(&got.id, network, endpoint.clone()).await;
        outfit = outfit.and(keeper.link.insist(until, join).await);
    }
    if let (Ok(()), Some(archive)) = (&outfit, archive) {
        let upload = async |engine: &Engine| engine.upload(&got.id, archive.clone()).await;
        outfit = keeper.link.insist(until, upload).await;
    }
    match outfit {
        Ok(()) => Ok(got),
        Err(error) => Err(fail_unready(life, &got, error.into()).await),
    }
}

async fn create(life: &Life, engine: &Engine, name: &str, recipe: &Recipe) -> Result<String, EngineError> {
    match engine.create(name, recipe.body.clone()).await {
        Err(error) if error.is_conflict() => {
            // The first attempt's answer was lost on its way, and not the order.
            let there = engine.inspect(name).await?;
            let labels = there.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
            let ours = life.keeper.owner.made(&labels) && instance_of(&labels) == Some(life.instance);
            there.id.filter(|_| ours).ok_or(error)
        }
        other => other,
    }
}

/// Waits for a turn at the engine.
async fn turn(life: &mut Life, until: Instant) -> Result<tokio::sync::OwnedSemaphorePermit, Fall> {
    let turns = Arc::clone(&life.keeper.turns);
    tokio::select! {
        biased;
        () = ordered_to_stop(&mut life.stop) => Err(Fall::Stopped),
        turn = timeout_at(until.into(), turns.acquire_owned()) => match turn {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(Fall::Failed(format!(
                "{LATE} {}: the engine was busy with other starts",
                life.spec.start_timeout
            ))),
        },
    }
}

/// Starts what was got, or thaws it, and looks at what it is now.
async fn start(life: &Life, got: &Got, until: Instant) -> Result<Held, Fall> {
    let link = &life.keeper.link;
    match got.paused {
        true => link.insist(until, async |engine| engine.unpause(&got.id).await).await?,
        false => {
            let started = link.insist(until, async |engine| engine.start(&got.id).await).await;
            started.map_err(|error| match error.is_husk() {
                true => Fall::Husk(format!(
                    "{error}; it is left of a start that the engine died in: remove the container and make it anew"
                )),
                false => error.into(),
            })?;
        }
    }
    let found = link.insist(until, async |engine| engine.inspect(&got.id).await).await?;
    let engine = link.engine(until).await?;
    let started_at = found.state.as_ref().and_then(|state| state.started_at.clone()).unwrap_or_default();
    if has_ended(&found, &started_at) {
        let saw_oom = life.keeper.books.borrow().saw_oom(&got.id);
        let ended = Ended::of(&engine, &got.id, saw_oom).await?;
        return Err(ended_early(life, &ended, SocketAddr::from(([0, 0, 0, 0], 0))));
    }
    let waited = Waited::new(&engine, &found, &life.spec).await.map_err(Fall::Failed)?;
    let grace_max = grace_of(&found, got.own);
    Ok(Held { id: got.id.clone(), own: got.own, started_at, waited, paused: false, grace_max })
}

/// Waits until it is ready, ends, is ordered to stop, or its time is over.
async fn wait(life: &mut Life, held: &Held, until: Instant) -> Result<SocketAddr, Fall> {
    let keeper = Rc::clone(&life.keeper);
    let (instance, spec) = (life.instance, Arc::clone(&life.spec));
    let look = Rc::clone(&life.look);
    let mut stop = life.stop.clone();
    let ready = async {
        let engine = keeper.link.engine(until).await.map_err(|error| error.to_string())?;
        let address = held.waited.ready(&engine, &spec).await?;
        let left = until.saturating_duration_since(Instant::now());
        preload(&spec, address, left).await;
        Ok::<_, String>(address)
    };
    tokio::pin!(ready);
    // Its end may have been told before anybody listened.
    look.notify_one();
    loop {
        tokio::select! {
            biased;
            () = ordered_to_stop(&mut stop) => return Err(Fall::Stopped),
            address = &mut ready => {
                let address = address.map_err(Fall::Failed)?;
                // It may have ended just now, and another container have its address and answer there.
                return early_end(life, held).await.map_or(Ok(address), Err);
            }
            () = look.notified() => {
                if let Some(fall) = early_end(life, held).await {
                    return Err(fall);
                }
            }
            Some(change) = life.changes.recv() => {
                keeper.tell(change.refused(instance, "it is starting"));
            }
            () = sleep_until(until.into()) => {
                return Err(Fall::Failed(format!("{LATE} {}", life.spec.start_timeout)));
            }
        }
    }
}

/// What a key's requests will need is fetched before the first of them.
async fn preload(spec: &Arc<forerun_types::ServiceSpec>, address: SocketAddr, within: Duration) {
    let (Some(variant), Some(adds)) = (&spec.variant, &spec.specialise) else { return };
    if adds.preload.is_empty() {
        return;
    }
    let (paths, key, service) = (adds.preload.clone(), variant.key.clone(), spec.name.clone());
    let loading = tokio::task::spawn_blocking(move || hooks::preload(address, &paths, &key, within));
    for warning in loading.await.unwrap_or_default() {
        tracing::warn!(service, warning, "a request before the first did not succeed");
    }
}

/// Whether it ended before it was ready.
async fn early_end(life: &Life, held: &Held) -> Option<Fall> {
    let engine = life.keeper.link.get()?;
    match engine.inspect(&held.id).await {
        Ok(found) if !has_ended(&found, &held.started_at) => return None,
        Ok(_) => {}
        Err(error) if error.is_absent() => {}
        Err(_) => return None,
    }
    let saw_oom = life.keeper.books.borrow().saw_oom(&held.id);
    let ended = Ended::of(&engine, &held.id, saw_oom).await.ok()?;
    Some(ended_early(life, &ended, held.waited.first_place()))
}

/// What is there to be done once has nothing to be ready for.
fn ended_early(life: &Life, ended: &Ended, address: SocketAddr) -> Fall {
    match life.is_once() && ended.is_completed() {
        true => Fall::Completed(address),
        false => Fall::Ended(format!("ended before it was ready: {}", ended.sentence())),
    }
}

/// Cleans up after a container that did not become ready; what it printed is part of the reason.
async fn fail(life: &mut Life, held: &Held, fall: Fall) -> Fall {
    match fall {
        Fall::Stopped => {
            // It serves nobody yet. A program's first instants are also those in which it hears no signal.
            life.halt(held, GRACE_OWN).await;
            life.let_go(held, false);
            Fall::Stopped
        }
        Fall::Completed(_) | Fall::Ended(_) | Fall::Husk(_) => {
            life.let_go(held, false);
            fall
        }
        Fall::Failed(why) => {
            let lines = match life.keeper.link.get() {
                Some(engine) => {
                    engine.last_lines(&held.id, 20, held.waited.started_secs).await.unwrap_or_default()
                }
                None => Vec::new(),
            };
            let got = Got { id: held.id.clone(), own: held.own, paused: false };
            clean(life, &got).await;
            Fall::Failed(Ended::printed(&lines).with_lines(why))
        }
    }
}

/// Cleans up after a container that could not even be started.
async fn fail_unready(life: &Life, got: &Got, fall: Fall) -> Fall {
    match fall {
        Fall::Ended(_) | Fall::Completed(_) if !got.own => life.keeper.remove(got.id.clone()),
        Fall::Ended(_) | Fall::Completed(_) => {}
        _ => clean(life, got).await,
    }
    fall
}

/// An engine that does not answer is not waited for: what is left goes when it is looked at anew.
async fn clean(life: &Life, got: &Got) {
    let until = Instant::now() + CLEANING.min(PATIENCE);
    let grace = if got.own { GRACE_OWN } else { GRACE_MADE };
    life.keeper.stops.borrow_mut().begin(&got.id, grace);
    let stopped = life.keeper.link.insist(until, async |engine| engine.stop(&got.id, grace).await).await;
    life.keeper.stops.borrow_mut().end(&got.id);
    if let Err(error) = stopped
        && !error.is_absent()
    {
        tracing::warn!(instance = %life.instance, %error, "cannot stop a container whose start failed");
    }
    if !got.own {
        life.keeper.remove(got.id.clone());
    }
}
