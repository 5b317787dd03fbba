//! The decision core: activity, profile, forecast, demand, plan. Pure, with one door:
//! [`Core::step`]`(now, event) -> actions`.
//!
//! Absent on purpose: IO, clocks, threads, async, randomness, iteration over hash maps, floating-point functions of
//! the standard library. What decides is quantised to integers first, so that the same events give the same actions,
//! bit for bit, in every build.

mod advice;
mod any;
mod bounds;
mod budgets;
mod busy;
mod canary;
mod claims;
mod classes;
mod core;
mod demand;
mod depends;
mod evict;
pub mod forecast;
mod forerun;
mod hand;
mod keep_alive;
mod levels;
mod lifecycle;
mod loads;
mod pace;
pub mod plan;
mod policy;
mod price;
pub mod profile;
mod queueing;
mod room;
mod settle;
mod shares;
mod takes;
mod trust;
mod usage;
mod variants;
mod view;
mod wedged;

pub use crate::core::Core;
pub use advice::Advice;
pub use any::AnyPolicy;
pub use budgets::BudgetStatus;
pub use canary::Canary;
pub use demand::Demand;
pub use forerun::Forerun;
pub use hand::{Wake, WakeBy};
pub use keep_alive::KeepAlive;
pub use loads::LoadForecast;
pub use policy::{Frozen, LevelValue, Policy, View};
pub use takes::Takes;
pub use trust::Track;
pub use usage::{ActionUsage, Cost, Load, Usage};
pub use view::{DownStatus, InstanceState, InstanceStatus, ModeWord, ServiceStatus, SiteStatus, Word};
