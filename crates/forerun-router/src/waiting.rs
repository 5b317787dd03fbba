//! Held requests at a whole router: a place in the waitlist, and who makes way for whom.
//!
//! The waitlist's lock is taken last, under that of a service; a warm request takes it never. Who is pushed out is
//! told once the newcomer's service is unlocked, under the lock of its own.

use crate::core::Core;
use crate::fault::Fault;
use crate::service::{Place, Service};
use crate::stats::HeldOfClass;
use forerun_route::{HoldRefusal, Spot, Waitlist, WaitlistLimits};
use forerun_types::{ServiceSpec, Time};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use tokio::sync::oneshot;

/// What a held request gets in the end.
pub(crate) type Granting = Result<Place, Fault>;

/// Where a held request is found: its service and its ticket there.
#[derive(Debug)]
struct Who {
    service: Weak<Service>,
    ticket: u64,
}

/// The room for all that are held at this router.
pub(crate) struct Lobby(Mutex<Waitlist<Who>>);

impl Lobby {
    pub(crate) fn new(limits: WaitlistLimits) -> Arc<Self> {
        Arc::new(Self(Mutex::new(Waitlist::new(limits))))
    }

    fn lock(&self) -> MutexGuard<'_, Waitlist<Who>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is held of each class, by name; classes of which nothing is are left out.
    pub(crate) fn by_class(&self) -> BTreeMap<String, HeldOfClass> {
        let list = self.lock();
        let held =
            |(name, requests, bytes): (&str, u32, u64)| (name.to_owned(), HeldOfClass { requests, bytes });
        list.by_class().map(held).collect()
    }
}

/// A held request: what it is answered through, and its place.
pub(crate) struct Waiting {
    answer: oneshot::Sender<Granting>,
    place: InLobby,
}

/// A place in the lobby, given back when it is dropped.
struct InLobby {
    lobby: Arc<Lobby>,
    spot: Spot,
}

impl Waiting {
    /// Tells it what became of it. One whose client went away at this moment takes nothing: what it was given is free
    /// again.
    pub(crate) fn tell(self, granting: Granting) {
        // Its place first: who is answered may be the next to come.
        drop(self.place);
        drop(self.answer.send(granting));
    }
}

impl Drop for InLobby {
    fn drop(&mut self) {
        self.lobby.lock().leave(&self.spot);
    }
}

/// Those who make way for a newcomer, until they are told.
#[derive(Debug, Default)]
#[must_use]
pub(crate) struct Pushed(Vec<(Who, HoldRefusal)>);

impl Pushed {
    /// Makes both ends of what a held request is answered through, if there is room for it at this router.
    ///
    /// # Errors
    /// Its class has its part of the room.
    pub(crate) fn hold(
        &mut self,
        core: &Core,
        service: &Arc<Service>,
        (spec, ticket): (&Arc<ServiceSpec>, u64),
        (bytes, arrived): (u64, Time),
    ) -> Result<(Waiting, oneshot::Receiver<Granting>), HoldRefusal> {
        let who = Who { service: Arc::downgrade(service), ticket };
        let joined = core.lobby.lock().join(spec, bytes, arrived, who)?;
        self.0.extend(joined.pushed);
        let (answer, granted) = oneshot::channel();
        let place = InLobby { lobby: Arc::clone(&core.lobby), spot: joined.spot };
        Ok((Waiting { answer, place }, granted))
    }

    /// Answers them. No service may be locked.
    pub(crate) fn tell(self, core: &Arc<Core>, now: Time) {
        for (Who { service, ticket }, limit) in self.0 {
            if let Some(service) = service.upgrade() {
                service.with(core, |state, led| state.queue.push_out(ticket, limit, now, led));
            }
        }
    }
}
