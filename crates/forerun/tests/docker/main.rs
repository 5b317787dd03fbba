//! The running program over a real Docker Engine, started by `cargo xtask test --only docker`: see `testbed/README.md`.
//! Without one each test says `SKIPPED` and does nothing.

#![allow(clippy::unwrap_used)]

mod engine;
mod testbed;
