//! Follows the engine: connects, looks at everything, hears what happens, and begins anew when the engine was away.

use super::engine::{Engine, EngineError, Items};
use super::found;
use super::host::Place;
use super::keeper::Keeper;
use super::labelled::Labelled;
use bollard::models::EventMessage;
use futures_util::StreamExt;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::mpsc;
use tokio::time::{MissedTickBehavior, interval, sleep, sleep_until};

/// Between attempts to reach the engine: dense at first, since one that restarts is back within a second.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));
/// Between looks at everything: what events have told makes most of them find nothing new.
const LOOK_EVERY: Duration = Duration::from_secs(30);
/// Between pings: an engine that hangs breaks no connection.
const PING_EVERY: Duration = Duration::from_secs(5);
/// Events that wait to be taken; beyond it they wait at the engine.
const EVENTS_MAX: usize = 1_024;
/// Changes within this time are told at once: compose makes a dozen in a second.
const DEBOUNCE: Duration = Duration::from_millis(250);
/// Before the first look, by this side's clock, so that nothing falls between it and the first event.
const OVERLAP_SECS: u64 = 2;

/// Takes the labelled containers, all of them, each time that something about them is new. It is called on the
/// backend's own thread, so it must hand on and return.
pub type LabelSink = Arc<dyn Fn(Vec<Labelled>) + Send + Sync>;

/// Who is told of labelled containers, and what was told last.
pub(super) struct Labels {
    pub(super) sink: LabelSink,
    pub(super) told: Option<Vec<Labelled>>,
}

/// Follows the engine for ever.
pub(super) async fn follow(keeper: Rc<Keeper>, mut place: Option<Place>) {
    let mut follower =
        Follower { keeper, since: String::new(), last_nanos: 0, cache: HashMap::new(), due: None };
    let mut pause = BACK_OFF.0;
    let mut told = String::new();
    loop {
        let began = Instant::now();
        let error = match follower.once(&mut place).await {
            Ok(never) => match never {},
            Err(error) => error,
        };
        follower.keeper.link.set(Err(error.clone()));
        // One line for each reason, and not one for each attempt.
        if told != error.to_string() {
            told = error.to_string();
            tracing::warn!(backend = follower.keeper.settings.name, %error, "the engine is away; trying again");
        }
        if began.elapsed() > BACK_OFF.1 {
            pause = BACK_OFF.0;
            told.clear();
        }
        sleep(pause).await;
        pause = (pause * 2).min(BACK_OFF.1);
    }
}

struct Follower {
    keeper: Rc<Keeper>,
    /// Where events go on, by the engine's clock.
    since: String,
    last_nanos: i64,
    /// Descriptions of labelled containers that nothing has happened to since.
    cache: HashMap<String, Labelled>,
    /// When the labelled ones are looked at next.
    due: Option<Instant>,
}

enum Never {}

impl Follower {
    /// From a connection to its loss.
    async fn once(&mut self, place: &mut Option<Place>) -> Result<Never, EngineError> {
        let settings = &self.keeper.settings;
        let here = match place {
            Some(place) => place.clone(),
            // No socket was there; one may be by now.
            None => Place::find(settings.host.as_deref(), settings.tls.as_ref())?,
        };
        let engine = Engine::connect(&here).await?;
        *place = Some(here);
        let (host, kind, version, api) = (&engine.place.host, engine.kind, &engine.version, &engine.api);
        tracing::info!(backend = settings.name, host, "connected to {kind} {version}, API {api}");
        if self.since.is_empty() {
            let now = std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs());
            self.since = now.saturating_sub(OVERLAP_SECS).to_string();
        }
        let mut events = pump(engine.events(&self.since));
        self.cache.clear();
        self.keeper.books.borrow_mut().forget_signals();
        found::look(&self.keeper, &engine).await?;
        self.keeper.link.set(Ok(engine.clone()));
        // Those that looked while there was no link have seen nothing.
        self.keeper.books.borrow().look_all();
        self.labelled(&engine).await?;
        let mut look = interval(LOOK_EVERY);
        let mut ping = interval(PING_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ping.set_missed_tick_behavior(MissedTickBehavior::Delay);
        look.tick().await;
        let keeper = Rc::clone(&self.keeper);
        loop {
            let due = self.due;
            tokio::select! {
                event = events.recv() => match event {
                    Some(Ok(event)) => self.heard(&engine, &event).await?,
                    Some(Err(error)) => return Err(engine.failed("tell what happens", &error)),
                    None => return Err(EngineError::Unreachable {
                        host: engine.place.host.clone(),
                        why: "it closed the connection".to_owned(),
                    }),
                },
                _ = look.tick() => {
                    self.cache.clear();
                    found::look(&keeper, &engine).await?;
                    self.labelled(&engine).await?;
                }
                () = keeper.look.notified() => {
                    found::look(&keeper, &engine).await?;
                    self.labelled(&engine).await?;
                }
                _ = ping.tick() => engine.ping().await?,
                () = keeper.link.doubt.notified() => {
                    engine.ping().await?;
                    // Whoever doubts asks again soon, and one ping answers them all.
                    sleep(Duration::from_millis(20)).await;
                }
                () = due_at(due) => {
                    self.due = None;
                    self.labelled(&engine).await?;
                }
            }
        }
    }

    async fn heard(&mut self, engine: &Engine, event: &EventMessage) -> Result<(), EngineError> {
        let nanos = event.time_nano.unwrap_or(0);
        // What comes again after a reconnection was heard before.
        if nanos != 0 && nanos <= self.last_nanos {
            return Ok(());
        }
        if nanos != 0 {
            self.last_nanos = nanos;
            self.since = format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000);
        }
        let Some(actor) = &event.actor else { return Ok(()) };
        let Some(id) = actor.id.as_deref() else { return Ok(()) };
        let action = event.action.as_deref().unwrap_or_default();
        let attribute =
            |name: &str| actor.attributes.as_ref().and_then(|all| all.get(name)).map(String::as_str);
        let keeper = &self.keeper;
        match action {
            "kill" => {
                let signal = attribute("signal").unwrap_or_default();
                keeper.books.borrow_mut().signalled(id, signal);
                return Ok(());
            }
            "oom" => {
                keeper.books.borrow_mut().ran_out_of_memory(id);
                return Ok(());
            }
            "start" => keeper.books.borrow_mut().begin_run(id),
            "die" | "died" => keeper.books.borrow_mut().heard_end(id),
            "stop" | "pause" | "unpause" | "destroy" | "remove" | "restart" => {}
            "create" | "rename" | "update" => {}
            // Health checks, commands inside, copies: nothing of ours.
            _ => return Ok(()),
        }
        self.cache.remove(id);
        self.due.get_or_insert_with(|| Instant::now() + DEBOUNCE);
        let holder = keeper.books.borrow().holder(id);
        match holder {
            Some(instance) => {
                if let Some(run) = keeper.books.borrow().runs.get(&instance) {
                    run.look.notify_one();
                }
                Ok(())
            }
            None => found::one(keeper, engine, id).await,
        }
    }

    /// Tells of the labelled containers if there is anything new about them.
    async fn labelled(&mut self, engine: &Engine) -> Result<(), EngineError> {
        if self.keeper.labels.borrow().is_none() {
            return Ok(());
        }
        let mut all = Vec::new();
        let mut seen = HashMap::new();
        for summary in engine.list(&format!("{}=true", super::ENABLE)).await? {
            let Some(id) = summary.id else { continue };
            let labelled = match self.cache.remove(&id) {
                Some(known) => known,
                None => match engine.inspect(&id).await {
                    Ok(found) => Labelled::of(&found),
                    Err(error) if error.is_absent() => continue,
                    Err(error) => return Err(error),
                },
            };
            seen.insert(id, labelled.clone());
            all.push(labelled);
        }
        self.cache = seen;
        all.sort_by(|a, b| a.name.cmp(&b.name));
        let mut labels = self.keeper.labels.borrow_mut();
        let Some(labels) = labels.as_mut() else { return Ok(()) };
        if labels.told.as_ref() != Some(&all) {
            (labels.sink)(all.clone());
            labels.told = Some(all);
        }
        Ok(())
    }
}

async fn due_at(due: Option<Instant>) {
    match due {
        Some(due) => sleep_until(due.into()).await,
        None => std::future::pending().await,
    }
}

/// Takes events from the engine as they come, while something else is looked at.
fn pump(mut events: Items<EventMessage>) -> mpsc::Receiver<Result<EventMessage, bollard::errors::Error>> {
    let (sender, receiver) = mpsc::channel(EVENTS_MAX);
    tokio::task::spawn_local(async move {
        while let Some(event) = events.next().await {
            if sender.send(event).await.is_err() {
                return;
            }
        }
    });
    receiver
}
