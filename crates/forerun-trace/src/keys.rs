//! Key traces: which key was asked for, one after the other, for caches.

use crate::TraceError;
use crate::access_log::fetch;
use crate::error::lower_first;
use crate::read::{Input, ReadOptions, open_lines};
use crate::source::{Line, open_plain};
use crate::time::quoted;
use crate::trace::ReadReport;
use std::collections::HashMap;
use std::io::{BufReader, Read};

/// Formats of key traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyFormat {
    /// A key a line, and behind a blank its size in bytes if that is known.
    Keys,
    /// The ARC paper's: first block, number of blocks, two numbers that say nothing here; each block of 512 bytes is a key.
    Arc,
    /// The LIRS paper's: a number a line; a line that begins with `*` is none.
    Lirs,
    /// Numbers of four bytes, most significant first.
    I32,
    /// Numbers of eight bytes, most significant first.
    I64,
    /// Mooncake's: a JSON object a line; each of its `hash_ids` is a key.
    Mooncake,
    /// Apache's and nginx's: the path and query of each GET that was answered by 200 or 304, with the host if it is told.
    AccessLog,
}

/// Bytes of a block in the ARC paper's traces.
const ARC_BLOCK_BYTES: u64 = 512;
/// Lines between two words to the progress.
const PROGRESS_LINES: u64 = 1 << 16;
/// The first bytes of an xz file.
const XZ: &[u8] = b"\xfd7zXZ\0";

impl KeyFormat {
    pub const ALL: [KeyFormat; 7] =
        [Self::Keys, Self::Arc, Self::Lirs, Self::I32, Self::I64, Self::Mooncake, Self::AccessLog];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Keys => "keys",
            Self::Arc => "keys-arc",
            Self::Lirs => "keys-lirs",
            Self::I32 => "keys-i32",
            Self::I64 => "keys-i64",
            Self::Mooncake => "mooncake",
            Self::AccessLog => "access-log",
        }
    }

    /// # Errors
    /// Lists the names there are.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names = Self::ALL.map(Self::name).join(", ");
        Self::ALL
            .into_iter()
            .find(|f| f.name() == text)
            .ok_or_else(|| format!("{text:?} is no format of keys, there are {names}"))
    }

    /// From the first line with something on it: the three that nothing else looks like.
    fn guess(line: &[u8]) -> Option<Self> {
        if line.starts_with(b"{") && memchr::memmem::find(line, b"\"hash_ids\"").is_some() {
            return Some(Self::Mooncake);
        }
        if fetch(line).is_ok() {
            return Some(Self::AccessLog);
        }
        let mut fields = line.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let numbers = fields.clone().all(|field| number(field).is_some());
        (numbers && fields.by_ref().count() == 4).then_some(Self::Arc)
    }
}

/// Keys in the order in which they were asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyTrace {
    /// Keys by number, in order of first appearance.
    pub requests: Vec<u32>,
    /// How many keys there are.
    pub keys: usize,
    /// Bytes by key, as its first request has them; `None` where the trace does not tell.
    pub bytes: Option<Vec<u64>>,
    /// Who asked and when, by request; `None` where the trace does not tell.
    pub visits: Option<Vec<Visit>>,
    pub report: ReadReport,
}

/// Who asked for a key, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Visit {
    /// Users by number.
    pub user: u32,
    /// Microseconds since 1970.
    pub at_us: i64,
}

/// Numbers for keys.
#[derive(Debug, Default)]
struct Gather {
    numbers: HashMap<u64, u32>,
    names: HashMap<Box<[u8]>, u32>,
    bytes: Vec<u64>,
    /// Whether a line with a size, and whether one without, has been seen.
    sized: bool,
    unsized_line: bool,
    requests: Vec<u32>,
    visits: Vec<Visit>,
    users: HashMap<Box<[u8]>, u32>,
    max: usize,
}

/// Why a line or a word of a trace is not taken.
enum Refused {
    Line(String),
    TooMany,
}

impl From<String> for Refused {
    fn from(why: String) -> Self {
        Self::Line(why)
    }
}

impl Gather {
    /// There are fewer keys than requests, whose number is bounded far below 2^32.
    fn number(&mut self, key: u64, bytes: u64) -> Result<(), Refused> {
        let next = self.bytes.len() as u32;
        let number = *self.numbers.entry(key).or_insert(next);
        self.request(number, bytes)
    }

    fn name(&mut self, key: &[u8], bytes: u64) -> Result<(), Refused> {
        let number = match self.names.get(key) {
            Some(number) => *number,
            None => {
                let next = self.bytes.len() as u32;
                self.names.insert(key.into(), next);
                next
            }
        };
        self.request(number, bytes)
    }

    fn request(&mut self, number: u32, bytes: u64) -> Result<(), Refused> {
        if self.requests.len() >= self.max {
            return Err(Refused::TooMany);
        }
        if number as usize == self.bytes.len() {
            self.bytes.push(bytes);
        }
        self.requests.push(number);
        Ok(())
    }

    fn line(&mut self, format: KeyFormat, text: &[u8]) -> Result<(), Refused> {
        match format {
            KeyFormat::Keys => self.keyed(text),
            KeyFormat::Arc => self.blocks(text),
            KeyFormat::Lirs if text.starts_with(b"*") => Ok(()),
            KeyFormat::Lirs => {
                let key = number(text.trim_ascii());
                let key = key.ok_or_else(|| format!("{} is no whole number", quoted(text)))?;
                self.number(key, 1)
            }
            KeyFormat::Mooncake => {
                for key in hash_ids(text)? {
                    self.number(key, 1)?;
                }
                Ok(())
            }
            KeyFormat::AccessLog => self.fetched(text),
            KeyFormat::I32 | KeyFormat::I64 => Ok(()),
        }
    }

    fn fetched(&mut self, text: &[u8]) -> Result<(), Refused> {
        let Some(fetch) = fetch(text)? else { return Ok(()) };
        let mut key = fetch.host.unwrap_or_default().to_vec();
        key.extend_from_slice(fetch.target);
        self.name(&key, fetch.bytes)?;
        // An answer by what the client had has no size; the largest is that of the whole.
        if let Some(bytes) = self.requests.last().and_then(|key| self.bytes.get_mut(*key as usize)) {
            *bytes = (*bytes).max(fetch.bytes);
        }
        let next = self.users.len() as u32;
        let user = *self.users.entry(fetch.address.into()).or_insert(next);
        self.visits.push(Visit { user, at_us: fetch.at_us });
        Ok(())
    }

    fn keyed(&mut self, text: &[u8]) -> Result<(), Refused> {
        let mut fields = text.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let (key, size, more) = (fields.next(), fields.next(), fields.next());
        let Some(key) = key else { return Ok(()) };
        if more.is_some() {
            return Err("has more than a key and its size".to_owned().into());
        }
        let bytes = match size {
            None => {
                self.unsized_line = true;
                1
            }
            Some(size) => {
                let bytes = number(size).filter(|bytes| *bytes <= 1 << 53);
                self.sized = true;
                bytes.ok_or_else(|| format!("size {} is no number of bytes up to 2^53", quoted(size)))?
            }
        };
        self.name(key, bytes)
    }

    fn blocks(&mut self, text: &[u8]) -> Result<(), Refused> {
        let mut fields = text.split(u8::is_ascii_whitespace).filter(|field| !field.is_empty());
        let (first, blocks) = (fields.next().and_then(number), fields.next().and_then(number));
        let (Some(first), Some(blocks)) = (first, blocks) else {
            return Err("does not begin with a first block and a number of blocks".to_owned().into());
        };
        let end = first.checked_add(blocks).ok_or_else(|| "ends behind block 2^64".to_owned())?;
        if blocks > self.max as u64 {
            return Err(Refused::TooMany);
        }
        for block in first..end {
            self.number(block, ARC_BLOCK_BYTES)?;
        }
        Ok(())
    }
}

fn number(text: &[u8]) -> Option<u64> {
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The numbers of the array `hash_ids` of a JSON object.
fn hash_ids(text: &[u8]) -> Result<Vec<u64>, String> {
    const NAME: &[u8] = b"\"hash_ids\"";
    let lacks = || "has no array \"hash_ids\"".to_owned();
    let at = memchr::memmem::find(text, NAME).ok_or_else(lacks)?;
    let rest = text[at + NAME.len()..].trim_ascii_start().strip_prefix(b":").ok_or_else(lacks)?;
    let rest = rest.trim_ascii_start().strip_prefix(b"[").ok_or_else(lacks)?;
    let end = memchr::memchr(b']', rest).ok_or_else(|| "\"hash_ids\" is cut short".to_owned())?;
    let ids = rest[..end].trim_ascii();
    if ids.is_empty() {
        return Ok(Vec::new());
    }
    let one = |id: &[u8]| {
        let id = id.trim_ascii();
        number(id).ok_or_else(|| format!("hash id {} is no whole number", quoted(id)))
    };
    ids.split(|b| *b == b',').map(one).collect()
}

/// Reads key traces one after the other. `format`: `None` guesses from the first line of the first.
///
/// # Errors
/// Files that cannot be opened or read, whose format cannot be guessed, or that hold no key; with `strict` the first line that
/// cannot be read.
pub fn read_keys(
    inputs: &[Input],
    format: Option<KeyFormat>,
    options: &ReadOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<KeyTrace, TraceError> {
    let mut gather = Gather { max: options.events_max, ..Gather::default() };
    let mut report = ReadReport::default();
    let mut format = format;
    for input in inputs {
        match format {
            Some(KeyFormat::I32) => read_numbers::<4>(input, &mut gather, &mut report, options, progress)?,
            Some(KeyFormat::I64) => read_numbers::<8>(input, &mut gather, &mut report, options, progress)?,
            _ => format = Some(read_lines(input, format, &mut gather, &mut report, options, progress)?),
        }
    }
    if gather.requests.is_empty() {
        let name = inputs.first().map_or(String::new(), Input::name);
        let why = match &report.first_offender {
            Some(first) => format!("{}:{}: {}", first.file, first.line, first.why),
            None => "it is empty".to_owned(),
        };
        return Err(TraceError::Nothing { name, why });
    }
    if gather.sized && gather.unsized_line {
        let why = "some lines have a size and some have none: give every key one, or none".to_owned();
        return Err(TraceError::Option { option: "--format keys", why });
    }
    let sized = gather.sized || matches!(format, Some(KeyFormat::Arc | KeyFormat::AccessLog));
    let keys = gather.bytes.len();
    let Gather { mut requests, visits, bytes, .. } = gather;
    let visits = (visits.len() == requests.len()).then(|| in_order(&mut requests, visits));
    Ok(KeyTrace { requests, keys, bytes: sized.then_some(bytes), visits, report })
}

/// Puts requests in order of time: a log's lines stand in the order in which answers ended.
fn in_order(requests: &mut Vec<u32>, visits: Vec<Visit>) -> Vec<Visit> {
    let mut both: Vec<(u32, Visit)> = requests.drain(..).zip(visits).collect();
    both.sort_by_key(|(_, visit)| visit.at_us);
    let (keys, visits) = both.into_iter().unzip();
    *requests = keys;
    visits
}

fn read_lines(
    input: &Input,
    format: Option<KeyFormat>,
    gather: &mut Gather,
    report: &mut ReadReport,
    options: &ReadOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<KeyFormat, TraceError> {
    let mut lines = open_lines(input, options)?;
    let name = lines.name.clone();
    let head = lines.head()?;
    refuse_xz(&name, &head)?;
    let first = head.split(|b| *b == b'\n').map(<[u8]>::trim_ascii).find(|line| !line.is_empty());
    let Some(first) = first else { return Err(TraceError::Empty { name }) };
    let Some(format) = format.or_else(|| KeyFormat::guess(first)) else {
        let names = KeyFormat::ALL.map(KeyFormat::name).join(", ");
        let why = format!("cannot tell the format of {name} from its first line: write one of {names}");
        return Err(TraceError::Option { option: "--format", why });
    };
    let mut number = 0;
    while let Some(line) = lines.next()? {
        number += 1;
        let read = match line {
            Line::Text([]) => continue,
            Line::Text(text) => gather.line(format, text),
            Line::TooLong => Err(format!("is longer than {} bytes", options.line_bytes_max).into()),
        };
        report.lines += 1;
        match read {
            Ok(()) => {}
            Err(Refused::TooMany) => {
                return Err(TraceError::TooMany { name, line: number, max: options.events_max });
            }
            Err(Refused::Line(why)) if options.strict => {
                return Err(TraceError::Line { name, line: number, why });
            }
            Err(Refused::Line(why)) => report.skip(&name, number, why),
        }
        if report.lines.is_multiple_of(PROGRESS_LINES) {
            progress(report.lines);
        }
    }
    Ok(format)
}

/// Numbers of `N` bytes without anything between them.
fn read_numbers<const N: usize>(
    input: &Input,
    gather: &mut Gather,
    report: &mut ReadReport,
    options: &ReadOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<(), TraceError> {
    let name = input.name();
    let mut reader = BufReader::with_capacity(1 << 18, open_plain(input)?);
    let mut word = [0u8; 8];
    loop {
        let number = report.lines + 1;
        let mut filled = 0;
        while filled < N {
            match reader.read(&mut word[8 - N + filled..]) {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(e) if e.kind() == std::io::ErrorKind::Interrupted => {}
                Err(e) => return Err(TraceError::Read { name, line: number, why: lower_first(&e) }),
            }
        }
        if number == 1 {
            refuse_xz(&name, &word[8 - N..8 - N + filled])?;
        }
        match filled {
            0 => return Ok(()),
            n if n == N => {}
            n => {
                let why = format!("ends with {n} bytes, which are no number of {N}");
                if options.strict {
                    return Err(TraceError::Line { name, line: number, why });
                }
                report.skip(&name, number, why);
                return Ok(());
            }
        }
        report.lines += 1;
        if gather.number(u64::from_be_bytes(word), 1).is_err() {
            return Err(TraceError::TooMany { name, line: number, max: options.events_max });
        }
        if report.lines.is_multiple_of(PROGRESS_LINES) {
            progress(report.lines);
        }
    }
}

/// What is compressed in a way that is not read would be read as nonsense.
fn refuse_xz(name: &str, head: &[u8]) -> Result<(), TraceError> {
    if head.len() >= 4 && XZ.starts_with(&head[..head.len().min(XZ.len())]) {
        let why =
            "it is compressed by xz, which is not read as it is: pipe `xz -dc FILE` into `-`".to_owned();
        return Err(TraceError::Header { name: name.to_owned(), why });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(format: Option<KeyFormat>, bytes: &[u8], strict: bool) -> Result<KeyTrace, String> {
        let input = Input::Bytes { name: "k", bytes: Box::leak(bytes.to_vec().into_boxed_slice()) };
        let options = ReadOptions { strict, events_max: 1000, ..ReadOptions::default() };
        read_keys(&[input], format, &options, &mut |_| {}).map_err(|e| e.to_string())
    }

    fn check(format: Option<KeyFormat>, bytes: &[u8], requests: &[u32], sizes: Option<&[u64]>) {
        let trace = read(format, bytes, true).unwrap();
        assert_eq!((trace.requests.as_slice(), trace.bytes.as_deref()), (requests, sizes), "{bytes:?}");
        assert_eq!(trace.keys, requests.iter().max().map_or(0, |m| *m as usize + 1));
    }

    #[test]
    fn every_format_names_its_keys_in_order() {
        check(Some(KeyFormat::Keys), b"/b\n/a\n\n/b\r\n", &[0, 1, 0], None);
        check(Some(KeyFormat::Keys), b"/b 10\n/a 20\n/b 11\n", &[0, 1, 0], Some(&[10, 20]));
        check(None, b"5 3 0 0\n6 1 0 1\n", &[0, 1, 2, 1], Some(&[512, 512, 512]));
        check(Some(KeyFormat::Lirs), b"7\n*\n8\n7\n", &[0, 1, 0], None);
        check(Some(KeyFormat::I32), &[0, 0, 0, 7, 0x80, 0, 0, 0, 0, 0, 0, 7], &[0, 1, 0], None);
        check(Some(KeyFormat::I64), &[0, 0, 0, 0, 0, 0, 0, 7, 0, 0, 0, 7, 0, 0, 0, 0], &[0, 1], None);
        check(
            None,
            b"{\"a\": 1, \"hash_ids\": [4, 9]}\n{\"hash_ids\":[]}\n{\"hash_ids\" : [9]}\n",
            &[0, 1, 1],
            None,
        );
    }

    #[test]
    fn an_access_log_tells_who_asked_for_what_in_order_of_time() {
        let line = |user: &str, second: u32, request: &str, end: &str| {
            format!("{user} - - [17/May/2015:10:05:{second:02} +0000] \"{request} HTTP/1.1\" {end}\n")
        };
        let log = [
            line("1.1.1.1", 5, "GET /a?x=1", "200 70"),
            line("2.2.2.2", 3, "GET /b", "304 -"),
            line("2.2.2.2", 4, "POST /b", "200 9"),
            line("1.1.1.1", 9, "GET /b", "200 30"),
            line("1.1.1.1", 9, "GET /c", "404 30"),
            line("1.1.1.1", 7, "GET /a?x=2", "200 70"),
        ];
        let trace = read(None, log.concat().as_bytes(), true).unwrap();
        // Keys are numbered as they stand in the file: /a?x=1, /b, /a?x=2.
        assert_eq!((trace.requests, trace.bytes), (vec![1, 0, 2, 1], Some(vec![70, 30, 70])));
        let visits = trace.visits.unwrap();
        assert_eq!(visits.iter().map(|visit| visit.user).collect::<Vec<_>>(), [1, 0, 0, 0]);
        assert_eq!(visits[1].at_us - visits[0].at_us, 2_000_000);
    }

    #[test]
    fn what_cannot_be_read_is_told_with_its_line() {
        for (format, text, why) in [
            (Some(KeyFormat::Keys), &b"a\nb 1 2\n"[..], "k:2: has more than a key and its size"),
            (Some(KeyFormat::Keys), b"a 1\nb -1\n", "k:2: size \"-1\" is no number of bytes"),
            (Some(KeyFormat::Arc), b"1 1 0 0\n1\n", "k:2: does not begin with a first block"),
            (Some(KeyFormat::Arc), b"1 1 0 0\n18446744073709551615 2 0 0\n", "k:2: ends behind block"),
            (Some(KeyFormat::Lirs), b"1\nx\n", "k:2: \"x\" is no whole number"),
            (Some(KeyFormat::I32), b"abcdef", "k:2: ends with 2 bytes"),
            (Some(KeyFormat::Mooncake), b"{\"hash_ids\": [1]}\n{}\n", "k:2: has no array"),
            (
                Some(KeyFormat::Mooncake),
                b"{\"hash_ids\": [1]}\n{\"hash_ids\": [1\n",
                "k:2: \"hash_ids\" is cut short",
            ),
            (Some(KeyFormat::Mooncake), b"{\"hash_ids\": [1]}\n{\"hash_ids\": [1,\"a\"]}\n", "k:2: hash id"),
        ] {
            let error = read(format, text, true).unwrap_err();
            assert!(error.starts_with(why), "{error}");
            let trace = read(format, text, false).unwrap();
            assert_eq!((trace.requests.len(), trace.report.skipped), (1, 1), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_key_trace_is_refused() {
        for (format, bytes, why) in [
            (
                None,
                &b"hello\n"[..],
                "--format: cannot tell the format of k from its first line: write one of keys,",
            ),
            (None, b"\n \n", "k is empty"),
            (Some(KeyFormat::I64), b"", "no request in k: it is empty"),
            (Some(KeyFormat::Keys), b"a 1\nb\n", "--format keys: some lines have a size"),
            (Some(KeyFormat::Arc), b"1 1001 0 0\n", "k:1: more than 1000 requests"),
            (Some(KeyFormat::I32), b"\xfd7zXZ\0\0\0", "k:1: it is compressed by xz"),
            (None, b"\xfd7zXZ\0\0\0", "k:1: it is compressed by xz"),
        ] {
            let error = read(format, bytes, false).unwrap_err();
            assert!(error.starts_with(why), "{error}");
        }
    }
}
