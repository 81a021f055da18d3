//! A connection between daemons, including the bytes that were read to detect its protocol.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use nix::libc;
use nix::{getsockopt_impl, sockopt_impl};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

/// How often the kernel is asked for the round-trip time while data is written.
const ROUND_TRIP: Duration = Duration::from_secs(1);

sockopt_impl!(
    /// TCP_INFO, tcp(7): the kernel's statistics of a connection.
    TcpInfo,
    GetOnly,
    libc::IPPROTO_TCP,
    libc::TCP_INFO,
    libc::tcp_info
);

/// Bytes transferred on one connection, as seen on the network, and its round-trip time.
#[derive(Debug, Default)]
pub struct Traffic {
    received: AtomicU64,
    sent: AtomicU64,
    rtt_us: AtomicU32,
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

    /// The kernel's estimate of the round-trip time in microseconds, once available.
    pub fn rtt_us(&self) -> Option<u32> {
        Some(self.rtt_us.load(Ordering::Relaxed)).filter(|rtt| *rtt > 0)
    }
}

/// The transport below the connection.
#[derive(Debug)]
enum Carrier {
    Tcp(TcpStream),
    /// A connection to a relay, which forwards the bytes and cannot read them.
    Relay(Box<TlsStream<Connection>>),
}

/// A connection to another daemon, direct or through a relay.
#[derive(Debug)]
pub struct Connection {
    carrier: Carrier,
    address: SocketAddr,
    /// Bytes already read, which readers get first, and how many of them have been returned.
    head: (Vec<u8>, usize),
    traffic: Arc<Traffic>,
    measured: Option<Instant>,
}

impl Connection {
    /// A connection to `address`, of which `head` has already been read.
    pub fn new(socket: TcpStream, address: SocketAddr, head: Vec<u8>) -> Connection {
        // Frames are written whole, so Nagle's algorithm would only delay them.
        let _ = socket.set_nodelay(true);
        Connection::over(Carrier::Tcp(socket), address, head)
    }

    /// A connection through `relay`, of which `head` has already been read.
    pub fn through(relay: TlsStream<Connection>, head: Vec<u8>) -> Connection {
        let address = relay.get_ref().0.address;
        Connection::over(Carrier::Relay(Box::new(relay)), address, head)
    }

    fn over(carrier: Carrier, address: SocketAddr, head: Vec<u8>) -> Connection {
        Connection { carrier, address, head: (head, 0), traffic: Arc::default(), measured: None }
    }

    /// The underlying socket, for setting options.
    pub fn socket(&self) -> Option<&TcpStream> {
        match &self.carrier {
            Carrier::Tcp(socket) => Some(socket),
            Carrier::Relay(relay) => relay.get_ref().0.socket(),
        }
    }

    /// The address of the other end.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The connection's live traffic counters.
    pub fn traffic(&self) -> Arc<Traffic> {
        Arc::clone(&self.traffic)
    }

    fn measure(&mut self) {
        let now = Instant::now();
        if self.measured.is_some_and(|last| now.duration_since(last) < ROUND_TRIP) {
            return;
        }
        self.measured = Some(now);
        let Carrier::Tcp(socket) = &self.carrier else { return };
        if let Ok(info) = nix::sys::socket::getsockopt(socket, TcpInfo) {
            self.traffic.rtt_us.store(info.tcpi_rtt, Ordering::Relaxed);
        }
    }
}

impl AsyncRead for Carrier {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(socket) => Pin::new(socket).poll_read(context, buffer),
            Carrier::Relay(relay) => Pin::new(relay.as_mut()).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Carrier {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Carrier::Tcp(socket) => Pin::new(socket).poll_write(context, bytes),
            Carrier::Relay(relay) => Pin::new(relay.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(socket) => Pin::new(socket).poll_flush(context),
            Carrier::Relay(relay) => Pin::new(relay.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Carrier::Tcp(socket) => Pin::new(socket).poll_shutdown(context),
            Carrier::Relay(relay) => Pin::new(relay.as_mut()).poll_shutdown(context),
        }
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let (head, from) = &mut self.head;
        let rest = head.get(*from..).unwrap_or_default();
        if rest.is_empty() {
            std::task::ready!(Pin::new(&mut self.carrier).poll_read(context, buffer))?;
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

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = std::task::ready!(Pin::new(&mut self.carrier).poll_write(context, bytes))?;
        count(&self.traffic.sent, written);
        self.measure();
        Poll::Ready(Ok(written))
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.carrier).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.carrier).poll_shutdown(context)
    }
}

fn count(counter: &AtomicU64, bytes: usize) {
    counter.fetch_add(u64::try_from(bytes).unwrap_or(u64::MAX), Ordering::Relaxed);
}
