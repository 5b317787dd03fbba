//! One instance from its order to its end.

use super::bring;
use super::change;
use super::end::{Ended, has_ended};
use super::keeper::Keeper;
use super::ready::Waited;
use bollard::models::ContainerInspectResponse;
use forerun_types::{Event, InstanceId, Readiness, ServiceSpec, Span};
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::sync::{Notify, mpsc, watch};
use tokio::time::{sleep, sleep_until};

/// How long an order waits for an engine that is silent, where nothing else says.
pub(super) const PATIENCE: Duration = Duration::from_secs(60);
/// Between attempts to stop what does not stop.
const STOP_AGAIN: Duration = Duration::from_millis(500);
/// How long after an end was seen the events that tell of it are waited for.
const HEARING: Duration = Duration::from_secs(1);

/// What is asked of a running instance.
#[derive(Debug)]
pub(super) enum Change {
    Pause,
    Resume,
    Specialise(Arc<ServiceSpec>),
    AskBusy(Arc<ServiceSpec>),
}

impl Change {
    /// The answer to one that is not carried out. What cannot say so is busy.
    pub(super) fn refused(&self, instance: InstanceId, why: &str) -> Event {
        self.answered(instance, true, why)
    }

    /// The answer where there is no such instance: nothing is there to be busy.
    pub(super) fn unmet(&self, instance: InstanceId) -> Event {
        self.answered(instance, false, "there is no such instance")
    }

    fn answered(&self, instance: InstanceId, busy: bool, why: &str) -> Event {
        let why = why.to_owned();
        match self {
            Self::AskBusy(_) => Event::BusyAnswer { instance, busy, why },
            _ => Event::NotChanged { instance, why },
        }
    }
}

/// A change that was carried out or not.
pub(super) struct Done {
    pub(super) event: Event,
    pub(super) paused: Option<bool>,
    pub(super) spec: Option<Arc<ServiceSpec>>,
}

type Pending = Pin<Box<dyn Future<Output = Done>>>;

/// The container of an instance.
#[derive(Clone, Debug)]
pub(super) struct Held {
    pub(super) id: String,
    /// A person made it: it is stopped, and never removed.
    pub(super) own: bool,
    /// By the engine's clock and in its words; tells one run from the next.
    pub(super) started_at: String,
    pub(super) waited: Waited,
    pub(super) paused: bool,
    /// What its owner gives it to end; a stop is no more patient than that.
    pub(super) grace_max: Duration,
}

/// What the engine gives a container that says nothing else.
const ENGINE_GRACE: Duration = Duration::from_secs(10);

/// The owner's word on how long a container may take to end, as `docker stop` would take it. One made from an image has
/// only the order's.
pub(super) fn grace_of(found: &ContainerInspectResponse, own: bool) -> Duration {
    match found.config.as_ref().and_then(|config| config.stop_timeout) {
        Some(secs) => u64::try_from(secs).map_or(Duration::MAX, Duration::from_secs),
        None if own => ENGINE_GRACE,
        None => Duration::MAX,
    }
}

pub(super) struct Life {
    pub(super) keeper: Rc<Keeper>,
    pub(super) instance: InstanceId,
    pub(super) spec: Arc<ServiceSpec>,
    pub(super) stop: watch::Receiver<Option<Duration>>,
    pub(super) look: Rc<Notify>,
    pub(super) changes: mpsc::Receiver<Change>,
    /// The connection over which it was last seen to run.
    pub(super) seen_over: u64,
}

impl Life {
    pub(super) async fn start(mut self, ordered: Instant) {
        let instance = self.instance;
        match bring::up(&mut self, ordered).await {
            Ok((held, address)) => {
                self.counts(true);
                self.keeper.tell(Event::Ready { instance, address, took: ordered.elapsed().into() });
                self.serve(held, address).await;
            }
            Err(bring::Fall::Stopped) => self.keeper.finish(instance, Event::Stopped { instance }),
            Err(bring::Fall::Failed(why) | bring::Fall::Ended(why) | bring::Fall::Husk(why)) => {
                self.keeper.finish(instance, Event::StartFailed { instance, why });
            }
            Err(bring::Fall::Completed(address)) => {
                self.keeper.tell(Event::Ready { instance, address, took: ordered.elapsed().into() });
                self.keeper.finish(instance, Event::Completed { instance });
            }
        }
        self.keeper.look.notify_one();
    }

    /// What was found becomes this instance's.
    pub(super) async fn adopt(mut self, handle: String) {
        let instance = self.instance;
        match self.take(&handle).await {
            Ok((held, address)) => {
                if held.own {
                    self.keeper.tell(Event::IsOwn { instance });
                }
                self.counts(!held.paused);
                self.serve(held, address).await;
            }
            Err(why) => self.keeper.finish(instance, Event::Died { instance, why }),
        }
        self.keeper.look.notify_one();
    }

    async fn take(&self, handle: &str) -> Result<(Held, SocketAddr), String> {
        if !self.keeper.books.borrow_mut().hold(handle, self.instance) {
            return Err("its container is another instance's".to_owned());
        }
        let until = Instant::now() + PATIENCE;
        let found = self.keeper.link.insist(until, async |engine| engine.inspect(handle).await).await;
        let found = found.map_err(|error| error.to_string())?;
        let engine = self.keeper.link.engine(until).await.map_err(|error| error.to_string())?;
        let state = found.state.clone().unwrap_or_default();
        let started_at = state.started_at.unwrap_or_default();
        if has_ended(&found, &started_at) {
            return Err("its container does not run any more".to_owned());
        }
        let labels = found.config.as_ref().and_then(|config| config.labels.clone()).unwrap_or_default();
        let waited = Waited::new(&engine, &found, &self.spec).await?;
        let address = waited.nearest().await;
        let own = !self.keeper.owner.made(&labels);
        let paused = state.paused == Some(true);
        let grace_max = grace_of(&found, own);
        Ok((Held { id: handle.to_owned(), own, started_at, waited, paused, grace_max }, address))
    }

    /// From ready to the end.
    async fn serve(&mut self, mut held: Held, address: SocketAddr) {
        let mut pending: Option<Pending> = None;
        self.seen_over = self.keeper.link.number();
        // It may have ended before anybody looked.
        self.look.notify_one();
        let look = Rc::clone(&self.look);
        loop {
            let mut stop = self.stop.clone();
            tokio::select! {
                biased;
                () = ordered_to_stop(&mut stop) => {
                    drop(pending);
                    self.halt(&held, Duration::MAX).await;
                    self.let_go(&held, false);
                    let instance = self.instance;
                    return self.keeper.finish(instance, Event::Stopped { instance });
                }
                () = look.notified() => {
                    if let Some(ended) = self.examine(&mut held, pending.is_some()).await {
                        return self.ended(&held, &ended);
                    }
                }
                done = carried_out(&mut pending) => {
                    pending = None;
                    if let Some(paused) = done.paused {
                        held.paused = paused;
                        self.counts(!paused);
                    }
                    if let Some(spec) = done.spec {
                        self.rename(spec);
                    }
                    self.keeper.tell(done.event);
                }
                Some(change) = self.changes.recv(), if pending.is_none() => {
                    pending = self.begin(change, &held, address);
                }
            }
        }
    }

    fn begin(&self, change: Change, held: &Held, address: SocketAddr) -> Option<Pending> {
        let (keeper, instance, held) = (Rc::clone(&self.keeper), self.instance, held.clone());
        match change {
            Change::Pause => Some(Box::pin(change::pause(keeper, instance, held))),
            Change::Resume => Some(Box::pin(change::resume(keeper, instance, held))),
            Change::Specialise(spec) => {
                Some(Box::pin(change::specialise(keeper, instance, held, address, spec)))
            }
            // An answer must not wait for a change, nor a change for an answer.
            Change::AskBusy(spec) => {
                tokio::task::spawn_local(change::ask_busy(keeper, instance, held, address, spec));
                None
            }
        }
    }

    /// Whether usage is asked for.
    fn counts(&self, counts: bool) {
        let mut books = self.keeper.books.borrow_mut();
        if let Some(run) = books.runs.get_mut(&self.instance) {
            run.counts = counts;
        }
        books.readings.remove(&self.instance);
    }

    /// From now on it is another service's.
    fn rename(&mut self, spec: Arc<ServiceSpec>) {
        if let Some(run) = self.keeper.books.borrow_mut().runs.get_mut(&self.instance) {
            run.spec = Arc::clone(&spec);
        }
        self.spec = spec;
    }

    /// Looks at the container. Returns how it ended if it has. While it is being changed, what it is now is no news.
    async fn examine(&mut self, held: &mut Held, changing: bool) -> Option<Ended> {
        let number = self.keeper.link.number();
        let engine = self.keeper.link.get()?;
        let found = match engine.inspect(&held.id).await {
            Ok(found) if has_ended(&found, &held.started_at) => None,
            Ok(found) => Some(found),
            Err(error) if error.is_absent() => None,
            Err(_) => {
                self.keeper.link.doubt.notify_one();
                return None;
            }
        };
        if let Some(found) = found {
            self.seen_over = number;
            let paused = found.state.is_some_and(|state| state.paused == Some(true));
            if paused != held.paused && !changing {
                held.paused = paused;
                self.counts(!paused);
                let instance = self.instance;
                // Somebody froze or thawed it past Forerun.
                self.keeper.tell(match paused {
                    true => Event::Paused { instance },
                    false => Event::Resumed { instance, took: Span::ZERO },
                });
            }
            return None;
        }
        let saw_oom = self.keeper.books.borrow().saw_oom(&held.id);
        match Ended::of(&engine, &held.id, saw_oom).await {
            Ok(ended) => {
                self.hear_out(held, number).await;
                // An engine that is being stopped stops its containers, as a person does: what it was is told once the
                // engine is back.
                let signalled = self.keeper.books.borrow().signal_of(&held.id).is_some();
                if signalled && !self.keeper.link.stands(number).await {
                    self.keeper.link.doubt.notify_one();
                    return None;
                }
                Some(ended)
            }
            Err(_) => {
                self.keeper.link.doubt.notify_one();
                None
            }
        }
    }

    /// Whoever looks may see an end before the engine's events tell of it, and of the signal that was its cause: waits
    /// for them a little.
    async fn hear_out(&self, held: &Held, number: u64) {
        let until = Instant::now() + HEARING;
        while Instant::now() < until
            && self.keeper.link.number() == number
            && !self.keeper.books.borrow().has_heard_end(&held.id)
        {
            sleep(HEARING / 50).await;
        }
    }

    /// It ended, and nobody had ordered it to.
    fn ended(&self, held: &Held, ended: &Ended) {
        let instance = self.instance;
        let signal = self.keeper.books.borrow().signal_of(&held.id);
        // An engine that comes up ends what the one before has left, and one goes on with what an earlier life of
        // Forerun had ordered, with the same signals as a person.
        let interrupted = self.seen_over != self.keeper.link.number();
        let unasked = interrupted || self.keeper.stops.borrow().is_inherited(&held.id);
        self.keeper.stops.borrow_mut().end(&held.id);
        let event = match signal {
            _ if ended.removed => Event::StoppedByHand { instance, why: ended.sentence() },
            Some(signal) if !unasked => {
                let why = format!("its container was stopped by hand, with {signal}");
                Event::StoppedByHand { instance, why }
            }
            _ if ended.is_completed() && unasked && !self.is_once() => {
                let why = format!(
                    "it was ended with its engine, or by an order that was given before: {}",
                    ended.sentence()
                );
                Event::Died { instance, why }
            }
            _ if ended.is_completed() => Event::Completed { instance },
            _ => Event::Died { instance, why: ended.sentence() },
        };
        self.let_go(held, ended.removed);
        self.keeper.finish(instance, event);
    }

    /// Whether it is there to be done once; what serves requests and ends well when its engine does has done nothing.
    pub(super) fn is_once(&self) -> bool {
        self.spec.unrouted || self.spec.ready == Readiness::None
    }

    /// What Forerun made goes when it has ended.
    pub(super) fn let_go(&self, held: &Held, removed: bool) {
        if !held.own && !removed {
            self.keeper.remove(held.id.clone());
        }
    }

    /// Stops the container, and returns when it does not run any more, however long that takes. Its grace is the
    /// order's, and at most so long.
    pub(super) async fn halt(&self, held: &Held, grace_max: Duration) {
        let mut stop = self.stop.clone();
        let grace_max = grace_max.min(held.grace_max);
        let grace =
            |stop: &watch::Receiver<Option<Duration>>| stop.borrow().unwrap_or_default().min(grace_max);
        let began = Instant::now();
        let mut told = false;
        self.keeper.stops.borrow_mut().begin(&held.id, grace(&stop));
        loop {
            let Ok(engine) = self.keeper.link.engine(Instant::now() + PATIENCE).await else { continue };
            if held.paused {
                // What is frozen cannot hear that it is to end; what does not run any more is refused.
                let _ = engine.unpause(&held.id).await;
            }
            stop.mark_unchanged();
            let left = grace(&stop).saturating_sub(began.elapsed());
            let asked = Instant::now();
            let stopping = engine.stop(&held.id, left);
            tokio::pin!(stopping);
            let mut kill_at = None;
            let stopped = loop {
                tokio::select! {
                    stopped = &mut stopping => break stopped,
                    // A second, less patient order.
                    Ok(()) = stop.changed() => kill_at = Some(began + grace(&stop)),
                    () = at(kill_at) => {
                        kill_at = None;
                        let _ = engine.kill(&held.id).await;
                    }
                }
            };
            match stopped {
                Ok(()) => {
                    self.note_deaf(left, asked.elapsed());
                    return self.keeper.stops.borrow_mut().end(&held.id);
                }
                Err(error) if error.is_absent() => return self.keeper.stops.borrow_mut().end(&held.id),
                Err(error) => {
                    if error.is_silence() {
                        self.keeper.link.doubt.notify_one();
                    }
                    if !told {
                        tracing::warn!(instance = %self.instance, %error, "cannot stop a container; trying again");
                        told = true;
                    }
                    sleep(STOP_AGAIN).await;
                }
            }
        }
    }

    /// Each stop of one that does not hear the signal takes all of its grace, and whoever asks meanwhile waits for it.
    fn note_deaf(&self, grace: Duration, took: Duration) {
        // What got no time is no witness.
        if grace >= Duration::from_secs(1) && took >= grace {
            let (service, secs) = (&self.spec.name, grace.as_secs_f64().round());
            tracing::warn!(
                service,
                "it did not end within {secs} s of the signal to stop and was killed: as process 1 a program hears only \
                 signals that it handles; `init: true` (or `docker run --init`) mends that"
            );
        }
    }
}

/// Until a stop is ordered. What the wait lends must be given back before anything else is waited for: the next order
/// could not be told.
pub(super) async fn ordered_to_stop(stop: &mut watch::Receiver<Option<Duration>>) {
    // The sender lives as long as the instance.
    let _ = stop.wait_for(Option::is_some).await;
}

/// That time; never, without one.
async fn at(time: Option<Instant>) {
    match time {
        Some(time) => sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// The end of a change that is under way; never, without one.
async fn carried_out(pending: &mut Option<Pending>) -> Done {
    match pending {
        Some(pending) => pending.await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard::models::ContainerConfig;

    #[test]
    fn a_stop_is_as_patient_as_the_owner_is() {
        for (stop_timeout, own, expect) in [
            (None, true, ENGINE_GRACE),
            (None, false, Duration::MAX),
            (Some(3), true, Duration::from_secs(3)),
            (Some(3), false, Duration::from_secs(3)),
            (Some(120), true, Duration::from_secs(120)),
            // For ever.
            (Some(-1), true, Duration::MAX),
        ] {
            let config = Some(ContainerConfig { stop_timeout, ..ContainerConfig::default() });
            let found = ContainerInspectResponse { config, ..ContainerInspectResponse::default() };
            assert_eq!(grace_of(&found, own), expect, "{stop_timeout:?} {own}");
        }
    }
}
