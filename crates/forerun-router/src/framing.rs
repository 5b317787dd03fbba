//! Requests that frame their body twice, by `Content-Length` and by `Transfer-Encoding`.
//!
//! A proxy in front that goes by the other one of the two sees another request end here than this router does, which
//! is how requests are smuggled; RFC 9112, section 6.3, lets a server refuse such a request. hyper takes the length
//! out before anybody sees it, and so the client's bytes are followed here as they come: heads by their lines, bodies
//! by their length. What cannot be followed is hyper's to refuse; it reads chunks alone then, and ends the connection.

/// Of a line: as much as the longest length takes, with room for blanks.
const LINE_BYTES: usize = 64;

/// Where a client's next byte belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Head,
    /// A body, or a chunk with the end of its line; so many bytes of it are to come.
    Body(u64),
    Chunk(u64),
    ChunkSize,
    Trailers,
    /// No longer HTTP, as far as can be told.
    Lost,
}

/// Follows the requests on one connection.
#[derive(Debug)]
pub(crate) struct Framing {
    at: At,
    line: [u8; LINE_BYTES],
    /// Of the line so far, whatever of it is kept.
    line_len: usize,
    /// Heads that have ended.
    heads: u64,
    /// The present head has had a line.
    begun: bool,
    length: Option<u64>,
    chunked: bool,
}

impl Framing {
    pub(crate) fn new() -> Self {
        Self {
            at: At::Head,
            line: [0; LINE_BYTES],
            line_len: 0,
            heads: 0,
            begun: false,
            length: None,
            chunked: false,
        }
    }

    /// Follows `bytes`, the next of the stream. Returns the number of the first request, from 1, whose head ended in
    /// them and had both.
    pub(crate) fn read(&mut self, mut bytes: &[u8]) -> Option<u64> {
        let mut found = None;
        while !bytes.is_empty() {
            let taken = match self.at {
                At::Lost => return found,
                At::Body(left) | At::Chunk(left) => self.skip(left, bytes.len()),
                At::Head | At::ChunkSize | At::Trailers => {
                    let (taken, twice) = self.take_line(bytes);
                    found = found.or(twice);
                    taken
                }
            };
            bytes = bytes.get(taken..).unwrap_or_default();
        }
        found
    }

    fn skip(&mut self, left: u64, there: usize) -> usize {
        let taken = usize::try_from(left).unwrap_or(usize::MAX).min(there);
        let rest = left - taken as u64;
        self.at = match self.at {
            At::Chunk(_) if rest == 0 => At::ChunkSize,
            At::Chunk(_) => At::Chunk(rest),
            _ if rest == 0 => At::Head,
            _ => At::Body(rest),
        };
        taken
    }

    /// What of `bytes` belongs to the line that is being read, and what [`Self::read`] returns.
    fn take_line(&mut self, bytes: &[u8]) -> (usize, Option<u64>) {
        let end = bytes.iter().position(|byte| *byte == b'\n');
        let part = &bytes[..end.unwrap_or(bytes.len())];
        let room = LINE_BYTES.saturating_sub(self.line_len).min(part.len());
        if room > 0 {
            self.line[self.line_len..self.line_len + room].copy_from_slice(&part[..room]);
        }
        self.line_len = self.line_len.saturating_add(part.len());
        if end.is_none() {
            return (part.len(), None);
        }
        let (kept, cut) = (self.line_len.min(LINE_BYTES), self.line_len > LINE_BYTES);
        self.line_len = 0;
        let line = self.line;
        let line = line[..kept].strip_suffix(b"\r").unwrap_or(&line[..kept]);
        let twice = match self.at {
            At::Head => self.head_line(line, cut),
            At::ChunkSize => {
                self.at = chunk(line);
                None
            }
            At::Trailers if line.is_empty() => {
                self.at = At::Head;
                None
            }
            _ => None,
        };
        (part.len() + 1, twice)
    }

    fn head_line(&mut self, line: &[u8], cut: bool) -> Option<u64> {
        if !line.is_empty() {
            self.begun = true;
            if let Some(value) = value_of(line, b"content-length:") {
                let parsed = std::str::from_utf8(value).ok().and_then(|text| text.trim().parse().ok());
                // hyper refuses what is no number; to let the rest of the stream pass is enough here.
                self.length = Some(parsed.filter(|_| !cut).unwrap_or(u64::MAX));
            }
            self.chunked |= value_of(line, b"transfer-encoding:").is_some();
            return None;
        }
        // Empty lines before a request are none.
        if !std::mem::take(&mut self.begun) {
            return None;
        }
        self.heads += 1;
        let (length, chunked) = (self.length.take(), std::mem::take(&mut self.chunked));
        self.at = match (length, chunked) {
            (Some(_), true) => At::Lost,
            (_, true) => At::ChunkSize,
            (Some(n), false) if n > 0 => At::Body(n),
            _ => At::Head,
        };
        (self.at == At::Lost).then_some(self.heads)
    }
}

/// After a line with a chunk's size, in hexadecimal and with what else may follow.
fn chunk(line: &[u8]) -> At {
    /// The end of the line behind a chunk.
    const LINE_END: u64 = 2;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let text = std::str::from_utf8(&line[..digits]).unwrap_or_default();
    match u64::from_str_radix(text, 16) {
        Ok(0) => At::Trailers,
        Ok(size) => At::Chunk(size.saturating_add(LINE_END)),
        Err(_) => At::Lost,
    }
}

fn value_of<'l>(line: &'l [u8], name: &[u8]) -> Option<&'l [u8]> {
    let (head, value) = line.split_at_checked(name.len())?;
    head.eq_ignore_ascii_case(name).then_some(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whole, byte by byte, and in pieces of three: the same.
    fn check(stream: &str, expect: Option<u64>) {
        for piece in [stream.len().max(1), 1, 3] {
            let mut framing = Framing::new();
            let mut found = None;
            for bytes in stream.as_bytes().chunks(piece) {
                found = found.or(framing.read(bytes));
            }
            assert_eq!(found, expect, "{stream:?} in pieces of {piece}");
        }
    }

    #[test]
    fn a_request_framed_twice_is_found_wherever_it_stands() {
        let twice = "POST / HTTP/1.1\r\nContent-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n";
        let get = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
        // A body that looks like a head is none.
        let body = "content-length: 1\r\ntransfer-encoding: x\r\n\r\n";
        let sized = format!("POST / HTTP/1.1\r\ncontent-length:  {}\r\n\r\n{body}", body.len());
        let chunks = format!(
            "POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n{:X};x=y\r\n{body}\r\n",
            body.len()
        );
        let (ended, trailers) =
            (format!("{chunks}0\r\n\r\n"), format!("{chunks}0\r\nContent-Length: 1\r\n\r\n"));
        check("", None);
        check(get, None);
        check(twice, Some(1));
        check("POST / HTTP/1.1\nTRANSFER-ENCODING:chunked\nCONTENT-LENGTH:4\n\n", Some(1));
        check(&format!("\r\n\r\n{get}{twice}"), Some(2));
        check(&format!("{get}{sized}{ended}{get}"), None);
        check(&format!("{sized}{ended}{trailers}{twice}{twice}"), Some(4));
        let long = "x".repeat(1_000);
        check(&format!("GET /{long} HTTP/1.1\r\nX: {long}\r\n\r\n{twice}"), Some(2));
        check("POST / HTTP/1.1\r\nContent-Length: x\r\nTransfer-Encoding: chunked\r\n\r\n", Some(1));
        check(&format!("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nno size\r\n{twice}"), None);
    }
}
