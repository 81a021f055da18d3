//! The client's side of serf's RPC: requests and answers on one connection, in turn.

use std::net::{Ipv4Addr, TcpStream as Socket};

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::msgpack::Value;

/// Where an agent listens, on its own host.
pub(crate) const PORT: u16 = 7373;

/// A connection to an agent.
#[derive(Debug)]
pub(crate) struct Rpc {
    stream: TcpStream,
    read: Vec<u8>,
    sequence: i64,
}

impl Rpc {
    /// Connects; to be called on the agent's host, and inside a runtime.
    pub(crate) fn connect() -> std::io::Result<Socket> {
        let stream = Socket::connect((Ipv4Addr::LOCALHOST, PORT))?;
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }

    /// Greets the agent.
    pub(crate) async fn greet(stream: Socket) -> Result<Rpc> {
        let mut rpc = Rpc { stream: TcpStream::from_std(stream)?, read: Vec::new(), sequence: 0 };
        rpc.order("handshake", Some(Value::map([("Version", Value::Int(1))]))).await?;
        Ok(rpc)
    }

    /// A request whose answer says no more than that it was done.
    pub(crate) async fn order(&mut self, command: &str, body: Option<Value>) -> Result<()> {
        let sequence = self.sequence;
        self.sequence += 1;
        let mut bytes = Vec::new();
        Value::map([("Command", command.into()), ("Seq", Value::Int(sequence))]).encode(&mut bytes);
        if let Some(body) = body {
            body.encode(&mut bytes);
        }
        self.stream.write_all(&bytes).await?;
        let head = self.next().await?;
        match head.get("Error").text() {
            error if error.is_empty() => Ok(()),
            error => bail!("serf refuses {command}: {error}"),
        }
    }

    /// A request whose answer has a body.
    pub(crate) async fn ask(&mut self, command: &str, body: Option<Value>) -> Result<Value> {
        self.order(command, body).await?;
        self.next().await
    }

    /// Asks for events of these kinds; [`event`](Self::event) returns them then.
    pub(crate) async fn subscribe(&mut self, kinds: &str) -> Result<()> {
        self.order("stream", Some(Value::map([("Type", kinds.into())]))).await
    }

    /// The next event.
    pub(crate) async fn event(&mut self) -> Result<Value> {
        let _head = self.next().await?;
        self.next().await
    }

    async fn next(&mut self) -> Result<Value> {
        loop {
            let mut rest = self.read.as_slice();
            if let Some(value) = Value::decode(&mut rest) {
                let used = self.read.len() - rest.len();
                self.read.drain(..used);
                return Ok(value);
            }
            let count = self.stream.read_buf(&mut self.read).await.context("reading from serf")?;
            if count == 0 {
                bail!("serf has closed its RPC connection");
            }
        }
    }
}
