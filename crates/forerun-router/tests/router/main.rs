//! A real router on real sockets, with instances and clients that speak HTTP byte by byte.

mod auth;
mod beside;
mod cache;
mod cache_attacks;
mod classes;
mod drain;
mod forward;
mod hold;
mod keys;
mod limits;
mod page;
mod put_back;
mod race;
mod retry;
mod sablier;
mod traffic;
mod wake;
mod websocket;
mod world;
