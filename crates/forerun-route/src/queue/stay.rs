//! A stay: somebody wants a service to be there until some time, and no request of theirs is open meanwhile.
//!
//! A service has one stay at most, for all of them, which lasts as long as the longest. While it lasts the service
//! counts as waited for until an instance is ready, and then as in use (the instance is *pinned*), but the stay takes
//! no place at the instance: whoever comes next finds it free. An instance that goes is followed by another.

use super::{Effects, Queue, Refusal};
use forerun_types::{Event, InstanceRoute, Time, UserKey, Variant};
use std::net::SocketAddr;
use std::sync::Arc;

/// A service's stay.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Stay {
    /// Nobody wants it after that.
    pub(super) until: Time,
    /// Nothing has been ready since then.
    pub(super) waits_since: Option<Time>,
}

/// The stay: one for all who want the service to be there, as long as the longest.
impl<W, L> Queue<W, L> {
    /// Until when the service is wanted to be there, if that is still to come.
    #[must_use]
    pub fn stays_until(&self, now: Time) -> Option<Time> {
        Some(self.stay.until).filter(|until| now < *until)
    }

    /// Wants the service to be there until then.
    pub fn stay(&mut self, user: UserKey, until: Time, now: Time, effects: &mut Effects<W, L>) {
        if !self.closing {
            self.stay.until = self.stay.until.max(until);
            self.settle_stay(user, now, effects);
        }
    }

    /// Where the service is ready for who wants it, or nothing while it is not.
    ///
    /// # Errors
    /// Why it is not and will not be soon.
    pub fn stays_at(
        &mut self,
        now: Time,
        effects: &mut Effects<W, L>,
    ) -> Result<Option<SocketAddr>, Refusal> {
        let route = self.route.clone().ok_or(Refusal::Gone)?;
        let address = match self.stays_until(now) {
            Some(_) => self.pin(now, &mut effects.told),
            None => self.open_instance().map(|best| {
                self.touch(best.instance, &mut effects.told);
                best.address
            }),
        };
        match (address, &route.unavailable) {
            (Some(address), _) => Ok(Some(address)),
            (None, _) if self.closing => Err(Refusal::Closing),
            (None, Some(why)) => {
                Err(Refusal::Unavailable { spec: Arc::clone(&route.spec), why: why.clone() })
            }
            (None, None) => Ok(None),
        }
    }

    /// Nobody wants it any more.
    pub fn end_stay(&mut self, now: Time, effects: &mut Effects<W, L>) {
        self.stay.until = Time::default();
        self.stop_waiting(effects);
        let quiesced = self.slots.unpin(now);
        self.moved();
        let router = self.router;
        let told = quiesced.into_iter().map(|(instance, generation)| Event::Quiesced {
            router,
            instance,
            generation,
        });
        effects.told.extend(told);
    }

    /// An instance that takes requests of everyone: the one that a stay is at or would be at.
    #[must_use]
    pub fn open_instance(&self) -> Option<InstanceRoute> {
        let instances = self.choice.as_ref().map_or(&[][..], |route| &route.instances);
        let key = self.route.as_ref().and_then(|route| route.spec.variant.as_ref());
        let key = key.map(|variant| Variant::access_key(&variant.key));
        self.slots.open_instance(instances, key).cloned()
    }

    /// Keeps a ready instance in use, the one that is already if it can; gives its address.
    fn pin(&mut self, now: Time, told: &mut Vec<Event>) -> Option<SocketAddr> {
        let best = self.open_instance()?;
        self.touch(best.instance, told);
        self.slots.pin(best.instance, now);
        self.moved();
        Some(best.address)
    }

    /// Brings a stay in line with what the table says.
    pub(super) fn settle_stay(&mut self, user: UserKey, now: Time, effects: &mut Effects<W, L>) {
        let Some(route) = &self.route else { return self.end_stay(now, effects) };
        let hopeless = route.unavailable.is_some() || self.closing;
        if self.stays_until(now).is_none() {
            return;
        }
        if self.pin(now, &mut effects.told).is_some() {
            if let Some(since) = self.stay.waits_since.take() {
                effects.waits.push(now.since(since));
                self.moved();
            }
            return;
        }
        match (hopeless, self.stay.waits_since) {
            (true, Some(_)) => self.stop_waiting(effects),
            (true, None) | (false, Some(_)) => {}
            (false, None) => {
                // Who is held for it already is the same cold start.
                effects.cold_starts += u64::from(self.waiting() == 0);
                self.stay.waits_since = Some(now);
                self.moved();
                effects.told.push(self.waits(user));
            }
        }
    }

    fn stop_waiting(&mut self, effects: &mut Effects<W, L>) {
        if self.stay.waits_since.take().is_some() {
            self.moved();
            effects.told.push(self.abandoned());
        }
    }
}
