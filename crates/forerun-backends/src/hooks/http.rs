//! One request over one connection, within a deadline.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

/// Of an answer's head; a longer one is no answer.
const HEAD_BYTES_MAX: usize = 64 << 10;
/// Of a chunk's size line.
const LINE_BYTES_MAX: usize = 256;

/// What is asked. `path` is sent as it is, unless it could break the request apart.
pub(super) struct Ask<'a> {
    pub(super) method: &'a str,
    pub(super) path: &'a str,
    /// Sent in `Forerun-Key`, and as the body of what has one.
    pub(super) key: Option<&'a str>,
    /// How much of the answer's body is kept; the rest is read and dropped.
    pub(super) keep_bytes_max: usize,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// Whether there was more than was to be kept.
    pub(super) cut: bool,
}

impl Answer {
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

/// # Errors
/// No connection, no whole answer by `until`, or an answer that is not HTTP.
pub(super) fn ask(address: SocketAddr, ask: &Ask<'_>, until: Instant) -> io::Result<Answer> {
    let request = request(address, ask)?;
    let stream = TcpStream::connect_timeout(&address, left(until)?)?;
    stream.set_nodelay(true)?;
    stream.set_write_timeout(Some(left(until)?))?;
    (&stream).write_all(request.as_bytes())?;
    let mut wire = Wire { stream, until, buffer: Vec::new(), at: 0 };
    let mut answer = Answer { status: 0, body: Vec::new(), cut: false };
    // Interim answers (1xx) come before the real one; a handful is more than any server sends.
    for _ in 0..8 {
        let head = wire.head()?;
        answer.status = status(&head).ok_or_else(|| bad("the answer is not HTTP"))?;
        if answer.status >= 200 {
            body(&mut wire, &head, ask, &mut answer)?;
            return Ok(answer);
        }
    }
    Err(bad("only interim answers came"))
}

fn request(address: SocketAddr, ask: &Ask<'_>) -> io::Result<String> {
    let odd = |text: &str| text.chars().any(char::is_control);
    if !ask.path.starts_with('/') || odd(ask.path) || ask.path.contains(' ') || ask.key.is_some_and(odd) {
        return Err(bad("the path must start with / and hold no blanks"));
    }
    let mut text = format!(
        "{} {} HTTP/1.1\r\nHost: localhost:{}\r\nUser-Agent: forerun\r\nAccept: */*\r\nConnection: close\r\n",
        ask.method,
        ask.path,
        address.port()
    );
    if let Some(key) = ask.key {
        text += &format!("Forerun-Key: {key}\r\n");
    }
    match ask.key {
        Some(key) if ask.method != "GET" => {
            text += &format!(
                "Content-Type: text/plain; charset=utf-8\r\nContent-Length: {}\r\n\r\n{key}",
                key.len()
            );
        }
        _ => text += "\r\n",
    }
    Ok(text)
}

/// What is left until the deadline; a read with no time at all would wait for ever.
fn left(until: Instant) -> io::Result<Duration> {
    let left = until.saturating_duration_since(Instant::now());
    if left.is_zero() { Err(late()) } else { Ok(left.max(Duration::from_millis(1))) }
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "it took too long")
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

/// What comes back: a buffer that is refilled within the deadline.
struct Wire {
    stream: TcpStream,
    until: Instant,
    buffer: Vec<u8>,
    at: usize,
}

impl Wire {
    /// Bytes that are there, and 0 of them only at the end.
    fn fill(&mut self) -> io::Result<&[u8]> {
        if self.at == self.buffer.len() {
            self.stream.set_read_timeout(Some(left(self.until)?))?;
            self.buffer.resize(16 << 10, 0);
            self.at = 0;
            let read = self.stream.read(&mut self.buffer);
            self.buffer.truncate(*read.as_ref().unwrap_or(&0));
            match read {
                Ok(_) => {}
                Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                    return Err(late());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(&self.buffer[self.at..])
    }

    fn byte(&mut self) -> io::Result<u8> {
        let byte = self.fill()?.first().copied();
        self.at += usize::from(byte.is_some());
        byte.ok_or_else(|| bad("the answer is cut short"))
    }

    /// A line without its end.
    fn line(&mut self, max: usize) -> io::Result<String> {
        let mut line = Vec::new();
        loop {
            match self.byte()? {
                b'\n' => break,
                _ if line.len() >= max => return Err(bad("the answer's head is too long")),
                byte => line.push(byte),
            }
        }
        Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
    }

    fn head(&mut self) -> io::Result<Vec<String>> {
        let mut head = Vec::new();
        let mut bytes = 0;
        loop {
            let line = self.line(HEAD_BYTES_MAX - bytes)?;
            bytes += line.len() + 1;
            match line.is_empty() {
                true => return Ok(head),
                false if bytes >= HEAD_BYTES_MAX => return Err(bad("the answer's head is too long")),
                false => head.push(line),
            }
        }
    }

    /// Takes up to `len` bytes (all to the end without one) into the answer.
    fn body(&mut self, len: Option<u64>, max: usize, answer: &mut Answer) -> io::Result<()> {
        let mut wanted = len;
        while wanted != Some(0) {
            let there = self.fill()?;
            if there.is_empty() {
                return if wanted.is_none() { Ok(()) } else { Err(bad("the answer is cut short")) };
            }
            let take = wanted
                .map_or(there.len(), |wanted| there.len().min(usize::try_from(wanted).unwrap_or(usize::MAX)));
            let keep = take.min(max - answer.body.len());
            answer.body.extend_from_slice(&there[..keep]);
            answer.cut |= keep < take;
            self.at += take;
            wanted = wanted.map(|wanted| wanted - take as u64);
        }
        Ok(())
    }
}

fn status(head: &[String]) -> Option<u16> {
    let mut words = head.first()?.split(' ');
    words.next().filter(|version| version.starts_with("HTTP/1."))?;
    words.next()?.parse().ok().filter(|status| (100..1000).contains(status))
}

fn field<'a>(head: &'a [String], name: &str) -> Option<&'a str> {
    let mut fields = head.iter().skip(1).filter_map(|line| line.split_once(':'));
    fields.find(|(field, _)| field.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
}

fn body(wire: &mut Wire, head: &[String], ask: &Ask<'_>, answer: &mut Answer) -> io::Result<()> {
    let max = ask.keep_bytes_max;
    if matches!(answer.status, 204 | 304) {
        return Ok(());
    }
    if field(head, "transfer-encoding").is_some_and(|coding| coding.eq_ignore_ascii_case("chunked")) {
        loop {
            let line = wire.line(LINE_BYTES_MAX)?;
            let size = line.split(';').next().unwrap_or_default().trim();
            let size = u64::from_str_radix(size, 16).map_err(|_| bad("a chunk's size is no number"))?;
            if size == 0 {
                return Ok(());
            }
            wire.body(Some(size), max, answer)?;
            wire.line(LINE_BYTES_MAX)?;
        }
    }
    let len = field(head, "content-length").map(str::parse).transpose();
    wire.body(len.map_err(|_| bad("the answer's length is no number"))?, max, answer)
}
