//! The cache's store: what is kept near, within a bound of bytes, and never served once it was purged or replaced.
//!
//! [`Store`] is a tier, which may be wrong about what is current; [`Cache`] stands before it and is not: it gives every fetch a
//! [`Stamp`] and checks that of whatever a tier hands out. [`Memory`] is the tier in this process's memory.
//!
//! [`http`] says what of HTTP may be kept and served, and keeps it in such a store.
//!
//! Absent on purpose: instances, clocks, locks and IO.

mod cache;
mod floors;
pub mod http;
mod key;
mod memory;
mod policy;
mod store;

pub use cache::{Cache, Put};
pub use key::Key;
pub use memory::{LARGEST_PART, Limits, Memory};
pub use store::{Kept, Stamp, Store};
