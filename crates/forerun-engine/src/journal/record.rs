//! Records of a journal and their bytes.

use forerun_types::{Action, Event, Time};
use serde::{Deserialize, Serialize};

/// Raised whenever a record's bytes change their meaning.
pub const FORMAT_VERSION: u32 = 1;
/// A body longer than this is damage, not a record.
const BODY_MAX: usize = 1 << 30;
const PREFIX: usize = 8;
const KIND_HEAD: u8 = 1;
const KIND_SNAPSHOT: u8 = 2;
const KIND_STEP: u8 = 3;

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

/// One whole record.
#[derive(Clone, Debug, PartialEq)]
pub enum Record<'a> {
    Head(Head),
    /// The core as postcard, before the first step of the segment.
    Snapshot(&'a [u8]),
    Step {
        now: Time,
        event: Event,
        actions_hash: u64,
    },
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

pub fn encode_head(head: &Head, out: &mut Vec<u8>) {
    frame(out, KIND_HEAD, |body| extend(head, body));
}

pub fn encode_snapshot(core: &impl Serialize, out: &mut Vec<u8>) {
    frame(out, KIND_SNAPSHOT, |body| extend(core, body));
}

pub fn encode_step(now: Time, event: &Event, actions_hash: u64, out: &mut Vec<u8>) {
    frame(out, KIND_STEP, |body| extend(&(now, actions_hash, event), body));
}

/// Appends `value`; our own types always serialise, so that a failure leaves the body short and the reader says so.
fn extend<T: Serialize + ?Sized>(value: &T, body: Vec<u8>) -> Vec<u8> {
    postcard::to_extend(value, body).unwrap_or_default()
}

fn frame(out: &mut Vec<u8>, kind: u8, write: impl FnOnce(Vec<u8>) -> Vec<u8>) {
    let body = write(vec![kind]);
    out.extend_from_slice(&u32::try_from(body.len()).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    out.extend_from_slice(&body);
}

/// Reads the record that begins at `bytes[0]`; returns it and its length.
pub fn decode(bytes: &[u8]) -> Result<(Record<'_>, usize), Torn> {
    if bytes.is_empty() {
        return Err(Torn::End);
    }
    let (Some(length), Some(sum)) = (u32_at(bytes, 0), u32_at(bytes, 4)) else { return Err(Torn::Short) };
    let length = length as usize;
    if length == 0 || length > BODY_MAX {
        return Err(Torn::Damaged);
    }
    let body = bytes.get(PREFIX..PREFIX + length).ok_or(Torn::Short)?;
    if crc32fast::hash(body) != sum {
        return Err(Torn::Damaged);
    }
    let (kind, rest) = (body[0], &body[1..]);
    let record = match kind {
        KIND_HEAD => Record::Head(postcard::from_bytes(rest).map_err(|_| Torn::Damaged)?),
        KIND_SNAPSHOT => Record::Snapshot(rest),
        KIND_STEP => {
            let (now, actions_hash, event) = postcard::from_bytes(rest).map_err(|_| Torn::Damaged)?;
            Record::Step { now, event, actions_hash }
        }
        _ => return Err(Torn::Damaged),
    };
    Ok((record, PREFIX + length))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn two_steps() -> Vec<u8> {
        let mut out = Vec::new();
        encode_head(
            &Head { version: 1, segment: 7, policy: "forerun".into(), program: "test".into() },
            &mut out,
        );
        encode_step(Time(5), &Event::Tick, 9, &mut out);
        out
    }

    #[test]
    fn records_come_back() {
        let bytes = two_steps();
        let (head, length) = decode(&bytes).unwrap();
        assert!(matches!(head, Record::Head(Head { segment: 7, .. })));
        let (step, more) = decode(&bytes[length..]).unwrap();
        assert_eq!(step, Record::Step { now: Time(5), event: Event::Tick, actions_hash: 9 });
        assert_eq!(decode(&bytes[length + more..]), Err(Torn::End));
    }

    #[test]
    fn a_cut_or_a_flipped_bit_at_any_place_is_seen() {
        let bytes = two_steps();
        let whole = |bytes: &[u8]| {
            let mut at = 0;
            let mut n = 0;
            while let Ok((_, length)) = decode(&bytes[at..]) {
                at += length;
                n += 1;
            }
            n
        };
        assert_eq!(whole(&bytes), 2);
        for cut in 0..bytes.len() {
            assert!(whole(&bytes[..cut]) < 2, "cut at {cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(whole(&damaged) < 2, "bit {bit}");
        }
    }
}
