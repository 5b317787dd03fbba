//! The running program, broken in every way that a machine, a service or a client can: each test starts the real
//! `forerun up` in a folder of its own, on ports that the system picks, and is bounded in time.

#![allow(clippy::unwrap_used)]

mod bounds;
mod cache;
mod classes;
mod clients;
mod control;
mod disk;
mod disk_faults;
mod ends;
mod faults;
mod first;
mod fronts;
mod http;
mod journal;
mod keys;
mod kill;
mod spare;
mod starts;
mod tokens;
mod top;
mod websocket;
mod wedged;
mod why;
mod world;
