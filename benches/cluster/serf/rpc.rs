//! A client for serf's RPC: requests and answers in turn on one connection, in MessagePack.
//!
//! serf uses the MessagePack format from before 2013, in which text and bytes are one type, so requests must not
//! contain values of the newer binary type.

use std::io::ErrorKind;
use std::net::{Ipv4Addr, TcpStream as Socket};

use anyhow::{Context, Result, bail};
use rmpv::Value;
use rmpv::decode::read_value;
use rmpv::encode::write_value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// The port that an agent's RPC listens on.
const PORT: u16 = 7373;

/// A connection to an agent.
#[derive(Debug)]
pub(crate) struct Rpc {
    stream: TcpStream,
    read: Vec<u8>,
    sequence: i64,
}

impl Rpc {
    /// Connects to the agent of this host.
    pub(crate) fn connect() -> std::io::Result<Socket> {
        let stream = Socket::connect((Ipv4Addr::LOCALHOST, PORT))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Starts a session on a new connection.
    pub(crate) async fn handshake(stream: Socket) -> Result<Rpc> {
        let mut rpc = Rpc { stream: TcpStream::from_std(stream)?, read: Vec::new(), sequence: 0 };
        rpc.order("handshake", Some(map([("Version", 1.into())]))).await?;
        Ok(rpc)
    }

    /// Sends a request that is only acknowledged.
    pub(crate) async fn order(&mut self, command: &str, body: Option<Value>) -> Result<()> {
        let sequence = self.sequence;
        self.sequence += 1;
        let mut bytes = Vec::new();
        write_value(&mut bytes, &map([("Command", command.into()), ("Seq", sequence.into())]))?;
        if let Some(body) = body {
            write_value(&mut bytes, &body)?;
        }
        self.stream.write_all(&bytes).await?;
        let head = self.next().await?;
        match text(&head["Error"]) {
            "" => Ok(()),
            error => bail!("serf rejected {command}: {error}"),
        }
    }

    /// Sends a request whose answer has a body.
    pub(crate) async fn ask(&mut self, command: &str, body: Option<Value>) -> Result<Value> {
        self.order(command, body).await?;
        self.next().await
    }

    /// Subscribes to events of these kinds, which [`event`](Self::event) then returns.
    pub(crate) async fn subscribe(&mut self, kinds: &str) -> Result<()> {
        self.order("stream", Some(map([("Type", kinds.into())]))).await
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Result<Value> {
        let _head = self.next().await?;
        self.next().await
    }

    async fn next(&mut self) -> Result<Value> {
        loop {
            let mut rest = self.read.as_slice();
            match read_value(&mut rest) {
                Ok(value) => {
                    let used = self.read.len() - rest.len();
                    self.read.drain(..used);
                    return Ok(value);
                }
                Err(error) if error.kind() == ErrorKind::UnexpectedEof => {}
                Err(error) => return Err(error).context("serf's answer is not MessagePack"),
            }
            if self.stream.read_buf(&mut self.read).await.context("reading from serf")? == 0 {
                bail!("serf closed its RPC connection");
            }
        }
    }
}

/// A map with these entries.
pub(crate) fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    Value::Map(entries.into_iter().map(|(key, value)| (key.into(), value)).collect())
}

/// The text of a value, or the empty string if it is not text.
pub(crate) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}
