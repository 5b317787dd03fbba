//! Virtual time: a trace in, a policy's decisions and their scores out.
//!
//! There are two worlds, that of whole minutes and that of single requests. In both a policy only says how many
//! instances of a service are to exist from when on ([`Decision`]); the world does the rest by fixed rules, so that
//! any two policies, and any outside scorer of the same decisions, are measured alike. Forerun's own policies are
//! the live decision core, driven by modelled instances and the live router's picks; the rivals are a few lines each.
//!
//! Absent on purpose: clocks, sockets, files, and any second version of what the core decides.

mod cache;
mod decisions;
mod driven;
mod error;
pub mod forecast;
mod gaps;
mod hazard;
mod instances;
mod minutes;
mod nominal;
mod options;
mod pareto;
mod predict;
mod replay;
mod requests;
mod rivals;
mod saved;
mod scores;
mod scripted;
mod steer;
mod tally;

pub use cache::{
    CacheRival, CacheScores, CacheSize, Holds, Keep, Key, PrefetchScores, replay_keep, replay_prefetch,
    replay_rival, room_beside_prefetch,
};
pub use decisions::{Decision, write_decisions};
pub use driven::{Driven, learn};
pub use error::LabError;
pub use options::{Capacity, Options, PolicyName, World};
pub use pareto::{Tried, dominated};
pub use predict::{
    FOLDS, FoldScores, PredictError, PredictOut, PredictScores, PredictSplit, WhenScores, mark_scored,
    predict_folds, predict_quick, predict_steps, predict_windows,
};
pub use replay::{Outcome, decide_minutes, decide_requests, replay_minutes, replay_requests, score_requests};
pub use requests::Requests;
pub use rivals::{HpaRules, KnativeRules, Rival};
pub use saved::{Saved, saved};
pub use scores::{ClassScores, MemoryScores, Scores, ServiceScores, WaitScores};
