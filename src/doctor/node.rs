//! Tests each hop to a node: this host's daemon as far as the node's name, and then this process the Erlang cookie.
//!
//! The cookie stays in the process of the user who has it. The daemon, which may be another user's, says where a node of
//! this user would connect to, and the proof is made on a connection from there.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::random;
use tokio::net::TcpStream;

use super::erlang_cookie::{CallersCookie, ErlangCookie};
use crate::control::api::{CookieTest, Hop, Ping, Pinged};
use crate::control::client::{Client, Result};
use crate::tunnel::probe::{self, ProbeError, Proof};

/// How long the test of the cookie may take, with the time to open a tunnel.
const TIMEOUT: Duration = Duration::from_secs(10);
/// How often a node is tried that is still in the test of its name, and the pauses between.
const TRIES: usize = 20;
const PAUSE: Duration = Duration::from_millis(100);
/// The name of the hop of the cookie.
pub(super) const HOP: &str = "cookie";

/// What to do if a node has another Erlang cookie.
pub const COOKIE_REMEDY: &str = "give all nodes the same Erlang cookie (~/.erlang.cookie on each host, or -setcookie); if \
    the node was started with another one than this user's, name its file: --erlang-cookie FILE";

/// Tests each hop to the node, the last of which is called `cookie`.
pub async fn test(client: &Client, node: &str, callers: &CallersCookie) -> Result<Pinged> {
    let mut pinged = client.ping(&Ping { node: node.to_owned() }).await?;
    let begin = Instant::now();
    let (result, what) = match (callers, pinged.entry) {
        _ if pinged.tls => return Ok(Pinged { cookie: Some(CookieTest::NotTried), ..pinged }),
        (CallersCookie::None(why), _) => (CookieTest::NotTried, format!("not tried: {why}")),
        (CallersCookie::Found { .. }, None) => {
            (CookieTest::NotTried, "not tried: the daemon gives no address to connect to".to_owned())
        }
        (CallersCookie::Found { cookie, from }, Some(entry)) => {
            // The name by which the daemon has tested the node already, so that the node sees no more than one.
            let own = probe::own_name(&client.status().await?.host);
            let tried = tokio::time::timeout(TIMEOUT, try_cookie(entry, &own, cookie)).await;
            judge(tried.unwrap_or(Err(ProbeError::Io(std::io::ErrorKind::TimedOut.into()))), from)
        }
    };
    let took_us = u64::try_from(begin.elapsed().as_micros()).unwrap_or(u64::MAX);
    pinged.hops.push(Hop { hop: HOP.to_owned(), what, took_us });
    pinged.took_us = pinged.took_us.saturating_add(took_us);
    Ok(Pinged { cookie: Some(result), ..pinged })
}

/// What was said about the cookie.
pub fn cookie_hop(pinged: &Pinged) -> Option<&str> {
    pinged.hops.iter().find(|hop| hop.hop == HOP).map(|hop| hop.what.as_str())
}

async fn try_cookie(
    entry: SocketAddr,
    own: &str,
    cookie: &ErlangCookie,
) -> std::result::Result<Proof, ProbeError> {
    let mut tries = 0;
    loop {
        let mut stream = TcpStream::connect(entry).await?;
        let _ = stream.set_nodelay(true);
        let proved = probe::prove(&mut stream, own, random(), |challenge| cookie.digest(challenge)).await;
        tries += 1;
        if !matches!(proved, Err(ProbeError::Busy)) || tries == TRIES {
            return proved;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn judge(tried: std::result::Result<Proof, ProbeError>, from: &str) -> (CookieTest, String) {
    match tried {
        Ok(Proof::Accepted) => (CookieTest::Accepted, format!("accepted: the node has the one in {from}")),
        Ok(Proof::Refused) => {
            (CookieTest::Refused, format!("refused: the Erlang cookie differs from the one in {from}"))
        }
        Err(error) => (CookieTest::NotTried, format!("not tried: {error}")),
    }
}
