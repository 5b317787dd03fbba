//! The data plane: an HTTP/1.1 reverse proxy that holds a request while an instance for it starts.
//!
//! A request goes `server` (accept, connection) -> `door` (classify, `auth`, tell people from probes, name) -> `proxy`
//! (admit, forward, or show the waiting `page`) -> `service` (pick, hold, count: one lock per service) -> `upstream`
//! (connections to instances) -> `body` (both bodies, streamed). What it
//! learns goes up in batches (`batch`), what the engine must know now at once (`up`); a route table comes down by
//! [`RouterHandle::publish`] (`table`).
//!
//! A request with a free instance never waits for the engine. While the process lives every accepted request gets
//! exactly one answer: the instance's, or an error that says who is at fault and why. A body cut short never looks
//! whole, and a request that is not idempotent is never sent twice.
//!
//! A request that its instance did not take (it refused the connection, or broke off before it answered what may be
//! sent again) goes to another instance, or back to its place in the queue, at most twice and within `hold.timeout`
//! of its arrival. The instance is left alone until it accepts connections (`revival`).
//!
//! Absent on purpose: how a plan is made, and every choice that `forerun-route` makes.

mod auth;
mod batch;
mod beside;
mod body;
mod cached;
mod core;
mod door;
mod events;
mod fault;
mod framing;
mod headers;
mod identity;
mod io;
mod keys;
mod page;
mod proxy;
mod query;
mod revival;
mod sablier;
mod server;
mod service;
mod settings;
mod snippets;
mod stats;
mod stay;
mod table;
mod tunnel;
mod up;
mod upstream;
mod visit;
mod waiting;
mod wakes;

pub use auth::{ForwardUrlError, check_forward_url};
pub use beside::is_beside;
pub use cached::{Purge, PurgeError};
pub use events::BesideBody;
pub use identity::{action_of, user_of};
pub use server::{Router, RouterHandle};
pub use settings::{Clock, Listen, RouterError, RouterLimits, RouterSettings};
pub use stats::{CacheStats, HeldOfClass, Outcome, RouterStats, ServiceStats};
pub use up::{Up, UpReceiver, channel};
pub use wakes::{Visitor, Wakes};
