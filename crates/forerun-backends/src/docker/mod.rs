//! Instances as containers of a Docker or Podman engine.
#![allow(dead_code, reason = "what starts and stops containers follows")]

mod discover;
mod engine;
mod host;
mod import;
mod labelled;

pub use discover::{Discovered, discover};
pub use engine::EngineError;
pub use host::TlsFiles;
pub use import::{import, remove_image};
pub use labelled::{ENABLE, Labelled};
