//! The HTTP API: health, metrics and status of a running Forerun, who may ask for what, and the wire types that it answers with.
//!
//! Absent on purpose: any decision, and any knowledge of where the figures come from; a [`Source`] gives them.

mod answer;
mod auth;
mod cache;
mod control;
mod events;
mod lists;
mod metrics;
#[cfg(test)]
mod openapi;
mod page;
mod past;
mod problem;
mod routes;
mod scope;
mod server;
mod status;
mod wire;

pub use auth::{AuditEntry, AuditLog, Caller, Guard, Role, TokenError, TokenInfo, TokenStore};
pub use axum::body::Body;
pub use axum::http;
pub use cache::{PurgeOrder, Purged};
pub use control::{ControlError, Order, Told};
pub use lists::{ForecastAnswer, InstanceItem, OverrideItem, Page, PlanItem, ServiceSummary, SlaAnswer};
pub use metrics::{InstanceState, Metrics, Outcome, OverrideKind};
pub use past::PastLoad;
pub use routes::{RouteInfo, routes};
pub use server::{Answer, Api, ApiError, Health, Source};
pub use status::Audit;
pub use wire::{
    ActivityCost, Advice, BudgetStatus, Demand, Down, Instance, Instances, JournalStatus, KeyStatus, Load,
    LoadForecast, ModeWord, ModelWeight, NextChange, ServiceStatus, SiteStatus, Status, Trust, Waits, Woken,
    Word,
};
