//! Sablier's stream of what becomes of its instances: `GET /api/events`, as server-sent events.
//!
//! A stream compares what services are doing now with what they did before, a few times a second. It tells what is
//! true, not each step in between, and so nothing piles up for a client that reads slowly.

use crate::core::Core;
use crate::query::params;
use crate::sablier::{Problem, condition_word, instance_of};
use crate::server::Phase;
use crate::table::Entry;
use bytes::Bytes;
use forerun_types::ServiceId;
use hyper::body::{Body, Frame, SizeHint};
use hyper::http::request::Parts;
use serde_json::Value;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, mpsc, watch};

/// Streams at a time, of one router.
pub(crate) const STREAMS_MAX: usize = 32;
/// A person looks at what comes of it, or a script.
const LOOK_EVERY: Duration = Duration::from_millis(250);
/// So that a client that has gone is noticed, and proxies in between do not give up.
const ALIVE_EVERY: Duration = Duration::from_secs(15);
const TYPES: [&str; 5] = ["created", "updated", "removed", "started", "stopped"];

/// The body of an answer that is beside the requests: a text, or a stream of events. It never fails.
#[derive(Debug)]
pub enum BesideBody {
    /// All of it.
    Text(Option<Bytes>),
    /// Piece by piece, until the client goes or the router ends.
    Events(mpsc::Receiver<Bytes>),
}

impl From<Bytes> for BesideBody {
    fn from(text: Bytes) -> Self {
        Self::Text(Some(text).filter(|text| !text.is_empty()))
    }
}

impl Body for BesideBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match &mut *self {
            Self::Text(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Events(events) => events.poll_recv(cx).map(|piece| piece.map(|p| Ok(Frame::data(p)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Text(None))
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Text(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Events(_) => SizeHint::default(),
        }
    }
}

/// Begins a stream of the types that are asked for, or of all.
///
/// # Errors
/// A type that there is not, too many streams.
pub(crate) fn begin(
    core: &Arc<Core>,
    asked: &Parts,
    phase: watch::Receiver<Phase>,
) -> Result<BesideBody, Problem> {
    let query = asked.uri.query().unwrap_or_default();
    let types: Vec<String> = params(query).filter(|(name, _)| name == "types").map(|(_, t)| t).collect();
    if let Some(strange) = types.iter().find(|t| !TYPES.contains(&t.as_str())) {
        let detail = format!("types: there is no {strange:?}; there are {}", TYPES.join(", "));
        return Err(Problem::validation(detail));
    }
    let place = Arc::clone(&core.streams).try_acquire_owned().map_err(|_| {
        Problem::busy(format!("{STREAMS_MAX} clients follow events already; end one of them"))
    })?;
    // One piece on its way, one to come: what is not read yet is not made yet.
    let (sender, receiver) = mpsc::channel(1);
    let seen = seen(core);
    tokio::spawn(follow(Arc::clone(core), types, sender, phase, seen, place));
    Ok(BesideBody::Events(receiver))
}

/// Services by their ids, each with Sablier's word for what it was doing when it was last looked at.
type Seen<T> = BTreeMap<ServiceId, (&'static str, T)>;

fn seen(core: &Core) -> Seen<Arc<Entry>> {
    let table = core.table.load();
    let entries = table.entries().iter().filter(|entry| entry.spec.variant.is_none());
    let word = |entry: &Entry| condition_word(&entry.service.condition());
    entries.map(|entry| (entry.id(), (word(entry), Arc::clone(entry)))).collect()
}

async fn follow(
    core: Arc<Core>,
    types: Vec<String>,
    sender: mpsc::Sender<Bytes>,
    mut phase: watch::Receiver<Phase>,
    mut before: Seen<Arc<Entry>>,
    _place: OwnedSemaphorePermit,
) {
    let mut quiet = Duration::ZERO;
    loop {
        tokio::select! {
            () = sender.closed() => return,
            // Nothing is served any more, and a stream must not hold up the end.
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => return,
            () = tokio::time::sleep(LOOK_EVERY) => {}
        }
        let now = seen(&core);
        let mut piece = changes(&before, &now, &types, |entry| instance_of(entry));
        before = now;
        quiet += LOOK_EVERY;
        if piece.is_empty() && quiet >= ALIVE_EVERY {
            piece.push_str(":\n\n");
        }
        if piece.is_empty() {
            continue;
        }
        quiet = Duration::ZERO;
        tokio::select! {
            sent = sender.send(piece.into()) => if sent.is_err() { return },
            _ = phase.wait_for(|phase| *phase > Phase::Serving) => return,
        }
    }
}

/// The events between two looks, as they are sent.
fn changes<T>(before: &Seen<T>, now: &Seen<T>, types: &[String], info: impl Fn(&T) -> Value) -> String {
    let mut text = String::new();
    let mut tell = |kind: &str, one: &T| {
        if types.is_empty() || types.iter().any(|wanted| wanted == kind) {
            text.push_str(&format!("event:{kind}\ndata:{}\n\n", info(one)));
        }
    };
    for (_, (_, gone)) in before.iter().filter(|(id, _)| !now.contains_key(id)) {
        tell("removed", gone);
    }
    for (id, (word, one)) in now {
        match (before.get(id).map_or("", |(word, _)| *word), *word) {
            ("", _) => tell("created", one),
            (old, new) if old == new => {}
            (_, "ready") => tell("started", one),
            ("ready", _) => tell("stopped", one),
            _ => tell("updated", one),
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn world(services: &[(u32, &'static str)]) -> Seen<u32> {
        services.iter().map(|(id, word)| (ServiceId(*id), (*word, *id))).collect()
    }

    fn check(before: &[(u32, &'static str)], now: &[(u32, &'static str)], types: &[&str], expect: &str) {
        let types: Vec<String> = types.iter().map(|t| (*t).to_owned()).collect();
        let text = changes(&world(before), &world(now), &types, |id| Value::from(*id));
        let told = text.replace("event:", "").replace("\ndata:", " ").replace("\n\n", ", ");
        assert_eq!(told.trim_end_matches(", "), expect, "{before:?} {now:?} {types:?}");
    }

    #[test]
    fn what_changed_is_told_by_its_type() {
        check(&[], &[], &[], "");
        check(&[(1, "stopped")], &[(1, "stopped")], &[], "");
        check(&[(1, "stopped")], &[(1, "starting")], &[], "updated 1");
        check(&[(1, "starting"), (2, "ready")], &[(1, "ready"), (2, "error")], &[], "started 1, stopped 2");
        check(&[(1, "ready"), (2, "ready")], &[(2, "ready"), (3, "stopped")], &[], "removed 1, created 3");
        let types = ["started", "removed"];
        check(&[(1, "stopped"), (2, "ready")], &[(1, "ready"), (3, "ready")], &types, "removed 2, started 1");
    }
}
