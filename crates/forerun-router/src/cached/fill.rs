//! A body that is kept while it goes to its client.

use super::HttpCache;
use super::flights::Leader;
use bytes::{Bytes, BytesMut};
use forerun_cache::http::{PageKey, Stored};
use forerun_cache::{Put, Stamp};
use hyper::HeaderMap;
use hyper::body::Frame;
use std::sync::Arc;

/// What becomes an entry once all of it has come. Dropped before, it is none.
pub(crate) struct Fill {
    pub(crate) cache: Arc<HttpCache>,
    pub(crate) key: PageKey,
    /// The request's headers, for `Vary`.
    pub(crate) request: HeaderMap,
    pub(crate) begun: Stamp,
    pub(crate) stored: Option<Stored>,
    pub(crate) body_bytes_max: u64,
    pub(crate) variants_max: usize,
    pub(crate) chunks: Vec<Bytes>,
    pub(crate) bytes: u64,
    /// Those who wait for this go on when it ends.
    pub(crate) _leader: Option<Leader>,
}

impl Fill {
    /// Takes a part of the body; whether it still may become an entry.
    pub(crate) fn add(&mut self, frame: &Frame<Bytes>) -> bool {
        // Trailers are not kept, and what is kept is all of an answer or nothing.
        let Some(data) = frame.data_ref() else { return false };
        let bytes = data.len() as u64;
        if self.bytes + bytes > self.body_bytes_max || !self.cache.take_room(bytes) {
            return false;
        }
        self.bytes += bytes;
        self.chunks.push(data.clone());
        true
    }

    /// All of it has come.
    pub(crate) fn finish(mut self) {
        let body = match &self.chunks[..] {
            // A piece of a larger buffer would keep all of that.
            [one] => Bytes::copy_from_slice(one),
            many => many
                .iter()
                .fold(BytesMut::with_capacity(self.bytes as usize), |mut all, chunk| {
                    all.extend_from_slice(chunk);
                    all
                })
                .freeze(),
        };
        let Some(stored) = self.stored.take() else { return };
        let stored = stored.with_body(body);
        let mut pages = self.cache.pages();
        let put = pages.keep(&self.key, &self.request, self.begun, stored, self.variants_max);
        drop(pages);
        self.cache.note_put(put == Put::Kept);
    }
}

impl Drop for Fill {
    fn drop(&mut self) {
        self.cache.give_room(self.bytes);
    }
}
