//! A TCP connection between daemons, with what was read of it before anybody knew what it is.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Bytes on one connection, as the network sees them.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
}

impl Traffic {
    /// Bytes received so far.
    pub fn received(&self) -> u64 {
        self.received.load(Ordering::Relaxed)
    }

    /// Bytes sent so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

/// The connection.
#[derive(Debug)]
pub struct Wire {
    socket: TcpStream,
    address: SocketAddr,
    /// Read already, and to be read again before anything else; from the second on.
    head: (Vec<u8>, usize),
    traffic: Arc<Traffic>,
}

impl Wire {
    /// A connection to `address`, of which `head` was read already.
    pub fn new(socket: TcpStream, address: SocketAddr, head: Vec<u8>) -> Wire {
        // Frames are written whole; waiting for more would only delay them.
        let _ = socket.set_nodelay(true);
        Wire { socket, address, head: (head, 0), traffic: Arc::default() }
    }

    /// The socket, to set options of.
    pub fn socket(&self) -> Option<&TcpStream> {
        Some(&self.socket)
    }

    /// The other end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What has gone over it; grows as it does.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }
}

impl AsyncRead for Wire {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let (head, from) = &mut self.head;
        let rest = head.get(*from..).unwrap_or_default();
        if rest.is_empty() {
            std::task::ready!(Pin::new(&mut self.socket).poll_read(context, buffer))?;
        } else {
            let taken = rest.len().min(buffer.remaining());
            buffer.put_slice(rest.get(..taken).unwrap_or_default());
            *from += taken;
            if *from == head.len() {
                self.head = (Vec::new(), 0);
            }
        }
        count(&self.traffic.received, buffer.filled().len() - before);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.socket).poll_write(context, bytes))?;
        count(&self.traffic.sent, written);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
}
