//! Whether the other daemons can be reached by TCP, at one address each.

use std::net::SocketAddr;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::Finding;
use crate::control::api::NodeList;
use crate::control::client::Client;

const CHECK: &str = "peers";
const PATIENCE: Duration = Duration::from_secs(2);
/// NAMES_REQ with its length.
const NAMES_REQUEST: [u8; 3] = [0, 1, b'n'];
/// How much of the answer is read.
const MOST_ANSWER: u64 = 1024 * 1024;
/// Members that are dialled: all of a small cluster, and a sample of a large one.
const MOST: usize = 64;

pub(super) async fn check(client: &Client, members: Option<&NodeList>) -> Finding {
    let Some(members) = members else { return Finding::unasked(CHECK) };
    let others = members.nodes.iter().filter(|node| !node.oneself).take(MOST);
    let mut wanted: Vec<(String, Vec<String>)> = others
        .map(|node| (node.host.clone(), node.addresses.iter().map(SocketAddr::to_string).collect()))
        .collect();
    // Those that are meant to be members, and are not.
    let found = client.discover().await.map(|list| list.found).unwrap_or_default();
    let absent = found.into_iter().filter(|found| !found.member && found.source == "seeds").take(MOST);
    wanted.extend(absent.map(|found| (found.address.clone(), vec![found.address])));
    let dialled = join_all(wanted.into_iter().map(async |(host, addresses)| {
        let reached = join_all(addresses.iter().map(|address| reaches(address))).await;
        (host, reached.contains(&true))
    }));
    judge(dialled.await)
}

async fn reaches(address: &str) -> bool {
    let Ok(Ok(mut stream)) = tokio::time::timeout(PATIENCE, TcpStream::connect(address)).await else {
        return false;
    };
    // Whoever closes without a question is a complaint in the other's log. What it answers is not the matter here.
    let ask = async {
        stream.write_all(&NAMES_REQUEST).await?;
        tokio::io::copy(&mut stream.take(MOST_ANSWER), &mut tokio::io::sink()).await
    };
    let _ = tokio::time::timeout(PATIENCE, ask).await;
    true
}

fn judge(dialled: Vec<(String, bool)>) -> Finding {
    let all = dialled.len();
    let silent: Vec<String> =
        dialled.into_iter().filter(|(_, reached)| !reached).map(|(host, _)| host).collect();
    if all == 0 {
        return Finding::pass(CHECK, "there is no other daemon that could be reached");
    }
    if silent.is_empty() {
        return Finding::pass(CHECK, format!("{all} of {all} other daemons accept connections"));
    }
    Finding::fail(
        CHECK,
        format!("{} of {all} other daemons cannot be reached: {}", silent.len(), silent.join(", ")),
        "see that pmd runs there, and let TCP through to its port (4369) in firewalls in between",
    )
}
