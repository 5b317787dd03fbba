//! Bytes of a file or of standard input, decompressed if need be, cut into lines of bounded length.

use crate::error::lower_first;
use crate::{Input, TraceError};
use flate2::bufread::MultiGzDecoder;
use ruzstd::decoding::errors::{FrameDecoderError, ReadFrameHeaderError};
use ruzstd::decoding::{BlockDecodingStrategy, FrameDecoder};
use std::fs::File;
use std::io::{self, BufRead, BufReader, Cursor, Read};
use std::path::Path;

/// How much is read at once.
const BUFFER_BYTES: usize = 256 << 10;
/// How much of the beginning is looked at to guess the format.
const HEAD_BYTES: usize = 64 << 10;

/// A named stream of lines.
pub(crate) struct Lines {
    pub(crate) name: String,
    reader: BufReader<Box<dyn Read>>,
    /// Bytes of the reader's buffer that the last line took.
    taken: usize,
    /// A line that did not lie in one buffer.
    long: Vec<u8>,
    pub(crate) number: u64,
    line_bytes_max: usize,
}

/// What stands between two line ends.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Line<'a> {
    Text(&'a [u8]),
    TooLong,
}

impl Lines {
    pub(crate) fn open(path: &Path, line_bytes_max: usize) -> Result<Self, TraceError> {
        let name = path.display().to_string();
        let open = |source| TraceError::Open { name: name.clone(), source };
        let file = File::open(path).map_err(open)?;
        if file.metadata().is_ok_and(|m| m.is_dir()) {
            return Err(open(io::Error::other(
                "it is a folder without avg_concurrency_per_minute.csv: name a file, or a folder of the format minutes",
            )));
        }
        Self::new(name, Box::new(file), line_bytes_max)
    }

    pub(crate) fn stdin(line_bytes_max: usize) -> Result<Self, TraceError> {
        Self::new("standard input".to_owned(), Box::new(io::stdin()), line_bytes_max)
    }

    /// Reads `raw`, decompressed if its first bytes say that it is compressed.
    pub(crate) fn new(name: String, raw: Box<dyn Read>, line_bytes_max: usize) -> Result<Self, TraceError> {
        let plain = plain(&name, raw)?;
        let reader = BufReader::with_capacity(BUFFER_BYTES, plain);
        Ok(Self { name, reader, taken: 0, long: Vec::new(), number: 0, line_bytes_max })
    }

    /// The beginning, to guess from; the lines are still to come.
    pub(crate) fn head(&mut self) -> Result<Vec<u8>, TraceError> {
        let mut head = Vec::new();
        let Self { reader, name, .. } = self;
        let read = reader.by_ref().take(HEAD_BYTES as u64).read_to_end(&mut head);
        read.map_err(|e| TraceError::Read { name: name.clone(), line: 1, why: cause(&e) })?;
        if head.starts_with(b"\xef\xbb\xbf") {
            head.drain(..3);
        }
        let empty: Box<dyn Read> = Box::new(io::empty());
        let rest = std::mem::replace(reader, BufReader::new(empty));
        let again: Box<dyn Read> = Box::new(Cursor::new(head.clone()).chain(rest));
        *reader = BufReader::with_capacity(BUFFER_BYTES, again);
        Ok(head)
    }

    /// The next line without its end; `None` after the last.
    pub(crate) fn next(&mut self) -> Result<Option<Line<'_>>, TraceError> {
        self.reader.consume(std::mem::take(&mut self.taken));
        let filled = fill(&mut self.reader, &self.name, self.number)?;
        if filled.is_empty() {
            return Ok(None);
        }
        self.number += 1;
        if let Some(end) = memchr::memchr(b'\n', filled) {
            self.taken = end + 1;
            if end > self.line_bytes_max {
                return Ok(Some(Line::TooLong));
            }
            // The same bytes again: the borrow that found the line's end cannot be the one that is handed out.
            return Ok(Some(Line::Text(trim_end(&self.reader.buffer()[..end]))));
        }
        self.next_long()
    }

    /// Gathers a line that spans buffers; what exceeds the limit is read and dropped.
    fn next_long(&mut self) -> Result<Option<Line<'_>>, TraceError> {
        self.long.clear();
        let mut too_long = false;
        loop {
            let filled = fill(&mut self.reader, &self.name, self.number)?;
            let end = memchr::memchr(b'\n', filled);
            let piece = &filled[..end.unwrap_or(filled.len())];
            too_long |= self.long.len() + piece.len() > self.line_bytes_max;
            if !too_long {
                self.long.extend_from_slice(piece);
            }
            let done = end.is_some() || filled.is_empty();
            let used = piece.len() + usize::from(end.is_some());
            self.reader.consume(used);
            if done {
                break;
            }
        }
        Ok(Some(if too_long { Line::TooLong } else { Line::Text(trim_end(&self.long)) }))
    }
}

/// The bytes of `raw`, decompressed if its first ones say that it is compressed.
fn plain(name: &str, raw: Box<dyn Read>) -> Result<Box<dyn Read>, TraceError> {
    let open = |source| TraceError::Open { name: name.to_owned(), source };
    // A pipe may hand out its first bytes one by one, and a Zstandard frame is known by four.
    let mut raw = raw;
    let mut magic = Vec::new();
    raw.by_ref().take(4).read_to_end(&mut magic).map_err(open)?;
    let compressed = magic.clone();
    let raw = BufReader::with_capacity(BUFFER_BYTES, Cursor::new(magic).chain(raw));
    Ok(match compressed[..] {
        [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(raw)),
        [0x28, 0xb5, 0x2f, 0xfd] | [0x50..=0x5f, 0x2a, 0x4d, 0x18] => Box::new(Zst::new(raw)),
        _ => Box::new(raw),
    })
}

/// Opens a file or standard input for reading as it is, decompressed if need be.
///
/// # Errors
/// It is not there, is a folder, or may not be read.
pub fn open_plain(input: &Input) -> Result<Box<dyn Read>, TraceError> {
    match input {
        Input::Stdin => plain("standard input", Box::new(io::stdin())),
        Input::Bytes { name, bytes } => plain(name, Box::new(*bytes)),
        Input::Path(path) => {
            let name = path.display().to_string();
            let open = |source| TraceError::Open { name: name.clone(), source };
            let file = File::open(path).map_err(open)?;
            if file.metadata().is_ok_and(|m| m.is_dir()) {
                return Err(open(io::Error::other("it is a folder: name a file")));
            }
            plain(&name, Box::new(file))
        }
    }
}

fn fill<'a>(reader: &'a mut BufReader<Box<dyn Read>>, name: &str, line: u64) -> Result<&'a [u8], TraceError> {
    loop {
        match reader.fill_buf() {
            // A second call hands out what the first has filled; returning the first's would borrow over the loop.
            Ok(_) => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(TraceError::Read { name: name.to_owned(), line: line + 1, why: cause(&e) }),
        }
    }
    Ok(reader.buffer())
}

fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the compressed data is cut short: fetch the file again".to_owned(),
        io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData => {
            format!("the compressed data is damaged ({error}): fetch the file again")
        }
        _ => lower_first(error),
    }
}

fn trim_end(line: &[u8]) -> &[u8] {
    line.strip_suffix(b"\r").unwrap_or(line)
}

/// All frames of a Zstandard stream, one after the other.
struct Zst<R> {
    decoder: FrameDecoder,
    source: R,
    in_frame: bool,
}

impl<R: BufRead> Zst<R> {
    fn new(source: R) -> Self {
        Self { decoder: FrameDecoder::new(), source, in_frame: false }
    }

    /// Begins the next frame, past those that are to be skipped; false at the end of the stream.
    fn begin(&mut self) -> io::Result<bool> {
        while !self.source.fill_buf()?.is_empty() {
            match self.decoder.init(&mut self.source) {
                Ok(()) => {
                    self.in_frame = true;
                    return Ok(true);
                }
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut self.source.by_ref().take(u64::from(length)), &mut io::sink())?;
                }
                Err(e) => return Err(damaged(e)),
            }
        }
        Ok(false)
    }

    fn end(&mut self) -> io::Result<()> {
        self.in_frame = false;
        let told = self.decoder.get_checksum_from_data();
        if told.is_some() && told != self.decoder.get_calculated_checksum() {
            return Err(damaged("its checksum is wrong"));
        }
        Ok(())
    }
}

fn damaged(why: impl std::fmt::Display) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, why.to_string())
}

impl<R: BufRead> Read for Zst<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            if !self.in_frame && !self.begin()? {
                return Ok(0);
            }
            while self.decoder.can_collect() == 0 && !self.decoder.is_finished() {
                let one = BlockDecodingStrategy::UptoBlocks(1);
                self.decoder.decode_blocks(&mut self.source, one).map_err(damaged)?;
            }
            let read = self.decoder.read(buf)?;
            if read > 0 || buf.is_empty() {
                return Ok(read);
            }
            self.end()?;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Compression;
    use flate2::write::GzEncoder;
    use std::io::Write;

    /// Hands out one byte more each time, so that every split of the stream occurs.
    struct Dribble(Vec<u8>, usize, usize);

    impl Read for Dribble {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.2 += 1;
            let n = self.2.min(buf.len()).min(self.0.len() - self.1);
            buf[..n].copy_from_slice(&self.0[self.1..self.1 + n]);
            self.1 += n;
            Ok(n)
        }
    }

    fn lines(bytes: Vec<u8>, max: usize) -> Result<Vec<String>, String> {
        let mut lines =
            Lines::new("x".into(), Box::new(Dribble(bytes, 0, 0)), max).map_err(|e| e.to_string())?;
        let mut out = Vec::new();
        while let Some(line) = lines.next().map_err(|e| e.to_string())? {
            out.push(match line {
                Line::Text(text) => String::from_utf8_lossy(text).into_owned(),
                Line::TooLong => "TOO LONG".to_owned(),
            });
        }
        Ok(out)
    }

    fn gz(text: &[u8]) -> Vec<u8> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(text).unwrap();
        gz.finish().unwrap()
    }

    #[test]
    fn lines_of_every_kind() {
        let check = |bytes: &[u8], expect: &[&str]| {
            assert_eq!(lines(bytes.to_vec(), 8).unwrap(), expect, "{bytes:?}");
            assert_eq!(lines(gz(bytes), 8).unwrap(), expect, "gzip of {bytes:?}");
        };
        check(b"", &[]);
        check(b"a", &["a"]);
        check(b"a\nb\r\n\n", &["a", "b", ""]);
        check(b"12345678\n123456789\nc\n", &["12345678", "TOO LONG", "c"]);
        check(b"123456789", &["TOO LONG"]);
    }

    #[test]
    fn several_gzip_members_are_one_stream() {
        let mut both = gz(b"a\nb");
        both.extend(gz(b"c\nd\n"));
        assert_eq!(lines(both, 100).unwrap(), ["a", "bc", "d"]);
    }

    #[test]
    fn a_gzip_cut_short_says_so() {
        let whole = gz(&b"some line\n".repeat(1000));
        let error = lines(whole[..whole.len() - 9].to_vec(), 100).unwrap_err();
        assert!(error.contains("cut short"), "{error}");
    }

    #[test]
    fn zstandard_with_frames_to_skip_and_damage() {
        // "a\nb\n" as one raw block in a single-segment frame, twice, with a frame to skip between them.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0x20, 4, 0x21, 0, 0, b'a', b'\n', b'b', b'\n'];
        let skip = [0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 9, 9, 9];
        let all = [&skip[..], &frame, &skip, &frame].concat();
        assert_eq!(lines(all.clone(), 100).unwrap(), ["a", "b", "a", "b"]);
        let error = lines(all[..all.len() - 2].to_vec(), 100).unwrap_err();
        assert!(error.contains("fetch the file again"), "{error}");
    }

    #[test]
    fn the_head_is_read_twice() {
        let mut lines =
            Lines::new("x".into(), Box::new(Cursor::new(b"\xef\xbb\xbfa,b\n1,2".to_vec())), 100).unwrap();
        assert_eq!(lines.head().unwrap(), b"a,b\n1,2");
        assert_eq!(lines.next().unwrap(), Some(Line::Text(b"a,b")));
        assert_eq!(lines.next().unwrap(), Some(Line::Text(b"1,2")));
        assert_eq!(lines.next().unwrap(), None);
        assert_eq!(lines.number, 2);
    }
}
