//! Connections to the control socket, and to the EPMD port, which serves the paths of the status page, and those for
//! commands of local users, to users who may not use the socket.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::error::Result;

/// How long connecting may take.
pub(super) const CONNECT: Duration = Duration::from_secs(5);

/// A connection, ready for a request.
pub(super) type Sender = SendRequest<Full<Bytes>>;

/// Where to read if this user may not use the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The EPMD port of the daemon.
    pub port: u16,
    /// Whether any daemon on that port will do, also if there is none behind the socket. Otherwise only the one that says
    /// that the socket is its own.
    pub any: bool,
}

/// Makes a connection ready for a request.
pub(super) async fn sender_over(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Sender> {
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the sender and the body, which report its errors.
    tokio::spawn(connection);
    Ok(sender)
}

/// A connection to a port of this host. A daemon may listen on one family alone.
pub(super) async fn connect(port: u16) -> Option<Sender> {
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            return sender_over(stream).await.ok();
        }
    }
    None
}
