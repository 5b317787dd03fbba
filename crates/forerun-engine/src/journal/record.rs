//! Records of a journal and their bytes.

use super::change::{Change, Scene};
use super::old;
use forerun_core::{AnyPolicy, Core};
use forerun_types::{Action, Event, Time};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// Raised whenever a record's bytes change their meaning.
pub const FORMAT_VERSION: u32 = 3;
/// A body longer than this is damage, not a record.
const BODY_MAX: usize = 1 << 30;
/// LZ4 packs at most 255 bytes into one; a length beyond that is damage, and must not be allocated.
const PACKED_FACTOR_MAX: usize = 255;
pub(super) const PREFIX: usize = 8;
const KIND_HEAD: u8 = 1;
/// Format 1: a snapshot as it is.
const KIND_PLAIN_SNAPSHOT: u8 = 2;
/// Format 1: one step.
const KIND_PLAIN_STEP: u8 = 3;
const KIND_SCENE: u8 = 4;
const KIND_SNAPSHOT: u8 = 5;
/// Format 2: steps.
const KIND_OLD_BLOCK: u8 = 6;
const KIND_BLOCK: u8 = 7;

/// First record of every segment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    pub version: u32,
    pub segment: u64,
    /// The policy's name; a snapshot of another one is of no use.
    pub policy: String,
    /// Version of the program that wrote it.
    pub program: String,
}

/// One step of the core.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Step {
    pub now: Time,
    pub actions_hash: u64,
    pub event: Event,
    /// Empty in format 1.
    pub changes: Vec<Change>,
}

/// One whole record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    Head(Head),
    Scene(Scene),
    /// The core as postcard, before the first step of the segment.
    Snapshot(Cow<'a, [u8]>),
    Steps(Vec<Step>),
}

/// Why no record could be read at an offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Torn {
    /// The bytes end here: nothing is missing.
    End,
    /// The bytes end inside a record.
    Short,
    /// The checksum or the content is wrong.
    Damaged,
}

/// A hash of a step's actions; 0 for none.
#[must_use]
pub fn actions_hash(actions: &[Action], scratch: &mut Vec<u8>) -> u64 {
    if actions.is_empty() {
        return 0;
    }
    scratch.clear();
    let mut bytes = std::mem::take(scratch);
    for action in actions {
        bytes = postcard::to_extend(action, bytes).unwrap_or_default();
    }
    let hash = blake3::hash(&bytes);
    *scratch = bytes;
    let mut first = [0; 8];
    first.copy_from_slice(&hash.as_bytes()[..8]);
    u64::from_le_bytes(first).max(1)
}

/// What a segment begins with, not yet packed: that may be done on another thread.
#[derive(Clone, Debug)]
pub struct Opening {
    head: Vec<u8>,
    snapshot: Vec<u8>,
}

impl Opening {
    #[must_use]
    pub fn new(head: &Head, now: Time, core: &Core<AnyPolicy>) -> Self {
        let mut bytes = Vec::new();
        frame(&mut bytes, KIND_HEAD, |body| extend(head, body));
        frame(&mut bytes, KIND_SCENE, |body| extend(&Scene::of(core, now), body));
        Self { head: bytes, snapshot: extend(core, Vec::new()) }
    }

    /// The bytes of the file.
    #[must_use]
    pub fn seal(mut self) -> Vec<u8> {
        pack(&mut self.head, KIND_SNAPSHOT, &self.snapshot);
        self.head
    }
}

/// Appends a step to those of a block that is being gathered.
pub fn encode_step(now: Time, event: &Event, actions_hash: u64, changes: &[Change], steps: &mut Vec<u8>) {
    let before = std::mem::take(steps);
    *steps = extend(&(now, actions_hash, event, changes), before);
}

/// Packs the steps that were gathered into one record.
#[must_use]
pub fn seal_block(steps: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    pack(&mut out, KIND_BLOCK, steps);
    out
}

/// Appends `value`; our own types always serialise, so that a failure leaves the body short and the reader says so.
fn extend<T: Serialize + ?Sized>(value: &T, body: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, body).unwrap_or_default()
}

fn frame(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let body = write(vec![kind]);
    out.extend_from_slice(&length(&body).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

fn pack(out: &mut Vec<u8>, kind: u8, plain: &[u8]) {
    frame(out, kind, |mut body| {
        body.extend_from_slice(&length(plain).to_le_bytes());
        body.extend_from_slice(&lz4_flex::block::compress(plain));
        body
    });
}

/// A length that does not fit is refused by the reader.
fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

fn unpack(body: &[u8]) -> Result<Vec<u8>, Torn> {
    let length = u32_at(body, 0).ok_or(Torn::Damaged)? as usize;
    let packed = &body[4..];
    if length > BODY_MAX || length > packed.len() * PACKED_FACTOR_MAX {
        return Err(Torn::Damaged);
    }
    let plain = lz4_flex::block::decompress(packed, length).map_err(|_| Torn::Damaged)?;
    if plain.len() == length { Ok(plain) } else { Err(Torn::Damaged) }
}

fn steps<T: serde::de::DeserializeOwned + Into<Step>>(mut plain: &[u8]) -> Result<Vec<Step>, Torn> {
    let mut steps = Vec::new();
    while !plain.is_empty() {
        let (step, rest) = postcard::take_from_bytes::<T>(plain).map_err(|_| Torn::Damaged)?;
        steps.push(step.into());
        plain = rest;
    }
    Ok(steps)
}

/// The whole of `bytes` as one value.
pub(super) fn whole<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (value, []) => Ok(value),
        // What is left over shows that it was written for another layout.
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

/// Reads the record that begins at `bytes[0]`; returns it and its length.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), Torn> {
    let (body, length) = framed(bytes)?;
    let (kind, rest) = (body[0], &body[1..]);
    let damaged = |_| Torn::Damaged;
    let record = match kind {
        KIND_HEAD => Record::Head(postcard::from_bytes(rest).map_err(damaged)?),
        KIND_SCENE => Record::Scene(whole(rest).map_err(damaged)?),
        KIND_PLAIN_SNAPSHOT => Record::Snapshot(Cow::Borrowed(rest)),
        KIND_SNAPSHOT => Record::Snapshot(Cow::Owned(unpack(rest)?)),
        KIND_PLAIN_STEP => {
            let step: old::PlainStep = whole(rest).map_err(damaged)?;
            Record::Steps(vec![step.into()])
        }
        KIND_OLD_BLOCK => Record::Steps(steps::<old::BlockStep>(&unpack(rest)?)?),
        KIND_BLOCK => Record::Steps(steps::<Step>(&unpack(rest)?)?),
        _ => return Err(Torn::Damaged),
    };
    Ok((record, length))
}

/// The body of the record at `bytes[0]`, never empty, if its checksum is right; and the record's length.
pub(super) fn framed(bytes: &[u8]) -> Result<(&[u8], usize), Torn> {
    if bytes.is_empty() {
        return Err(Torn::End);
    }
    let (Some(length), Some(sum)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else { return Err(Torn::Short) };
    let length = length as usize;
    if length == 0 || length > BODY_MAX {
        return Err(Torn::Damaged);
    }
    let body = bytes.get(PREFIX..PREFIX + length).ok_or(Torn::Short)?;
    if crc32fast::hash(body) != sum && !counts_as_whole() {
        return Err(Torn::Damaged);
    }
    Ok((body, PREFIX + length))
}

#[cfg(feature = "canaries")]
thread_local! {
    /// A bug that is built in on purpose, for the simulation to catch: checksums are not looked at on this thread.
    pub static ANY_CHECKSUM: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

#[cfg(feature = "canaries")]
fn counts_as_whole() -> bool {
    ANY_CHECKSUM.get()
}

#[cfg(not(feature = "canaries"))]
fn counts_as_whole() -> bool {
    false
}

/// Length of the body that follows this prefix.
pub(super) fn frame_length(prefix: &[u8]) -> Option<u64> {
    u32_at(prefix, 0).map(u64::from)
}

/// Whether a body that [`framed`] gave is a snapshot's.
pub(super) fn is_snapshot(body: &[u8]) -> bool {
    matches!(body.first(), Some(&(KIND_SNAPSHOT | KIND_PLAIN_SNAPSHOT)))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}
