//! A client's connection, read and written by hyper, and watched by whoever serves its request.

use crate::framing::Framing;
use std::io::{self, IoSlice};
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Sleep;

/// What a request knows of its connection.
#[derive(Clone, Debug)]
pub(crate) struct Client {
    pub(crate) address: IpAddr,
    pub(crate) stream: Arc<TcpStream>,
    /// Kept by whatever outlives the connection's own task.
    pub(crate) _permit: Arc<OwnedSemaphorePermit>,
}

impl Client {
    /// Returns when the client has closed its side. hyper sees that by reading; while a body waits unread in the
    /// socket only the kernel's word tells.
    pub(crate) async fn gone(&self) {
        /// With something to read the kernel always has news; look this often whether it is the end.
        const LOOK_EVERY: Duration = Duration::from_millis(50);
        loop {
            match self.stream.ready(Interest::READABLE | Interest::ERROR).await {
                Ok(state) if state.is_read_closed() || state.is_error() => return,
                Ok(_) => tokio::time::sleep(LOOK_EVERY).await,
                Err(_) => return,
            }
        }
    }

    /// Makes the connection end by a reset, which no client takes for the end of a body.
    pub(crate) fn reset(&self) {
        if let Err(error) = self.stream.set_zero_linger() {
            tracing::debug!(%error, "cannot make a connection end by a reset");
        }
    }
}

/// The connection as hyper uses it. A client that takes nothing for `stall` is given up.
pub(crate) struct ClientIo {
    stream: Arc<TcpStream>,
    framing: Framing,
    /// The number of the request that was framed twice, from 1; 0 for none.
    twice: Arc<AtomicU64>,
    stall: Duration,
    patience: Option<Pin<Box<Sleep>>>,
}

impl ClientIo {
    pub(crate) fn new(stream: Arc<TcpStream>, twice: Arc<AtomicU64>, stall: Duration) -> Self {
        Self { stream, framing: Framing::new(), twice, stall, patience: None }
    }

    fn poll_writing(
        &mut self,
        cx: &mut Context<'_>,
        write: impl Fn(&TcpStream) -> io::Result<usize>,
    ) -> Poll<io::Result<usize>> {
        loop {
            match self.stream.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => return self.poll_patience(cx).map(Err),
            }
            match write(&self.stream) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                written => {
                    self.patience = None;
                    return Poll::Ready(written);
                }
            }
        }
    }

    fn poll_patience(&mut self, cx: &mut Context<'_>) -> Poll<io::Error> {
        let stall = self.stall;
        let patience = self.patience.get_or_insert_with(|| Box::pin(tokio::time::sleep(stall)));
        ready!(patience.as_mut().poll(cx));
        Poll::Ready(io::Error::new(io::ErrorKind::TimedOut, "the client takes nothing of its answer"))
    }
}

impl AsyncRead for ClientIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        loop {
            ready!(self.stream.poll_read_ready(cx))?;
            match self.stream.try_read_buf(buf) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
                Ok(_) => {
                    let bytes = buf.filled().get(before..).unwrap_or_default();
                    if let Some(number) = self.framing.read(bytes) {
                        self.twice.store(number, Ordering::Relaxed);
                    }
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write(buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.poll_writing(cx, |stream| stream.try_write_vectored(bufs))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        let socket = socket2::SockRef::from(&*self.stream);
        match socket.shutdown(std::net::Shutdown::Write) {
            // The client was faster.
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Poll::Ready(Ok(())),
            result => Poll::Ready(result),
        }
    }
}
