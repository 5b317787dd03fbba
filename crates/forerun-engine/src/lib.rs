//! The engine: the live loop around the decision core, its journal, and the hands that carry its actions out.
//!
//! Absent on purpose: any decision. [`shell`] is a state machine behind four ports ([`ports`]); [`live`] is the only
//! place with threads, files, sockets and clocks.

pub mod invariants;
pub mod journal;
pub mod live;
mod meter;
pub mod ports;
pub mod revive;
pub mod shell;

pub use meter::{Meter, ServiceTotals};
