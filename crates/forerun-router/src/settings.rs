//! What a router is told when it starts.

use forerun_route::WaitlistLimits;
use forerun_types::{RouterId, SiteId, Span, Time};
use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

/// The engine's clock: it never goes back.
pub type Clock = Arc<dyn Fn() -> Time + Send + Sync>;

/// Where to listen: an address to bind, or a socket that someone else has bound.
#[derive(Debug)]
pub enum Listen {
    Address(SocketAddr),
    Socket(TcpListener),
}

impl From<SocketAddr> for Listen {
    fn from(address: SocketAddr) -> Self {
        Self::Address(address)
    }
}

impl From<TcpListener> for Listen {
    fn from(socket: TcpListener) -> Self {
        Self::Socket(socket)
    }
}

/// All that a router needs to know; which services there are comes by route table.
pub struct RouterSettings {
    pub id: RouterId,
    pub site: SiteId,
    pub listen: Listen,
    /// A second port, for proxies on other machines and in containers that ask before they send a request past this
    /// router: what [`crate::RouterHandle::beside`] answers, but for what names people.
    pub beside: Option<Listen>,
    /// The installation's key: users leave the router only hashed with it.
    pub secret: [u8; 32],
    pub now: Clock,
    pub limits: RouterLimits,
}

impl RouterSettings {
    /// Settings with the default limits, at site 0.
    #[must_use]
    pub fn new(id: RouterId, listen: impl Into<Listen>, secret: [u8; 32], now: Clock) -> Self {
        Self {
            id,
            site: SiteId(0),
            listen: listen.into(),
            beside: None,
            secret,
            now,
            limits: RouterLimits::default(),
        }
    }
}

/// The secret stays out.
impl fmt::Debug for RouterSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouterSettings")
            .field("id", &self.id)
            .field("site", &self.site)
            .field("listen", &self.listen)
            .field("beside", &self.beside)
            .field("limits", &self.limits)
            .finish_non_exhaustive()
    }
}

/// The router's own limits; those of holding are each service's too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouterLimits {
    /// Client connections open at a time, tunnels included; more wait in the kernel's queue.
    pub connections_max: u32,
    /// Requests held at a time, over all services. Each keeps a connection: with more than `connections_max` nobody is
    /// ever refused for it.
    pub held_max: u32,
    /// Bytes of their heads, and of what is read ahead of their bodies.
    pub held_bytes_max: u64,
    /// Bytes of a request's head, and of what is read ahead of it.
    pub head_bytes_max: usize,
    /// For a whole request head, and for the next request on an idle connection.
    pub head_timeout: Span,
    /// A client that neither sends the rest of its body nor takes any of its answer for so long is given up.
    pub stall_timeout: Span,
    pub connect_timeout: Span,
    /// How long an instance may take to answer, counted from the last byte that it was sent; zero is for ever.
    pub response_timeout: Span,
    /// Idle connections kept to one instance.
    pub idle_max: usize,
    pub idle_timeout: Span,
    /// Trust `X-Forwarded-*` of whoever connects, because only proxies of one's own can.
    pub trust_forwarded: bool,
    /// Bytes of what is kept of all services' answers; nothing is taken before a service asks for it.
    pub cache_bytes_max: u64,
}

impl Default for RouterLimits {
    fn default() -> Self {
        let held = WaitlistLimits::default();
        Self {
            connections_max: 8_192,
            held_max: held.requests_max,
            held_bytes_max: held.bytes_max,
            head_bytes_max: 64 << 10,
            head_timeout: Span::from_secs(30),
            stall_timeout: Span::from_secs(60),
            connect_timeout: Span::from_secs(2),
            response_timeout: Span::from_secs(300),
            idle_max: 32,
            // Below the 5 s after which Node closes: a close that crosses a POST costs that POST.
            idle_timeout: Span::from_secs(4),
            trust_forwarded: false,
            cache_bytes_max: 256 << 20,
        }
    }
}

impl RouterLimits {
    pub(crate) fn waitlist(&self) -> WaitlistLimits {
        WaitlistLimits { requests_max: self.held_max, bytes_max: self.held_bytes_max }
    }

    pub(crate) fn check(&self) -> Result<(), RouterError> {
        // hyper reads in units of this.
        const HEAD_BYTES_LEAST: usize = 8 << 10;
        let wrong = if self.head_bytes_max < HEAD_BYTES_LEAST {
            "head_bytes_max is below 8 KiB, the least that a request head needs"
        } else if self.connections_max == 0 {
            "connections_max is 0: allow at least one connection"
        } else if self.head_timeout == Span::ZERO {
            "head_timeout is 0: give clients some time to send a request"
        } else if self.connect_timeout == Span::ZERO {
            "connect_timeout is 0: give instances some time to accept"
        } else if self.stall_timeout == Span::ZERO {
            "stall_timeout is 0: give clients some time to send and to read"
        } else {
            return Ok(());
        };
        Err(RouterError::Limits(wrong))
    }
}

/// Why a router could not start.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    #[error(
        "router cannot listen on {address}: {source}; is another program there? choose another listen address"
    )]
    Bind { address: SocketAddr, source: io::Error },
    #[error("router cannot use the socket it was given: {0}")]
    Socket(#[source] io::Error),
    #[error("router limits: {0}")]
    Limits(&'static str),
    #[error("router was started outside of a tokio runtime")]
    NoRuntime,
}
