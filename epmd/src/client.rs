//! A client for any port mapper that speaks the EPMD protocol.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use pmd_protocol::epmd::codec::{ClientCodec, ClientError};
use pmd_protocol::epmd::reply::{Reply, ReplyError};
use pmd_protocol::epmd::{Listing, Registration, Request};
use tokio::net::{TcpSocket, TcpStream};
use tokio_util::codec::Framed;

/// The source address of queries to this host's own loopback address.
///
/// Each node holds a connection from 127.0.0.1 to the port mapper. With ten thousand of them, the kernel takes a long
/// time to find a free source port; on any other loopback address, all ports are free.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

/// The reason why a query failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] io::Error),
    /// The answer took too long.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Timeout(Duration),
    /// The reply does not match the request, or the request cannot be encoded.
    #[error(transparent)]
    Protocol(ClientError),
}

impl From<ClientError> for AskError {
    fn from(error: ClientError) -> AskError {
        match error {
            ClientError::Io(error) => AskError::Connection(error),
            error => AskError::Protocol(error),
        }
    }
}

impl From<ReplyError> for AskError {
    fn from(error: ReplyError) -> AskError {
        AskError::Protocol(error.into())
    }
}

/// Returns the nodes registered with the port mapper at `address`.
///
/// # Errors
///
/// If no valid answer arrives within `timeout`.
pub async fn names(address: SocketAddr, timeout: Duration) -> Result<Listing, AskError> {
    match ask(address, Request::Names, timeout).await? {
        Reply::Names(listing) => Ok(listing),
        _ => Err(ReplyError::Unexpected.into()),
    }
}

/// Looks up a name with the port mapper at `address`.
///
/// # Errors
///
/// If no valid answer arrives within `timeout`.
pub async fn port_please(
    address: SocketAddr,
    name: &str,
    timeout: Duration,
) -> Result<Option<Registration>, AskError> {
    match ask(address, Request::PortPlease2 { name }, timeout).await? {
        Reply::Port2Found(registration) => Ok(Some(registration)),
        Reply::Port2NotFound => Ok(None),
        _ => Err(ReplyError::Unexpected.into()),
    }
}

async fn connect(address: SocketAddr) -> io::Result<TcpStream> {
    if address.ip() == Ipv4Addr::LOCALHOST {
        let socket = TcpSocket::new_v4()?;
        // If loopback has only one address, the kernel chooses the source.
        if socket.bind((SOURCE, 0).into()).is_ok() {
            return socket.connect(address).await;
        }
    }
    TcpStream::connect(address).await
}

async fn ask(address: SocketAddr, request: Request<'_>, timeout: Duration) -> Result<Reply, AskError> {
    let exchange = async {
        let mut framed = Framed::new(connect(address).await?, ClientCodec::default());
        framed.send(request).await?;
        match framed.next().await {
            Some(reply) => Ok(reply?),
            None => Err(ReplyError::Truncated.into()),
        }
    };
    tokio::time::timeout(timeout, exchange).await.unwrap_or(Err(AskError::Timeout(timeout)))
}
