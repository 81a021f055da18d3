//! Requests to any port mapper over the EPMD protocol.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use pmd_epmd::server::NotFound;
use pmd_protocol::epmd::reply::{Expected, Reply, ReplyError, parse_reply};
use pmd_protocol::epmd::{EncodeError, Listing, Registration, Request, encode};
use pmd_protocol::limits::MAX_LISTING;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// The first byte of PORT2_RESP.
const PORT2_RESP: u8 = b'w';

/// Why a request failed.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The connection failed.
    #[error(transparent)]
    Connection(#[from] std::io::Error),
    /// No answer arrived in time.
    #[error("no answer within {} s", .0.as_secs_f32())]
    Late(Duration),
    /// The answer is malformed.
    #[error(transparent)]
    Reply(#[from] ReplyError),
    /// The name cannot be encoded.
    #[error(transparent)]
    Name(#[from] EncodeError),
}

/// The names registered with the port mapper.
pub async fn names(address: SocketAddr, timeout: Duration) -> Result<Listing, AskError> {
    match ask(address, &Request::Names, timeout).await? {
        Reply::Names(listing) => Ok(listing),
        _ => Err(ReplyError::Unexpected.into()),
    }
}

/// The node registered under a name with the port mapper.
pub async fn port_please(
    address: SocketAddr,
    name: &str,
    timeout: Duration,
) -> Result<Option<Registration>, AskError> {
    match ask(address, &Request::PortPlease2 { name }, timeout).await? {
        Reply::Port2Found(registration) => Ok(Some(registration)),
        Reply::Port2NotFound => Ok(None),
        _ => Err(ReplyError::Unexpected.into()),
    }
}

/// The source address of requests to this host's own loopback address.
///
/// Each node holds a connection from 127.0.0.1 to the port mapper. With ten thousand nodes, the kernel takes long to
/// find a free source port there; other loopback addresses have all of their ports free.
const SOURCE: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);

async fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    if address.ip() == Ipv4Addr::LOCALHOST {
        let socket = TcpSocket::new_v4()?;
        // Fails in containers that only have 127.0.0.1.
        if socket.bind((SOURCE, 0).into()).is_ok() {
            return socket.connect(address).await;
        }
    }
    TcpStream::connect(address).await
}

/// The result of the question where to dial a node, from a port mapper that does not know such a node.
pub async fn dial(address: SocketAddr, question: &str, timeout: Duration) -> Result<NotFound, AskError> {
    let answer = answer(address, &Request::PortPlease2 { name: question }, timeout).await?;
    match answer.as_slice() {
        [PORT2_RESP, result, ..] => Ok(NotFound::with(*result)),
        _ => Err(ReplyError::Truncated.into()),
    }
}

async fn ask(address: SocketAddr, request: &Request<'_>, timeout: Duration) -> Result<Reply, AskError> {
    let answer = answer(address, request, timeout).await?;
    match parse_reply(Expected::from(request), &answer, true)? {
        Some((reply, _)) => Ok(reply),
        None => Err(ReplyError::Truncated.into()),
    }
}

async fn answer(address: SocketAddr, request: &Request<'_>, timeout: Duration) -> Result<Vec<u8>, AskError> {
    let mut bytes = Vec::new();
    encode::request(request, &mut bytes)?;
    let exchange = async {
        let mut stream = connect(address).await?;
        stream.write_all(&bytes).await?;
        let mut answer = Vec::new();
        // Above the limit, so that the parser sees and rejects an oversized answer.
        let limit = u64::try_from(MAX_LISTING).unwrap_or(u64::MAX).saturating_add(8);
        stream.take(limit).read_to_end(&mut answer).await?;
        Ok(answer)
    };
    tokio::time::timeout(timeout, exchange).await.map_err(|_| AskError::Late(timeout))?
}
