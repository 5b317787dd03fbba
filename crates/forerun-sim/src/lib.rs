//! The control side in a seeded world: the engine's shell and core, the route table and the hold queue, under virtual
//! time, with faults of every kind, and what always holds checked after every event.
//!
//! The shell, the core, the journal and what a router picks and admits are the product's own; the clock, the disk,
//! the backends and the routers' counters are the world's. One seed makes one world, to the bit.
//!
//! Absent on purpose: tokio, real time, sockets. Restarts read the journal through a temporary folder, as the live
//! engine does.

mod backend;
mod canaries;
mod changes;
mod checks;
mod classes;
mod daemon;
mod faults;
mod levels;
mod lives;
mod pool;
mod ports;
mod random;
mod requests;
mod router;
mod rules;
mod scenario;
pub mod seeds;
mod shrink;
mod story;
mod trouble;
mod wedged;
mod world;

pub use canaries::{BUDGET, Caught, catch, table as canary_table};
pub use faults::Fault;
pub use pool::each;
pub use scenario::{Request, Scenario, Setting};
pub use shrink::shrink;
pub use world::{Ended, Failure, run};
