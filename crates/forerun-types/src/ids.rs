//! Newtypes for everything that has an identity.
//!
//! What is configured (services, sites) is numbered; what is met in traffic (users, actions, groups, tenants)
//! is a 64-bit hash, so that two sites name the same thing alike without talking. User keys are hashed with the
//! installation's secret before they leave the router.

use serde::{Deserialize, Serialize};
use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty), $prefix:literal) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
        pub struct $name(pub $inner);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($prefix, "{:x}"), self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
    };
}

id!(
    /// A service: its place in the configuration, or its order of appearance in a trace.
    ServiceId(u32), "s");
id!(
    /// A place with its own capacity, router and cache; 0 is the one that a single machine has.
    SiteId(u16), "site");
id!(
    /// One process, container, pod or VM; never given twice by one installation.
    InstanceId(u64), "i");
id!(
    /// A router process; 0 is the one inside `forerun up`.
    RouterId(u32), "r");
id!(
    /// Counts the route tables and plans of one core; larger is newer.
    Generation(u64), "g");
id!(
    /// A user as a keyed hash; 0 means that nobody is known to be behind the request.
    UserKey(u64), "u");
id!(
    /// The hash of a tenant's name; 0 is the tenant `default`.
    TenantKey(u64), "t");
id!(
    /// The hash of a group's name; 0 means none.
    GroupKey(u64), "grp");
id!(
    /// The hash of an action's text, `GET /orders/{id}`; 0 means none.
    ActionKey(u64), "a");

impl UserKey {
    pub const NOBODY: UserKey = UserKey(0);

    #[must_use]
    pub fn is_known(self) -> bool {
        self != Self::NOBODY
    }
}
