//! Traffic in the form that everything else works on: numbers, in order of time.

use forerun_types::{ActionKey, GroupKey, ServiceId, Span, TenantKey, Time, UserKey};

/// One request of a trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// When it arrived; `Time(0)` is the trace's earliest instant, not 1970.
    pub at: Time,
    pub service: ServiceId,
    pub tenant: TenantKey,
    pub user: UserKey,
    pub group: GroupKey,
    pub action: ActionKey,
    /// How long an instance is busy with it; `None` where the trace has no such column.
    pub duration: Option<Span>,
    /// What one instance of the service takes; `None` where the trace does not tell.
    pub memory_bytes: Option<u64>,
}

/// Recorded requests in order of time; those of one instant stand in the order of the files.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    /// Names by [`ServiceId`], numbered in order of first appearance in time.
    pub services: Vec<String>,
    pub events: Vec<TraceEvent>,
    /// What the files call `Time(0)`, in microseconds since 1970 or since the file's own zero.
    pub origin_us: i64,
    /// Where second 0 of a decisions file lies: the first arrival, or the file's own zero.
    pub zero: Time,
    pub report: ReadReport,
}

impl Trace {
    /// Keeps what comes before `until`. Numbers of services stay as they are.
    pub fn cut(&mut self, until: Time) {
        self.events.truncate(self.events.partition_point(|e| e.at < until));
        let seen = self.events.iter().map(|e| e.service.0 as usize + 1).max().unwrap_or(0);
        self.services.truncate(seen);
    }
}

/// Mean concurrency by whole minutes, for worlds that know no single requests.
#[derive(Clone, Debug, Default)]
pub struct MinuteTrace {
    pub apps: Vec<MinuteApp>,
    pub report: ReadReport,
}

impl MinuteTrace {
    /// Minutes of the longest app.
    #[must_use]
    pub fn minutes(&self) -> usize {
        self.apps.iter().map(|a| a.concurrency.len()).max().unwrap_or(0)
    }

    /// Keeps the minutes that begin before `until`.
    pub fn cut(&mut self, until: Time) {
        let minutes = usize::try_from(until.0.div_ceil(60_000_000)).unwrap_or(usize::MAX);
        for app in &mut self.apps {
            app.concurrency.truncate(minutes);
        }
    }
}

/// One app of a [`MinuteTrace`].
#[derive(Clone, Debug, Default, PartialEq)]
pub struct MinuteApp {
    pub name: String,
    /// Megabytes (10^6 bytes) of one instance.
    pub memory_mb: f64,
    /// Mean number of requests at once, by minute; finite, not negative.
    pub concurrency: Vec<f64>,
}

/// What reading met.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadReport {
    /// Lines with something on them, headers included.
    pub lines: u64,
    pub skipped: u64,
    /// Requests that stood after a later one; they have been put in order.
    pub out_of_order: u64,
    pub first_offender: Option<Offender>,
}

/// A line that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offender {
    pub file: String,
    pub line: u64,
    pub why: String,
}

impl ReadReport {
    pub(crate) fn skip(&mut self, file: &str, line: u64, why: String) {
        self.skipped += 1;
        if self.first_offender.is_none() {
            self.first_offender = Some(Offender { file: file.to_owned(), line, why });
        }
    }

    /// What a person should be told, a line each; empty when all went well.
    #[must_use]
    pub fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let Some(first) = &self.first_offender {
            let (n, s) = (self.skipped, if self.skipped == 1 { "" } else { "s" });
            notes.push(format!(
                "{n} line{s} skipped, the first is {}:{}: {}",
                first.file, first.line, first.why
            ));
        }
        if self.out_of_order > 0 {
            notes.push(format!(
                "{} requests were out of order and have been sorted by time",
                self.out_of_order
            ));
        }
        notes
    }
}
