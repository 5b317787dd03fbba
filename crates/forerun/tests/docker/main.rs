//! The running program over a real Docker Engine, started by `cargo xtask test --only docker`: see `testbed/README.md`.
//! Without one each test says `SKIPPED` and does nothing.

#![allow(clippy::unwrap_used)]

mod by_hand;
mod compose;
mod direct;
mod doctor;
mod engine;
mod engines;
mod example;
mod hang;
mod health;
#[allow(dead_code, reason = "not everything of it is used here")]
#[path = "../live/http.rs"]
mod http;
mod keys;
mod lives;
mod moments;
mod proxy;
mod pull;
mod registry;
mod shop;
mod stubborn;
mod testbed;
#[allow(dead_code, reason = "not everything of it is used here")]
#[path = "../live/world.rs"]
mod world;
