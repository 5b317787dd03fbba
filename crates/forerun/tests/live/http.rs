//! A client that sees every byte, and tells an answer that is whole from one that was cut.

use crate::world::PATIENCE;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: Vec<u8>,
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let fields = self.head.lines().skip(1).filter_map(|line| line.split_once(':'));
        fields.into_iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim())
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// A refusal as a client may expect it: 503, with a reason, and with when to come again.
    pub(crate) fn is_clear_refusal(&self) -> bool {
        self.status == 503
            && self.header("forerun-reason").is_some()
            && self.header("retry-after").and_then(|v| v.parse::<u64>().ok()).is_some_and(|s| s > 0)
            && !self.body.is_empty()
    }

    /// The process that answered.
    pub(crate) fn pid(&self) -> u32 {
        self.header("x-fixture-pid")
            .and_then(|pid| pid.parse().ok())
            .unwrap_or_else(|| panic!("no pid: {self:?}"))
    }
}

pub(crate) struct Client {
    reader: BufReader<TcpStream>,
}

impl Client {
    pub(crate) fn connect(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(stream) })
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)
    }

    /// Waits until something of the answer is there, and reads next to nothing of it.
    ///
    /// # Errors
    /// As of [`Client::answer`].
    pub(crate) fn begins(&mut self) -> io::Result<()> {
        self.reader.fill_buf().map(drop)
    }

    /// # Errors
    /// `UnexpectedEof` or a reset: the connection was closed before the answer was whole. `TimedOut`: it hangs.
    pub(crate) fn answer(&mut self) -> io::Result<Answer> {
        self.read_answer().map_err(|error| match error.kind() {
            ErrorKind::WouldBlock => io::Error::new(ErrorKind::TimedOut, "no answer: it hangs"),
            _ => error,
        })
    }

    fn read_answer(&mut self) -> io::Result<Answer> {
        let mut head = String::new();
        loop {
            let before = head.len();
            if self.reader.read_line(&mut head)? == 0 {
                return Err(ErrorKind::UnexpectedEof.into());
            }
            if head[before..].trim_end().is_empty() {
                break;
            }
        }
        let status = head.split(' ').nth(1).and_then(|s| s.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("no status in {head}")))?;
        let mut answer = Answer { status, head, body: Vec::new() };
        // Everything that is asked for in these tests is answered with a length: a body without one could be cut
        // and look whole.
        let len = answer.header("content-length").and_then(|v| v.parse().ok());
        let len: usize = len.ok_or_else(|| io::Error::other(format!("no length in {}", answer.head)))?;
        answer.body = vec![0; len];
        self.reader.read_exact(&mut answer.body)?;
        Ok(answer)
    }

    pub(crate) fn get(&mut self, host: &str, path: &str) -> io::Result<Answer> {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n").as_bytes())?;
        self.answer()
    }

    /// Whether the other side has closed, at the latest after `within`.
    pub(crate) fn is_closed(&mut self, within: Duration) -> bool {
        self.reader.get_mut().set_read_timeout(Some(within)).unwrap();
        match self.reader.read(&mut [0]) {
            Ok(read) => read == 0,
            Err(error) => !matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }
}

/// One request on a connection of its own.
pub(crate) fn get(address: SocketAddr, host: &str, path: &str) -> io::Result<Answer> {
    Client::connect(address)?.get(host, path)
}
