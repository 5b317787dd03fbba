//! `--cache SIZE[,SIZE...]`: how often what is asked for is there, on a trace of keys.

use super::print::peak_rss_bytes;
use super::progress::Progress;
use super::{ReplayArgs, bad, notes, sizes};
use crate::failure::Failure;
use crate::terminal;
use comfy_table::CellAlignment;
use forerun_cache::{Cache, Key, LARGEST_PART, Limits, Memory, Store};
use forerun_lab::{
    CacheRival, CacheScores, CacheSize, Holds, Keep, replay_keep, replay_prefetch, replay_rival,
    room_beside_prefetch,
};
use forerun_trace::{Input, KeyFormat, KeyTrace, ReadOptions, TraceError, read_keys};
use forerun_types::TenantKey;
use serde_json::{Value, json};
use std::io::Write;
use std::sync::Arc;
use std::time::Instant;

/// What our own row is called, and that with prefetch.
const OURS: &str = "forerun";
const AHEAD: &str = "forerun+prefetch";

/// A size as it was written, and all policies at it.
struct Rows {
    told: String,
    scores: Vec<CacheScores>,
}

/// Reads, replays, prints.
///
/// # Errors
/// Sizes that are none or do not fit the trace, files that cannot be read.
pub(super) fn run(args: &ReplayArgs, out: &mut dyn Write) -> Result<(), Failure> {
    let told: Vec<String> =
        args.cache.iter().flat_map(|t| t.split(',')).map(|t| t.trim().to_owned()).collect();
    let sizes = told.iter().map(|text| size(text)).collect::<Result<Vec<_>, _>>()?;
    let trace = read(args)?;
    if let (None, Some(n)) = (&trace.bytes, sizes.iter().position(|s| matches!(s, CacheSize::Bytes(_)))) {
        let sized = "this trace does not tell its keys' sizes: give a number of keys";
        return Err(bad(format!("--cache: {} is in bytes, and {sized}", told[n])));
    }
    let requests = trace.requests.len() as u64;
    let from = first_scored(args, &trace)?;
    let scored = (&trace, from);
    let ours = 1 + usize::from(trace.visits.is_some());
    let runs = (sizes.len() * (ours + CacheRival::ALL.len())) as u64;
    let mut progress = Progress::new("replaying", Some(requests * runs));
    let began = Instant::now();
    let mut done = 0;
    let mut rows = Vec::new();
    for (told, size) in told.into_iter().zip(sizes) {
        let Some(units) = size.units_of(&trace) else { continue };
        let mut store = Kept::new(size, Arc::clone(&units), args.seed);
        let mut scores = vec![replay_keep(OURS, &mut store, scored, &mut |n| progress.at(done + n))];
        done += requests;
        if trace.visits.is_some() {
            let mut store = Kept::new(beside_prefetch(size), Arc::clone(&units), args.seed);
            let room = (size.units(), &*units);
            scores.extend(replay_prefetch(AHEAD, &mut store, scored, room, &mut |n| progress.at(done + n)));
            done += requests;
        }
        for rival in CacheRival::ALL {
            scores.extend(replay_rival(rival, size, scored, &mut |n| progress.at(done + n)));
            done += requests;
        }
        rows.push(Rows { told, scores });
    }
    let speed = (requests * runs) as f64 / began.elapsed().as_secs_f64().max(1e-9);
    drop(progress);
    notes(&trace.report);
    if args.json {
        let document = document(args, &trace, &rows, speed);
        let text = serde_json::to_string_pretty(&document).map_err(|e| Failure::Running(e.to_string()))?;
        return Ok(writeln!(out, "{text}")?);
    }
    Ok(out.write_all(people(&trace, &rows, speed).as_bytes())?)
}

/// A bare number is keys, a number with a unit bytes.
fn size(text: &str) -> Result<CacheSize, Failure> {
    let size = match text.parse::<u64>() {
        Ok(entries) => Some(CacheSize::Entries(entries)),
        Err(_) => sizes::bytes(text).map(CacheSize::Bytes),
    };
    // A cache of 2^40 keys holds any trace that can be read.
    let fits = |size: &CacheSize| match size {
        CacheSize::Entries(entries) => (1..=1 << 40).contains(entries),
        CacheSize::Bytes(bytes) => *bytes > 0,
    };
    size.filter(fits).ok_or_else(|| {
        bad(format!("--cache: {text:?} is neither a number of keys from 1 to 2^40 nor a size as 64MB"))
    })
}

/// `--split`: a part of the requests, which only teach.
fn first_scored(args: &ReplayArgs, trace: &KeyTrace) -> Result<usize, Failure> {
    let Some(text) = &args.split else { return Ok(0) };
    let part = text.parse::<f64>().ok().filter(|part| (0.0..1.0).contains(part));
    let part =
        part.ok_or_else(|| bad(format!("--split: with --cache a part from 0 to below 1, not {text:?}")))?;
    Ok((trace.requests.len() as f64 * part) as usize)
}

fn read(args: &ReplayArgs) -> Result<KeyTrace, Failure> {
    let format = args.format.as_deref().map(KeyFormat::parse).transpose();
    let format = format.map_err(|why| bad(format!("--format: with --cache, {why}")))?;
    let options = ReadOptions { strict: args.strict, ..ReadOptions::default() };
    let inputs: Vec<Input> = args.traces.iter().map(|t| Input::parse(t)).collect();
    let mut progress = Progress::new("reading lines", None);
    read_keys(&inputs, format, &options, &mut |lines| progress.at(lines)).map_err(|error| match error {
        TraceError::Option { .. } => bad(error),
        error => Failure::Running(error.to_string()),
    })
}

fn beside_prefetch(size: CacheSize) -> CacheSize {
    match size {
        CacheSize::Entries(entries) => CacheSize::Entries(room_beside_prefetch(entries)),
        CacheSize::Bytes(bytes) => CacheSize::Bytes(room_beside_prefetch(bytes)),
    }
}

/// The store as the lab drives it: what is missing is fetched and put at once.
struct Kept {
    cache: Cache<Memory<()>>,
    units: Arc<[u64]>,
    /// What takes more is not kept.
    largest: u64,
}

impl Kept {
    fn new(size: CacheSize, units: Arc<[u64]>, seed: u64) -> Self {
        let capacity = size.units();
        let largest = match size {
            CacheSize::Entries(_) => 1,
            CacheSize::Bytes(bytes) => bytes / LARGEST_PART,
        };
        // Places are told apart for purges, of which a trace has none.
        let memory = Memory::new(Limits { bytes: capacity, entry_bytes: 0 }, seed);
        Self { cache: Cache::new(memory, 1, seed), units, largest }
    }
}

impl Keep for Kept {
    fn request(&mut self, key: u32) -> bool {
        let name = key.to_le_bytes();
        let entry = Key { tenant: TenantKey(0), name: &name };
        if self.cache.get(entry).is_some() {
            return true;
        }
        let begun = self.cache.begin();
        let units = self.units[key as usize];
        if units <= self.largest {
            self.cache.put(entry, begun, (), units);
        }
        false
    }
}

impl Holds for Kept {
    fn holds(&self, key: u32) -> bool {
        self.cache.store().peek(Key { tenant: TenantKey(0), name: &key.to_le_bytes() }).is_some()
    }
}

fn document(args: &ReplayArgs, trace: &KeyTrace, rows: &[Rows], speed: f64) -> Value {
    let report = &trace.report;
    let first = report.first_offender.as_ref().map(|o| format!("{}:{}: {}", o.file, o.line, o.why));
    let bytes = trace.bytes.as_ref().map(|bytes| bytes.iter().map(|b| u128::from(*b)).sum::<u128>() as f64);
    let cache: Vec<Value> = rows
        .iter()
        .flat_map(|row| {
            row.scores.iter().map(|scores| {
                let mut value = json!(scores);
                value["size"] = row.told.as_str().into();
                value
            })
        })
        .collect();
    json!({
        "trace": {
            "files": args.traces,
            "requests": trace.requests.len(),
            "keys": trace.keys,
            "bytes": bytes,
            "lines": report.lines,
            "skipped": report.skipped,
            "first_skipped": first,
        },
        "cache": cache,
        "events_per_second": speed,
        "peak_rss_bytes": peak_rss_bytes(),
    })
}

fn people(trace: &KeyTrace, rows: &[Rows], speed: f64) -> String {
    let head = rows.first().map(|row| row.scores.as_slice()).unwrap_or_default();
    let names = head.iter().map(|scores| scores.policy.to_uppercase());
    let headers: Vec<String> = std::iter::once("SIZE".to_owned()).chain(names).collect();
    let mut shown = terminal::table(headers.iter().map(String::as_str));
    let percent = |ratio: f64| format!("{:.2}%", ratio * 100.0);
    for row in rows {
        let ratios = row.scores.iter().map(|scores| percent(scores.hit_ratio));
        shown.add_row(std::iter::once(row.told.clone()).chain(ratios).collect::<Vec<_>>());
        if row.scores.iter().all(|scores| scores.byte_hit_ratio.is_some()) && sizes_differ(trace) {
            let ratios = row.scores.iter().map(|s| percent(s.byte_hit_ratio.unwrap_or(0.0)));
            shown.add_row(std::iter::once("  of bytes".to_owned()).chain(ratios).collect::<Vec<_>>());
        }
    }
    for column in shown.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let (requests, keys) = (trace.requests.len(), trace.keys);
    format!(
        "{requests} requests of {keys} keys; {speed:.0} a second\n\n{}\n{}{}\n",
        terminal::lines(&shown),
        fetched(rows),
        "belady knows the future: with keys of one size no policy has more hits"
    )
}

/// What prefetch fetched, a line a size; empty without.
fn fetched(rows: &[Rows]) -> String {
    let told = rows.iter().flat_map(|row| row.scores.iter().map(move |scores| (row, scores)));
    told.filter_map(|(row, scores)| Some((&row.told, scores.prefetch?)))
        .map(|(size, prefetch)| {
            let (fetches, mb) = (prefetch.fetches, prefetch.bytes as f64 / 1e6);
            let waste = prefetch.waste_ratio * 100.0;
            format!("{size}: {fetches} fetched ahead, {mb:.2} MB, {waste:.1}% of the bytes in vain\n")
        })
        .collect()
}

/// Where all keys are of one size, bytes tell nothing new.
fn sizes_differ(trace: &KeyTrace) -> bool {
    trace.bytes.as_ref().is_some_and(|bytes| bytes.windows(2).any(|pair| pair[0] != pair[1]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_keys_or_bytes() {
        for (text, expect) in [
            ("1000", Some(CacheSize::Entries(1000))),
            ("64MB", Some(CacheSize::Bytes(64_000_000))),
            ("1.5KiB", Some(CacheSize::Bytes(1536))),
            ("0", None),
            ("0MB", None),
            ("-1", None),
            ("", None),
            ("many", None),
            ("1099511627777", None),
        ] {
            assert_eq!(size(text).ok(), expect, "{text}");
        }
    }

    #[test]
    fn the_store_takes_in_what_it_missed() {
        let requests = [0, 1, 0, 2, 0];
        let trace = KeyTrace { requests: requests.to_vec(), keys: 3, ..KeyTrace::default() };
        let mut store = Kept::new(CacheSize::Entries(3), vec![1; 3].into(), 1);
        let scores = replay_keep(OURS, &mut store, (&trace, 0), &mut |_| {});
        assert_eq!((scores.requests, scores.hits), (5, 2));
    }
}
