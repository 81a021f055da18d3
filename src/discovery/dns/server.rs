//! DNS queries for SRV records.
//!
//! This is a stub resolver (RFC 1035, section 7; RFC 7766): it queries each server in turn over UDP, for the configured
//! number of attempts, and uses TCP if the answer was truncated. It has no cache and reuses no connections, because
//! there is at most one query every few seconds.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use domain::base::iana::{Class, Rcode, Rtype};
use domain::base::{Message, MessageBuilder, Name};
use domain::resolv::stub::conf::ResolvConf;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

/// Longest datagram that is read. Servers send at most 512 bytes unless the query allows more.
const LONGEST_DATAGRAM: usize = 4096;

/// Queries the SRV records of `name` and returns the first server's answer.
///
/// # Errors
///
/// The failure of the last server, if none answered.
pub(super) async fn ask_for_srv(servers: &ResolvConf, name: Name<Vec<u8>>) -> io::Result<Message<Vec<u8>>> {
    let mut question = MessageBuilder::new_vec();
    question.header_mut().set_random_id();
    question.header_mut().set_rd(true);
    let mut question = question.question();
    question.push((name, Rtype::SRV, Class::IN)).map_err(io::Error::other)?;
    let question = question.into_message();
    let mut last = io::Error::other("no name server is configured");
    for _ in 0..servers.options.attempts.max(1) {
        for server in &servers.servers {
            match ask(server.addr, &question, server.request_timeout).await {
                // Another server may succeed.
                Ok(answer) if answer.header().rcode() == Rcode::SERVFAIL => {
                    last = io::Error::other(format!("the name server {} failed", server.addr));
                }
                Ok(answer) => return Ok(answer),
                Err(error) => last = error,
            }
        }
    }
    Err(last)
}

async fn ask(
    server: SocketAddr,
    question: &Message<Vec<u8>>,
    limit: Duration,
) -> io::Result<Message<Vec<u8>>> {
    let late = |_| {
        io::Error::new(io::ErrorKind::TimedOut, format!("the name server {server} did not answer in time"))
    };
    let answer = timeout(limit, by_datagram(server, question)).await.map_err(late)??;
    if !answer.header().tc() {
        return Ok(answer);
    }
    timeout(limit, by_stream(server, question)).await.map_err(late)?
}

/// Ignores all datagrams except the answer, because anybody can send to the socket. An off-path attacker has to guess
/// the query's id and port.
async fn by_datagram(server: SocketAddr, question: &Message<Vec<u8>>) -> io::Result<Message<Vec<u8>>> {
    let any: SocketAddr = match server {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(server).await?;
    socket.send(question.as_slice()).await?;
    let mut buffer = vec![0; LONGEST_DATAGRAM];
    loop {
        let length = socket.recv(&mut buffer).await?;
        let message = buffer.get(..length).and_then(|bytes| Message::from_octets(bytes.to_vec()).ok());
        if let Some(answer) = message.filter(|message| message.is_answer(question)) {
            return Ok(answer);
        }
    }
}

async fn by_stream(server: SocketAddr, question: &Message<Vec<u8>>) -> io::Result<Message<Vec<u8>>> {
    let mut stream = TcpStream::connect(server).await?;
    let length = u16::try_from(question.as_slice().len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes(), question.as_slice()].concat()).await?;
    let mut bytes = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut bytes).await?;
    let answer = Message::from_octets(bytes).ok().filter(|answer| answer.is_answer(question));
    answer.ok_or_else(|| io::Error::other(format!("the name server {server} sent an invalid answer")))
}
