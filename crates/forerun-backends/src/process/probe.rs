//! One look at whether an instance is ready, without ever blocking.

use forerun_types::Readiness;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, connect, getpeername, getsockname, recv,
    send, socket_with, sockopt::socket_error,
};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

/// When an attempt without an answer is given up. Long, because a service that listens before it serves answers
/// the attempt that waits in its backlog the moment it can.
const ATTEMPT: Duration = Duration::from_secs(2);
/// Every so manieth attempt looks at `::1`, where some servers listen when told `localhost`.
const IPV6_EVERY: u32 = 8;
/// The status stands within the first bytes: `HTTP/1.1 204`.
const STATUS_BYTES: usize = 12;

/// What a look has told so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Pending,
    Ready,
    NotYet,
}

/// A connection attempt and, for HTTP, its question.
#[derive(Debug)]
pub(super) struct Probe {
    socket: OwnedFd,
    address: SocketAddr,
    until: Instant,
    /// The request, until it is sent; `None` for TCP.
    request: Option<Vec<u8>>,
    asked: bool,
    head: Vec<u8>,
}

impl Probe {
    /// Connects to an instance's port. `None` if nothing listens there, or if output tells of readiness instead.
    pub(super) fn begin(ready: &Readiness, port: u16, attempt: u32, now: Instant) -> Option<Self> {
        let request = match ready {
            Readiness::Http { path } => Some(request(path, port)),
            Readiness::Tcp | Readiness::Health => None,
            Readiness::Log { .. } | Readiness::None => return None,
        };
        let ipv6 = attempt % IPV6_EVERY == IPV6_EVERY - 1;
        let (family, address) = if ipv6 {
            (AddressFamily::INET6, SocketAddr::from((Ipv6Addr::LOCALHOST, port)))
        } else {
            (AddressFamily::INET, SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
        };
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(family, SocketType::STREAM, flags, None).ok()?;
        match connect(&socket, &address) {
            Ok(()) | Err(Errno::INPROGRESS) => {}
            Err(_) => return None,
        }
        Some(Self { socket, address, until: now + ATTEMPT, request, asked: false, head: Vec::new() })
    }

    /// Where the instance answered.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn until(&self) -> Instant {
        self.until
    }

    /// Goes as far as it can without waiting.
    pub(super) fn step(&mut self) -> Verdict {
        if !self.asked {
            match self.connected() {
                Verdict::Ready => {}
                other => return other,
            }
            let Some(request) = &self.request else { return Verdict::Ready };
            // A fresh connection's buffer takes a request whole.
            if send(&self.socket, request, SendFlags::NOSIGNAL) != Ok(request.len()) {
                return Verdict::NotYet;
            }
            self.asked = true;
        }
        self.answer()
    }

    fn connected(&self) -> Verdict {
        if !matches!(socket_error(&self.socket), Ok(Ok(()))) {
            return Verdict::NotYet;
        }
        match getpeername(&self.socket) {
            // A connection to a port that nobody listens on can meet itself.
            Ok(Some(peer)) if getsockname(&self.socket).is_ok_and(|own| own == peer) => Verdict::NotYet,
            Ok(Some(_)) => Verdict::Ready,
            Ok(None) | Err(_) => Verdict::Pending,
        }
    }

    /// Reads all that is there, so that closing does not cut the instance's answer short.
    fn answer(&mut self) -> Verdict {
        let mut piece = [0; 4096];
        for _ in 0..16 {
            match recv(&self.socket, &mut piece, RecvFlags::empty()) {
                Ok((0, _)) => return self.status().unwrap_or(Verdict::NotYet),
                Ok((len, _)) => {
                    let room = STATUS_BYTES - self.head.len();
                    self.head.extend_from_slice(&piece[..len.min(room)]);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return self.status().unwrap_or(Verdict::Pending),
                Err(_) => return self.status().unwrap_or(Verdict::NotYet),
            }
        }
        self.status().unwrap_or(Verdict::NotYet)
    }

    fn status(&self) -> Option<Verdict> {
        if self.head.len() < STATUS_BYTES {
            return None;
        }
        let ready = self.head.starts_with(b"HTTP/1.") && matches!(self.head[9], b'2' | b'3');
        Some(if ready { Verdict::Ready } else { Verdict::NotYet })
    }
}

impl AsFd for Probe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn request(path: &str, port: u16) -> Vec<u8> {
    format!(
        "GET {path} HTTP/1.0\r\nHost: localhost:{port}\r\nUser-Agent: forerun-probe\r\nAccept: */*\r\n\
         Connection: close\r\n\r\n"
    )
    .into_bytes()
}

/// How long to wait before the next look: 0.5% of the time that the start has taken so far, so that looking adds a
/// quarter of a percent to a start, at least 1 ms and at most 10 ms; with many starting at once at most 5,000 looks a
/// second together, which is a fifth of a core.
pub(super) fn pause(elapsed: Duration, starting: usize) -> Duration {
    let crowd = Duration::from_micros(200) * u32::try_from(starting).unwrap_or(u32::MAX);
    (elapsed / 200).clamp(Duration::from_millis(1), Duration::from_millis(10)).max(crowd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::TcpListener;
    use std::thread;

    fn look(ready: &Readiness, port: u16) -> Verdict {
        let Some(mut probe) = Probe::begin(ready, port, 0, Instant::now()) else { return Verdict::NotYet };
        let until = Instant::now() + Duration::from_secs(5);
        while Instant::now() < until {
            match probe.step() {
                Verdict::Pending => thread::sleep(Duration::from_millis(1)),
                verdict => return verdict,
            }
        }
        Verdict::Pending
    }

    fn check(answer: &'static [u8], expected: Verdict) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = [0; 1024];
            let len = stream.read(&mut request).unwrap();
            for byte in answer {
                stream.write_all(&[*byte]).unwrap();
            }
            String::from_utf8_lossy(&request[..len]).into_owned()
        });
        let verdict = look(&Readiness::Http { path: "/health".to_owned() }, port);
        assert_eq!(verdict, expected, "{}", String::from_utf8_lossy(answer));
        assert!(server.join().unwrap().starts_with("GET /health HTTP/1.0\r\nHost: localhost:"));
    }

    #[test]
    fn two_and_three_hundreds_are_ready() {
        check(b"HTTP/1.1 200 OK\r\n\r\n", Verdict::Ready);
        check(b"HTTP/1.0 302 Found\r\nLocation: /x\r\n\r\nbody", Verdict::Ready);
        check(b"HTTP/1.1 204 \r\n\r\n", Verdict::Ready);
        check(b"HTTP/1.1 404 Not Found\r\n\r\n", Verdict::NotYet);
        check(b"HTTP/1.1 503 Wait\r\n\r\n", Verdict::NotYet);
        check(b"SSH-2.0-OpenSSH_9.2", Verdict::NotYet);
        check(b"", Verdict::NotYet);
    }

    #[test]
    fn nobody_listens() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(look(&Readiness::Tcp, port), Verdict::Ready);
        drop(listener);
        assert_eq!(look(&Readiness::Tcp, port), Verdict::NotYet);
    }

    #[test]
    fn looks_thin_out() {
        for (elapsed_ms, starting, pause_us) in [
            (0, 1, 1_000),
            (50, 1, 1_000),
            (1_000, 1, 5_000),
            (60_000, 1, 10_000),
            (10, 100, 20_000),
            (10, 1_000, 200_000),
        ] {
            let pause = pause(Duration::from_millis(elapsed_ms), starting);
            assert_eq!(pause, Duration::from_micros(pause_us), "{elapsed_ms} ms, {starting} starting");
        }
    }
}
