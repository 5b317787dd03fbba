//! What a router decides: which service a request is for, which instance takes it, whether it may be held, and what
//! its action is called.
//!
//! The live router and the lab call the same functions, so that a modelled world picks as the real one does. Load
//! and randomness are arguments.
//!
//! [`Queue`] is one service at one router, with its counters and those who wait; [`Waitlist`] shares out the room for
//! all who wait at a router by their classes. The caller owns both.
//!
//! Absent on purpose: IO, clocks, async and locks.

mod budget;
mod classify;
mod explain;
mod hold;
mod key;
mod network;
mod pick;
mod queue;
mod silence;
mod slots;
mod template;
mod waitlist;
mod wake;

pub use budget::WakeBudget;
pub use classify::{Classifier, normalise_host};
pub use explain::{Explanation, Tried, explain};
pub use hold::{HoldRefusal, Room, RouterFull, admit_hold};
pub use key::request_key;
pub use network::{Network, NotANetwork};
pub use pick::{LoadView, Pick, admits, pick};
pub use queue::{Admission, Asking, Effects, Granted, Hold, Queue, Refusal, Seat, Turn};
pub use silence::Reply;
pub use slots::Link;
pub use template::{SEGMENT_PLACEHOLDER, TemplateGuard, action_template};
pub use waitlist::{Joined, Spot, Waitlist, WaitlistLimits};
pub use wake::{BOT_ENDINGS, Caller, Nobody, PROBE_AGENTS, PROBE_PATHS, WakeFilter};
