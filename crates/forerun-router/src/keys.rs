//! Keys of services that specialise: a request that brings one goes to the variant's own queue and instances.
//!
//! A key without a variant is told to the engine, and the request waits for a moment for what becomes of it. Where
//! nothing does, since there are too many keys or the engine is away, it goes to the generic instances, and so do
//! those with the same key after it, without waiting, until the key has been told anew.

use crate::core::Core;
use crate::table::Entry;
use forerun_route::request_key;
use forerun_types::{Event, Mode, ServiceId, Span, Time, UserKey};
use hyper::HeaderMap;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// A step of the engine takes a few milliseconds; waiting longer would be worse than a generic instance.
const DECIDED_WITHIN: Duration = Duration::from_millis(250);
/// A key that got no variant is told again after that: there may be room by now.
const TOLD_AGAIN: Span = Span::from_secs(60);
/// Keys without a variant that are remembered; the oldest go first.
const REMEMBERED_MAX: usize = 1_024;

#[derive(Clone, Copy, Debug)]
struct Told {
    at: Time,
    /// It was waited for in vain.
    in_vain: bool,
}

/// The keys that the engine was told of and that have no variant (yet).
#[derive(Debug, Default)]
pub(crate) struct Keys(Mutex<BTreeMap<(ServiceId, String), Told>>);

/// What to do about a key without a variant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unknown {
    /// Tell it, and wait for what comes of it.
    TellAndWait,
    /// Tell it, and do without.
    Tell,
    /// Somebody has just told it.
    Wait,
    DoWithout,
}

impl Keys {
    fn look(&self, service: ServiceId, key: &str, now: Time) -> Unknown {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let place = (service, key.to_owned());
        match told.get_mut(&place) {
            Some(known) if now >= known.at + TOLD_AGAIN => {
                known.at = now;
                if known.in_vain { Unknown::Tell } else { Unknown::TellAndWait }
            }
            Some(known) if known.in_vain => Unknown::DoWithout,
            Some(_) => Unknown::Wait,
            None => {
                if told.len() >= REMEMBERED_MAX
                    && let Some(oldest) =
                        told.iter().min_by_key(|(_, t)| t.at).map(|(place, _)| place.clone())
                {
                    told.remove(&oldest);
                }
                told.insert(place, Told { at: now, in_vain: false });
                Unknown::TellAndWait
            }
        }
    }

    fn in_vain(&self, service: ServiceId, key: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = told.get_mut(&(service, key.to_owned())) {
            known.in_vain = true;
        }
    }

    /// It has a variant: should that go, the key is told anew.
    fn found(&self, service: ServiceId, key: &str) {
        let mut told = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(&(service, key.to_owned()));
    }
}

/// The key that a request brings to a service, if it specialises. `path` is the one that decides.
pub(crate) fn key_of(entry: &Entry, user: UserKey, path: &str, headers: &HeaderMap) -> Option<String> {
    entry.spec.specialise.as_ref()?;
    request_key(&entry.spec, user, path, |name| {
        let mut values = headers.get_all(name).iter();
        // Two of them could mean different things to an instance.
        values.next().filter(|_| values.next().is_none()).map(|value| value.as_bytes())
    })
}

/// The variant for a key, unless it has none or nothing can be served there.
pub(crate) fn variant(core: &Core, entry: &Entry, key: &str) -> Option<Arc<Entry>> {
    core.table.load().variant(entry.id(), key).filter(|variant| !variant.service.refuses())
}

/// Tells the engine of a key without a variant, and waits a moment for one.
pub(crate) async fn ask(core: &Core, entry: &Entry, key: &str) -> Option<Arc<Entry>> {
    // What is only watched gets none: nobody may have to wait for that.
    if entry.spec.mode != Mode::Act {
        return None;
    }
    let service = entry.id();
    let look = core.keys.look(service, key, core.now());
    if matches!(look, Unknown::TellAndWait | Unknown::Tell) {
        core.up.control(Event::KeySeen { service, key: key.to_owned() });
    }
    if matches!(look, Unknown::Tell | Unknown::DoWithout) {
        return None;
    }
    let found = tokio::time::timeout(DECIDED_WITHIN, async {
        loop {
            // From now on no table goes unnoticed.
            let published = core.published.notified();
            tokio::pin!(published);
            published.as_mut().enable();
            if let Some(variant) = core.table.load().variant(service, key) {
                return variant;
            }
            published.await;
        }
    });
    match found.await {
        Ok(variant) => {
            core.keys.found(service, key);
            Some(variant).filter(|variant| !variant.service.refuses())
        }
        Err(_) => {
            core.keys.in_vain(service, key);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_told_once_in_a_while_and_waited_for_once() {
        let keys = Keys::default();
        let service = ServiceId(1);
        let at = |seconds| Time(seconds * 1_000_000_u64);
        let look = |seconds| keys.look(service, "red", at(seconds));
        assert_eq!(look(10), Unknown::TellAndWait);
        assert_eq!(look(10), Unknown::Wait);
        keys.in_vain(service, "red");
        assert_eq!((look(11), look(69)), (Unknown::DoWithout, Unknown::DoWithout));
        assert_eq!((look(70), look(71)), (Unknown::Tell, Unknown::DoWithout));
        keys.found(service, "red");
        assert_eq!(look(72), Unknown::TellAndWait);
        assert_eq!(keys.look(ServiceId(2), "red", at(72)), Unknown::TellAndWait);
    }

    #[test]
    fn no_number_of_keys_takes_more_than_its_room() {
        let keys = Keys::default();
        for n in 0..3_000 {
            keys.look(ServiceId(1), &format!("key{n}"), Time(n));
        }
        assert_eq!(keys.0.lock().unwrap().len(), REMEMBERED_MAX);
        assert_eq!(keys.look(ServiceId(1), "key2999", Time(3_000)), Unknown::Wait);
    }
}
