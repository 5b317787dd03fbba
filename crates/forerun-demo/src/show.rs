//! The race as it is seen in a terminal.

use crate::race::Standing;
use forerun_types::Span;
use std::io::{self, IsTerminal, Write};

/// Draws over itself on stderr, if that is a terminal; else it is silent.
#[derive(Debug)]
pub(crate) struct Screen {
    live: bool,
    drawn: usize,
}

impl Screen {
    pub(crate) fn new() -> Self {
        Self { live: io::stderr().is_terminal(), drawn: 0 }
    }

    pub(crate) fn is_live(&self) -> bool {
        self.live
    }

    /// `clock` is the recorded time; `left` how long the race will go on.
    pub(crate) fn draw(&mut self, clock: &str, left: Span, speedup: u64, sides: &[(&str, Standing)]) {
        if !self.live {
            return;
        }
        let mut text = String::new();
        if self.drawn > 0 {
            text.push_str(&format!("\x1b[{}A", self.drawn));
        }
        let mut line = |content: String| text.push_str(&format!("\x1b[2K{content}\n"));
        line(format!("{clock} of the recording, {}s to go", left.0 / 1_000_000));
        line(format!(
            "{:<20} {:>9} {:>12} {:>10} {:>14} {:>13}",
            "", "requests", "cold starts", "wait p99", "instances up", "memory GB-h"
        ));
        for (name, s) in sides {
            line(format!(
                "{name:<20} {:>9} {:>12} {:>10} {:>14} {:>13.2}",
                s.requests,
                s.cold_starts,
                s.wait_p99.to_string(),
                s.up,
                s.gb_seconds * speedup as f64 / 3_600.0
            ));
        }
        self.drawn = 2 + sides.len();
        // A terminal that has gone is no reason to end the race.
        let _ = io::stderr().write_all(text.as_bytes());
    }
}
