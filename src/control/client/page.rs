//! What the EPMD port serves to users who may not use the control socket: the paths of the status page, and those for
//! commands of local users.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use hyper::Response;
use hyper::body::Incoming;
use tokio::net::TcpStream;

use super::Client;
use super::error::{ClientError, Result};
use super::http::{CONNECT, Http, Sender, sender_over, target};
use super::stream::parse;
use crate::control::api::Status;
use crate::control::endpoints::Call;

/// Where to read if this user may not use the control socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Page {
    /// The EPMD port of the daemon.
    pub port: u16,
    /// Whether any daemon on that port will do, also if there is none behind the socket. Otherwise only the one that says
    /// that the socket is its own.
    pub any: bool,
}

impl Client {
    /// The status of the daemon on this port, if its page tells.
    pub async fn status_on_page(port: u16, timeout: Duration) -> Option<Status> {
        let http = Http { socket: PathBuf::new(), timeout, page: None };
        http.status_on(port).await.ok().flatten()
    }
}

impl Http {
    /// Sends a request to the EPMD port, if it serves this call, because the control socket failed with `error`.
    pub(super) async fn ask_page(
        &self,
        call: Call,
        target: &str,
        body: Bytes,
        error: ClientError,
    ) -> Result<Response<Incoming>> {
        let Some(page) = self.page else { return Err(error) };
        let forbidden = matches!(error, ClientError::Forbidden { .. });
        let stands_in = forbidden || (page.any && error.is_absence());
        if !stands_in {
            return Err(error);
        }
        let (Some(web), Some(rest)) = (call.web(), target.strip_prefix(call.path())) else {
            return Err(error);
        };
        let Some(sender) = connect(page.port).await else { return Err(error) };
        if !page.any && !self.is_daemon_of_socket(page.port).await {
            return Err(error);
        }
        match self.send_over(sender, call, &format!("{}{rest}", web.path), body).await {
            // A daemon without a page closes the connection, as does every other program on that port.
            Err(ClientError::Lost(_)) if forbidden => {
                Err(ClientError::Closed { socket: self.socket.clone() })
            }
            Err(ClientError::Lost(_)) => Err(error),
            answer => answer,
        }
    }

    /// Whether the daemon on this port has this socket, or does not say, because its page is off.
    async fn is_daemon_of_socket(&self, port: u16) -> bool {
        match self.status_on(port).await {
            Ok(status) => status.is_none_or(|status| status.socket == self.socket),
            Err(_) => false,
        }
    }

    /// The status of the daemon on this port; none if its page is off.
    async fn status_on(&self, port: u16) -> Result<Option<Status>> {
        let absent = || ClientError::Lost("nothing listens".to_owned());
        let sender = connect(port).await.ok_or_else(absent)?;
        let answer = self.send_over(sender, Call::Status, &target(Call::Status, &[]), Bytes::new()).await;
        let Ok(answer) = answer else { return Ok(None) };
        parse(&self.collect(answer.into_body()).await?).map(Some)
    }
}

/// A connection to a port of this host. A daemon may listen on one family alone.
async fn connect(port: u16) -> Option<Sender> {
    for address in [SocketAddr::from((Ipv4Addr::LOCALHOST, port)), (Ipv6Addr::LOCALHOST, port).into()] {
        if let Ok(Ok(stream)) = tokio::time::timeout(CONNECT, TcpStream::connect(address)).await {
            return sender_over(stream).await.ok();
        }
    }
    None
}
