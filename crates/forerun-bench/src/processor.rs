//! Time on the processor: on a machine that others use too, a clock counts their share as well.

use std::time::{Duration, Instant};

/// A moment of this thread.
pub(crate) struct Began {
    on_processor: Option<Duration>,
    clock: Instant,
}

impl Began {
    pub(crate) fn now() -> Self {
        Self { on_processor: on_processor(), clock: Instant::now() }
    }

    /// Microseconds since then that this thread was on a processor; where the kernel does not say, by the clock.
    pub(crate) fn us(&self) -> f64 {
        let spent = self.on_processor.zip(on_processor()).map(|(from, to)| to.saturating_sub(from));
        spent.unwrap_or_else(|| self.clock.elapsed()).as_secs_f64() * 1e6
    }
}

/// The first number of Linux's `schedstat`: nanoseconds.
fn on_processor() -> Option<Duration> {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    text.split(' ').next()?.parse().ok().map(Duration::from_nanos)
}
