//! What the router may use now.

use crate::{Generation, InstanceId, ServiceId, ServiceSpec, Span};
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::sync::Arc;

/// Who may be sent to an instance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Anyone.
    #[default]
    Any,
    /// Anyone yet; the first key makes it that key's for good.
    Unclaimed,
    /// Nobody: it is becoming this key's.
    Specialising(u64),
    /// Only requests of this key.
    Only(u64),
}

/// A ready instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRoute {
    pub instance: InstanceId,
    pub address: SocketAddr,
    pub access: Access,
}

/// Why requests for a service are refused instead of held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unavailable {
    pub why: String,
    pub retry_after: Span,
}

/// What those who wait for a service may be told, and how their waits count.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitNotes {
    /// What its start is at, or why the last one failed; empty when there is nothing to say.
    pub progress: String,
    /// How long a start usually takes, as far as is known.
    pub usual_start: Span,
    /// Ready instances that were thawed or given to a key instead of started: a wait that one of them ended is a
    /// cold start only if it was longer than the class's latency target. In order of id.
    pub resumed: Vec<InstanceId>,
}

/// A service and its ready instances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceRoute {
    pub spec: Arc<ServiceSpec>,
    pub instances: Vec<InstanceRoute>,
    pub unavailable: Option<Unavailable>,
    pub notes: WaitNotes,
}

impl ServiceRoute {
    /// An entry about which nothing more is to be said.
    #[must_use]
    pub fn new(
        spec: Arc<ServiceSpec>,
        instances: Vec<InstanceRoute>,
        unavailable: Option<Unavailable>,
    ) -> Self {
        Self { spec, instances, unavailable, notes: WaitNotes::default() }
    }
}

/// All that a router goes by: immutable, replaced as a whole. Services stand in order of their ids.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteTable {
    pub generation: Generation,
    pub services: Vec<Arc<ServiceRoute>>,
}

impl RouteTable {
    #[must_use]
    pub fn service(&self, id: ServiceId) -> Option<&Arc<ServiceRoute>> {
        self.services.binary_search_by_key(&id, |s| s.spec.id).ok().map(|at| &self.services[at])
    }
}
