//! The time zones that the hours of services are in, by the services' names.

use crate::config::Service;
use forerun_types::Time;
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// Services by name, for the time zones that their hours are in.
#[derive(Clone, Default)]
pub(crate) struct Zones(Arc<Mutex<BTreeMap<String, Service>>>);

impl Zones {
    pub(crate) fn add(&self, services: &[Service]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(services.iter().map(|s| (s.spec.name.clone(), s.clone())));
    }

    /// Seconds by which a service's hours are ahead of UTC.
    pub(crate) fn offset_seconds(&self, name: &str, at: Time) -> i32 {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(name).map_or(0, |s| s.offset_seconds(at))
    }
}
