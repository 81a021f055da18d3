//! pmd daemons, one per host. All their figures come from event streams.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pmd::control::api;
use pmd::control::client::Client;
use pmd_bench::daemon::{PORT, socket};
use pmd_bench::fleet::Site;
use tokio::sync::mpsc::UnboundedSender;

use crate::observation::{Event, Observation};

/// A client of the daemon's API.
fn client(home: &Path) -> Client {
    Client::new(socket(home)).with_timeout(Duration::from_secs(120))
}

/// Makes a daemon join another.
pub(crate) async fn join(home: &Path, seed: &Site) -> Result<()> {
    let join = api::Join { addresses: vec![seed.ip.to_string()], timeout_ms: Some(60_000) };
    client(home).join(&join).await.map(drop).with_context(|| format!("joining {}", seed.ip))
}

/// The fingerprint of a daemon's registry.
pub(crate) async fn fingerprint(home: &Path) -> Option<String> {
    client(home).status().await.ok()?.cluster.map(|cluster| cluster.fingerprint)
}

/// Registers an Erlang node for as long as the returned connection is open.
pub(crate) fn change(site: &Site, name: &str) -> Result<(Instant, TcpStream)> {
    let mut body = vec![120];
    body.extend(40_000u16.to_be_bytes());
    body.extend([77, 0, 0, 6, 0, 5]);
    body.extend(u16::try_from(name.len())?.to_be_bytes());
    body.extend(name.as_bytes());
    body.extend([0, 0]);
    let mut request = u16::try_from(body.len())?.to_be_bytes().to_vec();
    request.extend(body);
    site.cell.run(move || {
        let begin = Instant::now();
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, PORT))?;
        stream.write_all(&request)?;
        let mut reply = [0; 6];
        stream.read_exact(&mut reply)?;
        ensure!(reply[..2] == [118, 0], "pmd rejected a registration");
        Ok((begin, stream))
    })
}

/// Connects to a daemon's event stream. The returned future reports changes and the number of members.
pub(crate) async fn observe(
    home: &Path,
    host: usize,
    out: UnboundedSender<Observation>,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    let mut stream = client(home).events(Some(0), None, &[]).await?;
    let report = move |event| {
        // The receiver is gone at the end of the run.
        let _ = out.send(Observation { host, at: Instant::now(), event });
    };
    Ok(async move {
        let mut others: HashSet<String> = HashSet::new();
        report(Event::Members(1));
        while let Ok(Some(message)) = stream.next().await {
            let Ok(event) = serde_json::from_str::<api::Event>(&message.data) else { continue };
            let id = event.node_id.unwrap_or_default();
            match event.kind.as_str() {
                "node_up" if others.insert(id.clone()) => report(Event::Members(others.len() + 1)),
                "node_down" | "node_left" if others.remove(&id) => {
                    report(Event::Members(others.len() + 1));
                }
                "name_up" => report(Event::Change(event.name)),
                _ => {}
            }
        }
    })
}
