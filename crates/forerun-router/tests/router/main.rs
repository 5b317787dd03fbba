//! A real router on real sockets, with instances and clients that speak HTTP byte by byte.

mod drain;
mod forward;
mod hold;
mod limits;
mod put_back;
mod race;
mod retry;
mod traffic;
mod websocket;
mod world;
