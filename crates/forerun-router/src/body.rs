//! The bodies that pass through: counted, bounded in how long they stall, never buffered.

use crate::cached::Fill;
use crate::events::BesideBody;
use crate::io::Client;
use crate::stats::Outcome;
use crate::upstream::Lease;
use crate::visit::Visit;
use bytes::Bytes;
use forerun_types::Span;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::{Context, Poll};
use tokio::time::Sleep;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the client's body was cut short: {0}")]
    Client(#[source] hyper::Error),
    #[error("the client sent nothing of its body for {0}")]
    Stalled(Span),
    #[error("the instance's body was cut short: {0}")]
    Upstream(#[source] hyper::Error),
}

/// What became of the client's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Upload {
    Fine,
    Cut,
    Stalled,
}

/// What has passed so far of one request, both ways.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    bytes: AtomicU64,
    upload: AtomicU8,
    /// The request has no body: with its head all of it was sent.
    bodyless: AtomicBool,
}

impl Progress {
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    pub(crate) fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn add(&self, frame: &Frame<Bytes>) {
        self.add_bytes(frame.data_ref().map_or(0, |data| data.len() as u64));
    }

    fn failed(&self, upload: Upload) {
        self.upload.store(upload as u8, Ordering::Relaxed);
    }

    pub(crate) fn is_bodyless(&self) -> bool {
        self.bodyless.load(Ordering::Relaxed)
    }

    pub(crate) fn set_bodyless(&self) {
        self.bodyless.store(true, Ordering::Relaxed);
    }

    pub(crate) fn upload(&self) -> Upload {
        match self.upload.load(Ordering::Relaxed) {
            0 => Upload::Fine,
            1 => Upload::Cut,
            _ => Upload::Stalled,
        }
    }
}

/// A client's body on its way to an instance; `None` is empty, for a request that is sent again.
pub(crate) struct RequestBody {
    inner: Option<Incoming>,
    progress: Arc<Progress>,
    stall: Span,
    patience: Option<Pin<Box<Sleep>>>,
}

impl RequestBody {
    pub(crate) fn new(inner: Option<Incoming>, progress: Arc<Progress>, stall: Span) -> Self {
        Self { inner, progress, stall, patience: None }
    }

    pub(crate) fn into_inner(self) -> Option<Incoming> {
        self.inner
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = &mut *self;
        let Some(inner) = &mut this.inner else {
            return Poll::Ready(None);
        };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                this.patience = None;
                this.progress.add(&frame);
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                this.progress.failed(Upload::Cut);
                Poll::Ready(Some(Err(BodyError::Client(error))))
            }
            Poll::Ready(None) => Poll::Ready(None),
            Poll::Pending => {
                let stall = this.stall;
                let patience =
                    this.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall.into())));
                if patience.as_mut().poll(cx).is_pending() {
                    return Poll::Pending;
                }
                this.progress.failed(Upload::Stalled);
                Poll::Ready(Some(Err(BodyError::Stalled(stall))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// What goes back to a client.
pub(crate) enum ReplyBody {
    /// Forerun's own text.
    Own(Option<Bytes>),
    Beside(BesideBody),
    Forwarded(Box<Forwarded>),
}

impl ReplyBody {
    pub(crate) fn own(text: Bytes) -> Self {
        Self::Own(Some(text).filter(|text| !text.is_empty()))
    }

    /// From now on it is kept as it goes by.
    pub(crate) fn keep(&mut self, fill: Fill) {
        if let Self::Forwarded(body) = self {
            body.fill = Some(Box::new(fill));
        }
    }
}

/// An instance's body on its way to the client. While it lives, its request is in flight.
pub(crate) struct Forwarded {
    inner: Incoming,
    progress: Arc<Progress>,
    /// `None` once the body is over.
    open: Option<(Visit, Lease)>,
    /// Its client knows the end of the body only by the end of the connection: a body cut short must not end like
    /// that.
    reset: Option<Client>,
    /// Keeps it as it goes by.
    fill: Option<Box<Fill>>,
}

impl Forwarded {
    pub(crate) fn new(inner: Incoming, visit: Visit, lease: Lease, reset: Option<Client>) -> Self {
        Self { inner, progress: Arc::clone(&visit.progress), open: Some((visit, lease)), reset, fill: None }
    }

    /// All of it has come.
    fn finish(&mut self) {
        if let Some(fill) = self.fill.take() {
            fill.finish();
        }
        if let Some((mut visit, lease)) = self.open.take() {
            lease.give_back();
            visit.settle(Outcome::Answered, None);
        }
    }

    fn fail(&mut self) {
        self.fill = None;
        if let Some((mut visit, _)) = self.open.take() {
            visit.cut_short();
        }
        if let Some(client) = self.reset.take() {
            client.reset();
        }
    }
}

/// A body whose length is known is dropped with its last byte, without being asked for its end; any other that is
/// dropped has lost its client.
impl Drop for Forwarded {
    fn drop(&mut self) {
        if self.inner.is_end_stream() {
            self.finish();
        }
    }
}

impl Body for ReplyBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let body = match &mut *self {
            ReplyBody::Own(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            ReplyBody::Beside(body) => {
                let polled = Pin::new(body).poll_frame(cx);
                return polled.map_err(|never| match never {});
            }
            ReplyBody::Forwarded(body) => body,
        };
        match Pin::new(&mut body.inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(frame))) => {
                body.progress.add(&frame);
                if body.fill.as_mut().is_some_and(|fill| !fill.add(&frame)) {
                    body.fill = None;
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                body.fail();
                Poll::Ready(Some(Err(BodyError::Upstream(error))))
            }
            Poll::Ready(None) => {
                body.finish();
                Poll::Ready(None)
            }
            Poll::Pending => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            ReplyBody::Own(text) => text.is_none(),
            ReplyBody::Beside(body) => body.is_end_stream(),
            ReplyBody::Forwarded(body) => body.inner.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            ReplyBody::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |t| t.len() as u64)),
            ReplyBody::Beside(body) => body.size_hint(),
            ReplyBody::Forwarded(body) => body.inner.size_hint(),
        }
    }
}
