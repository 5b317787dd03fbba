//! What runs instances: the [`Backend`] trait, and its implementations.
//!
//! A backend obeys orders and reports outcomes; it never chooses. Orders return at once, outcomes come as
//! [`forerun_types::Event`]s through the [`Sink`] given at construction. `tests/contract` holds the suite that
//! every backend passes.
//!
//! Absent on purpose: any knowledge of users, forecasts, plans or routes; and any async runtime but the Docker
//! backend's own, on a thread of its own.

mod backend;
pub mod command;
#[cfg(feature = "docker")]
pub mod docker;
mod errands;
pub mod fixture;
pub mod hooks;
mod ledger;
mod output;
pub mod process;
mod waited;

pub use backend::{Backend, Capabilities, OrderError, SetupError, Sink, StartOrder, StopOrder};
pub use command::{CommandBackend, CommandSettings};
#[cfg(feature = "docker")]
pub use docker::{DockerBackend, DockerSettings};
pub use process::{ProcessBackend, ProcessSettings, launcher_main, reaper_main};
