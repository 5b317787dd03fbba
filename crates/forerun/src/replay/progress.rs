//! How far a long replay has come.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::time::{Duration, Instant};

/// A bar on standard error, if that is a terminal, for what takes longer than a second.
pub(crate) struct Progress {
    began: Instant,
    what: &'static str,
    total: Option<u64>,
    bar: Option<ProgressBar>,
}

const QUIET: Duration = Duration::from_secs(1);

impl Progress {
    pub(crate) fn new(what: &'static str, total: Option<u64>) -> Self {
        Self { began: Instant::now(), what, total, bar: None }
    }

    pub(crate) fn at(&mut self, done: u64) {
        if self.bar.is_none() && self.began.elapsed() > QUIET && std::io::stderr().is_terminal() {
            let (bar, style) = match self.total {
                Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {percent}% {eta} left"),
                None => (ProgressBar::no_length(), "{msg} {human_pos}, {elapsed}"),
            };
            // The template is ours: if it were wrong, indicatif's own would do.
            let style = ProgressStyle::with_template(style).unwrap_or_else(|_| ProgressStyle::default_bar());
            self.bar = Some(bar.with_style(style).with_message(self.what));
        }
        if let Some(bar) = &self.bar {
            bar.set_position(done);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
