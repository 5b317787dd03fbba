//! Load forecasts of recorded series, by the live forecaster.

mod dated;
mod files;
mod live;
mod run;
mod scores;

pub use dated::{Dated, Grid, read_dated};
pub use files::{FileError, Skipped, read_origins, read_series, write_forecasts};
pub use live::live;
pub use run::{Asked, Fitted, Series};
pub use scores::{Means, Scores, backtest, means, scores, weights};

pub use forerun_core::forecast::series::track::Told;
pub use forerun_core::forecast::series::{HORIZON_MAX as STEPS_MAX, LEVELS};
