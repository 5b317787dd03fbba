//! What is seen of traffic: who did what when, what it used, and how loaded things are now.

use crate::{ActionKey, GroupKey, InstanceId, RouterId, ServiceId, SiteId, Span, TenantKey, Time, UserKey};
use serde::{Deserialize, Serialize};

/// One thing that a user did at one time, told when it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Activity {
    pub at: Time,
    pub tenant: TenantKey,
    pub user: UserKey,
    pub group: GroupKey,
    pub site: SiteId,
    pub service: ServiceId,
    pub action: ActionKey,
}

/// A request that has been answered, and what it used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finished {
    pub service: ServiceId,
    pub action: ActionKey,
    pub instance: InstanceId,
    /// From the hand-over to the instance to the last byte of its answer; waiting is not part of it.
    pub duration: Span,
    /// How long the request was held first.
    pub held: Span,
    /// Bytes of both bodies.
    pub network_bytes: u64,
    /// HTTP status, 0 when the client went away.
    pub status: u16,
}

/// A service's load at one router. Gauges, not differences: a lost batch heals with the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceLoad {
    pub service: ServiceId,
    /// Requests at instances now.
    pub in_flight: u32,
    /// The most that were at instances or held at one moment since the last batch.
    pub peak: u32,
    /// Requests held now.
    pub waiting: u32,
}

/// An instance's load at one router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceLoad {
    pub instance: InstanceId,
    pub in_flight: u32,
    /// When its last request began or ended.
    pub last_used: Time,
}

/// What a router tells, at the latest 20 ms or 512 records after it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    pub router: RouterId,
    pub activities: Vec<Activity>,
    pub finished: Vec<Finished>,
    pub services: Vec<ServiceLoad>,
    pub instances: Vec<InstanceLoad>,
    /// The texts of actions that this router had not named before.
    pub action_names: Vec<(ActionKey, String)>,
    /// Learning records dropped since the last batch because the channel was full.
    pub lost: u64,
}
