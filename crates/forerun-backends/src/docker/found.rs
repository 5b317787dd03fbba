//! What runs and is nobody's: told of when it is ready, and removed if it is Forerun's and nobody wants it.

use super::books::{Found, own_name};
use super::engine::{Engine, EngineError};
use super::keeper::Keeper;
use super::labelled::name_of;
use super::owner::{INSTANCE, LIFE, SERVICE, instance_of, is_claimed};
use super::ready::Waited;
use bollard::models::ContainerInspectResponse;
use forerun_types::{Event, InstanceId, ServiceId, ServiceSpec};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long what Forerun made waits for its service to be known, or to be adopted.
const ADOPTION: Duration = Duration::from_secs(60);
/// What nobody wants gets to end before it is removed.
const GRACE: Duration = Duration::from_secs(10);

/// Looks at everything: what runs was found or is missed, what is left over goes.
pub(super) async fn look(keeper: &Rc<Keeper>, engine: &Engine) -> Result<(), EngineError> {
    let services: Vec<Arc<ServiceSpec>> = keeper.books.borrow().services.values().cloned().collect();
    let mut there = HashSet::new();
    let mut own_there: BTreeMap<ServiceId, bool> = BTreeMap::new();
    for summary in engine.list(&keeper.owner.filter()).await? {
        if let Some(id) = summary.id {
            there.insert(id.clone());
            one(keeper, engine, &id).await?;
        }
    }
    for spec in &services {
        let Some(name) = own_name(spec) else { continue };
        match engine.inspect(name).await {
            Ok(own) => {
                there.insert(own.id.clone().unwrap_or_default());
                own_there.insert(spec.id, true);
                consider(keeper, engine, &own).await?;
            }
            Err(error) if error.is_absent() => {
                own_there.insert(spec.id, false);
            }
            Err(error) => return Err(error),
        }
    }
    own_there
        .iter()
        .filter(|(_, there)| !**there)
        .for_each(|(service, _)| own_state(keeper, *service, false));
    // Of what is made from an image alone nothing runs, unless something is about to be told as found.
    if keeper.books.borrow().found.is_empty() {
        services.iter().filter(|s| own_name(s).is_none()).for_each(|s| own_state(keeper, s.id, true));
    }
    settle(keeper, &there);
    images(keeper, engine).await
}

/// What is known without being there goes.
fn settle(keeper: &Keeper, there: &HashSet<String>) {
    let mut books = keeper.books.borrow_mut();
    books.look_all();
    let lost: Vec<String> = books.found.keys().filter(|id| !there.contains(*id)).cloned().collect();
    lost.iter().for_each(|id| books.unfind(id));
}

async fn images(keeper: &Keeper, engine: &Engine) -> Result<(), EngineError> {
    let mut present = HashMap::new();
    for image in keeper.wanted_images() {
        let there = match engine.image(&image).await {
            Ok(_) => true,
            Err(error) if error.is_absent() => false,
            Err(error) if error.is_silence() => return Err(error),
            // A name that the engine does not take; the start says so.
            Err(_) => true,
        };
        present.insert(image, there);
    }
    keeper.fetch_images(engine, &present);
    Ok(())
}

/// Looks at one container that something happened to.
pub(super) async fn one(keeper: &Rc<Keeper>, engine: &Engine, id: &str) -> Result<(), EngineError> {
    match engine.inspect(id).await {
        Ok(found) => consider(keeper, engine, &found).await,
        Err(error) if error.is_absent() => {
            let mut books = keeper.books.borrow_mut();
            let gone = books.own_ids.remove(id);
            books.unfind(id);
            drop(books);
            if let Some(service) = gone {
                own_state(keeper, service, false);
            }
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// What a container is to Forerun.
enum Whose {
    /// A known service's, as its own container or made for it.
    Service(Arc<ServiceSpec>),
    /// Made by this installation, for an instance that has ended or for no known service.
    LeftOver,
    /// Made by this life for an instance that is just being started.
    Coming,
    Nobody,
}

async fn consider(
    keeper: &Rc<Keeper>,
    engine: &Engine,
    found: &ContainerInspectResponse,
) -> Result<(), EngineError> {
    let id = found.id.clone().unwrap_or_default();
    let held = keeper.books.borrow().holder(&id).is_some();
    let labels = found.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
    let made = keeper.owner.made(&labels);
    let whose = whose(keeper, found, &labels, made);
    let state = found.state.clone().unwrap_or_default();
    let runs = state.running == Some(true) && state.restarting != Some(true);
    if let (Whose::Service(spec), false) = (&whose, made) {
        keeper.books.borrow_mut().own_ids.insert(id.clone(), spec.id);
        match held || state.running == Some(true) {
            // The next stop is news again.
            true => {
                keeper.books.borrow_mut().own_state.remove(&spec.id);
            }
            false => own_state(keeper, spec.id, true),
        }
    }
    if held {
        return Ok(());
    }
    match whose {
        Whose::Nobody | Whose::Coming => {}
        Whose::LeftOver => left_over(keeper, id, state.running == Some(true)),
        Whose::Service(_) if made && (!runs || is_claimed(&name_of(found))) => {
            left_over(keeper, id, state.running == Some(true));
        }
        Whose::Service(spec) if runs => {
            let auto_remove = found.host_config.as_ref().is_some_and(|host| host.auto_remove == Some(true));
            if auto_remove && !made {
                tracing::warn!(
                    container = name_of(found),
                    "left alone: it was made with `--rm` and would be lost when it stops"
                );
                return Ok(());
            }
            wait(keeper, engine, found, spec, made.then(|| instance_of(&labels)).flatten()).await;
        }
        Whose::Service(_) => keeper.books.borrow_mut().unfind(&id),
    }
    Ok(())
}

fn whose(
    keeper: &Keeper,
    found: &ContainerInspectResponse,
    labels: &HashMap<String, String>,
    made: bool,
) -> Whose {
    let books = keeper.books.borrow();
    if !made {
        // What another installation made is never a person's own.
        let own = books.owner_of(&name_of(found)).filter(|_| !labels.contains_key(INSTANCE));
        return own.map_or(Whose::Nobody, |spec| Whose::Service(Arc::clone(spec)));
    }
    if let (true, Some(instance)) = (labels.get(LIFE) == Some(&keeper.owner.life), instance_of(labels)) {
        // An engine that fell silent may carry out an order to make one after that instance's end.
        return if books.runs.contains_key(&instance) { Whose::Coming } else { Whose::LeftOver };
    }
    match labels.get(SERVICE).and_then(|service| books.named(service)) {
        Some(spec) => Whose::Service(Arc::clone(spec)),
        // Services may be told of late: containers' labels are read first.
        None if books.known_since.is_none_or(|since| since.elapsed() < ADOPTION) => Whose::Nobody,
        None => Whose::LeftOver,
    }
}

/// Told once for each change.
fn own_state(keeper: &Keeper, service: ServiceId, there: bool) {
    let news = keeper.books.borrow_mut().own_state.insert(service, there) != Some(there);
    if news {
        keeper.tell(Event::OwnState { service, there });
    }
}

/// Removes what this installation made and nobody wants.
fn left_over(keeper: &Rc<Keeper>, id: String, runs: bool) {
    keeper.books.borrow_mut().unfind(&id);
    if !runs {
        return keeper.remove(id);
    }
    let keeper = Rc::clone(keeper);
    tokio::task::spawn_local(async move {
        let until = Instant::now() + 3 * GRACE;
        // It is removed by force in any case.
        let _ = keeper.link.insist(until, async |engine| engine.stop(&id, GRACE).await).await;
        keeper.remove(id);
    });
}

/// Waits until it is ready and tells of it; removes what Forerun made and nobody adopts.
async fn wait(
    keeper: &Rc<Keeper>,
    engine: &Engine,
    found: &ContainerInspectResponse,
    spec: Arc<ServiceSpec>,
    was: Option<InstanceId>,
) {
    let id = found.id.clone().unwrap_or_default();
    let paused = found.state.as_ref().is_some_and(|state| state.paused == Some(true));
    let known = keeper.books.borrow().found.get(&id).map(|found| found.told);
    match known {
        None => {}
        Some(Some(told)) if was.is_some() && told.elapsed() > ADOPTION => {
            return left_over(keeper, id, true);
        }
        Some(_) => return,
    }
    let waited = match Waited::new(engine, found, &spec).await {
        Ok(waited) => waited,
        Err(why) => {
            tracing::warn!(service = spec.name, why, "what runs cannot be taken over");
            return;
        }
    };
    let (keeper_too, engine, key) = (Rc::clone(keeper), engine.clone(), id.clone());
    let waiting = tokio::task::spawn_local(async move {
        let address = match paused {
            true => Ok(waited.first_place()),
            false => waited.ready(&engine, &spec).await,
        };
        let address = match address {
            Ok(address) => address,
            Err(why) => {
                tracing::warn!(service = spec.name, why, "what runs cannot be taken over");
                return;
            }
        };
        let mut books = keeper_too.books.borrow_mut();
        let Some(found) = books.found.get_mut(&id) else { return };
        found.told = Some(Instant::now());
        drop(books);
        keeper_too.tell(Event::Found { service: spec.id, handle: id, was, address, paused });
    });
    let found = Found { waiting: waiting.abort_handle(), told: None };
    keeper.books.borrow_mut().found.insert(key, found);
}
