//! A loopback port of its own for every instance.

use rustix::net::sockopt::set_socket_reuseaddr;
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, socket_with};
use std::collections::HashSet;
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// Ports that are tried for one instance: enough to step over a crowded stretch, few enough to take under 5 ms.
const TRIES_MAX: u32 = 512;
/// As many ports as a range by default holds.
const RANGE: u16 = 12_000;

/// Hands out ports in rotation, so that one is not given again soon after its instance's end.
#[derive(Debug)]
pub(crate) struct Ports {
    low: u16,
    high: u16,
    next: u16,
    used: HashSet<u16>,
}

impl Ports {
    /// Ports from `low` to `high`; `draw` chooses where the rotation starts.
    pub(crate) fn new((low, high): (u16, u16), draw: u32) -> Self {
        let count = u32::from(high - low) + 1;
        let next = low + u16::try_from(draw % count).unwrap_or(0);
        Self { low, high, next, used: HashSet::new() }
    }

    /// A port on which nothing listens now; `None` if none is found.
    pub(crate) fn take(&mut self) -> Option<u16> {
        for _ in 0..TRIES_MAX {
            let port = self.next;
            self.next = if port >= self.high { self.low } else { port + 1 };
            if !self.used.contains(&port) && is_free(port, false) {
                self.used.insert(port);
                return Some(port);
            }
        }
        None
    }

    /// The one port that a service can listen on.
    pub(crate) fn take_fixed(&mut self, port: u16) -> Fixed {
        if self.used.contains(&port) {
            return Fixed::Ours;
        }
        // What is left of an earlier instance's connections keeps nobody from listening.
        if !is_free(port, true) {
            return Fixed::Foreign;
        }
        self.used.insert(port);
        Fixed::Taken
    }

    /// A port that something of ours listens on already.
    pub(crate) fn hold(&mut self, port: u16) {
        self.used.insert(port);
    }

    pub(crate) fn give_back(&mut self, port: u16) {
        self.used.remove(&port);
    }
}

/// What became of the wish for one certain port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fixed {
    Taken,
    /// Another instance of ours has it, and will give it back.
    Ours,
    /// Something that is not ours listens there.
    Foreign,
}

/// Ports that the kernel does not use for outgoing connections: one of those could take an instance's port between
/// the choice and the instance's own `bind`, and a probe could even connect to itself.
pub(crate) fn default_range() -> (u16, u16) {
    let text = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let mut numbers = text.split_ascii_whitespace().filter_map(|number| number.parse::<u16>().ok());
    outside((numbers.next().unwrap_or(32_768), numbers.next().unwrap_or(60_999)))
}

fn outside((low, high): (u16, u16)) -> (u16, u16) {
    if low > 1_024 + RANGE {
        (low - RANGE, low - 1)
    } else if high < u16::MAX - 1_000 {
        (high + 1, u16::MAX)
    } else {
        // No room beside the kernel's: an instance that loses its port is started again on another.
        (u16::MAX - RANGE, u16::MAX)
    }
}

/// Whether the port can be bound on every address, of both families, right now. Nothing is ever listened on. With
/// `reuse` only listeners count, not connections that are still closing.
fn is_free(port: u16, reuse: bool) -> bool {
    let any =
        [SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)), SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))];
    any.iter().all(|address| {
        let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
        let socket = socket_with(family, SocketType::STREAM, SocketFlags::CLOEXEC, None);
        // A machine without one of the families has nothing on it either.
        socket.is_err()
            || socket.is_ok_and(|socket| {
                let _ = set_socket_reuseaddr(&socket, reuse);
                bind(&socket, address) != Err(rustix::io::Errno::ADDRINUSE)
            })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpListener;

    #[test]
    fn a_taken_port_is_stepped_over() {
        let (low, high) = default_range();
        for address in ["127.0.0.1", "0.0.0.0", "[::1]"] {
            let listener = (low..high).find_map(|port| TcpListener::bind(format!("{address}:{port}")).ok());
            let Some(listener) = listener else { continue };
            let taken = listener.local_addr().unwrap().port();
            let mut ports = Ports::new((taken, high), 0);
            let first = ports.take().unwrap();
            assert!(first > taken, "{address}: {first} after {taken}");
            assert_ne!(ports.take().unwrap(), first);
        }
    }

    #[test]
    fn ports_run_out_and_come_back() {
        let (_, high) = default_range();
        let free = (high - 500..high).find(|port| is_free(*port, false)).unwrap();
        let mut ports = Ports::new((free, free), 7);
        assert_eq!(ports.take(), Some(free));
        assert_eq!(ports.take(), None);
        ports.give_back(free);
        assert_eq!(ports.take(), Some(free));
    }

    #[test]
    fn a_certain_port_is_ours_or_foreign_or_taken() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut ports = Ports::new(default_range(), 0);
        assert_eq!(ports.take_fixed(port), Fixed::Foreign);
        // A connection that the server's side closed lingers on the port, and keeps nobody from listening there.
        let client = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        drop(listener.accept().unwrap());
        drop((client, listener));
        assert_eq!(ports.take_fixed(port), Fixed::Taken);
        assert_eq!(ports.take_fixed(port), Fixed::Ours);
        ports.give_back(port);
        assert_eq!(ports.take_fixed(port), Fixed::Taken);
    }

    #[test]
    fn the_range_keeps_off_outgoing_connections() {
        for (kernel, ours) in [
            ((32_768, 60_999), (20_768, 32_767)),
            ((1_024, 60_999), (61_000, 65_535)),
            ((1_024, 65_535), (53_535, 65_535)),
        ] {
            assert_eq!(outside(kernel), ours);
        }
    }
}
