//! pmd daemons: one to a host, with nothing configured but the cookie. All figures come from their event streams.

use std::collections::HashSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pmd::control::api::{Event, Join};
use pmd::control::client::Client;
use tokio::sync::mpsc::UnboundedSender;

use crate::fleet::Site;
use crate::fleet::cell::mortal;
use crate::cluster::{Sight, Sighting};

const PORT: u16 = 4369;

/// A daemon for one host, whose files are in `home`.
pub(crate) fn command(program: &Path, home: &Path) -> Result<Command> {
    let cookie = home.join("cookie");
    if !cookie.exists() {
        std::fs::create_dir_all(home)?;
        let mut file = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(cookie)?;
        writeln!(file, "the-cookie-of-the-benchmark")?;
    }
    let mut command = mortal(program);
    command.args(["start", "--foreground"]).env("PMD_HOME", home).env("PMD_LOG", "warn");
    for other in ["ERL_EPMD_ADDRESS", "ERL_EPMD_PORT", "PMD_CONFIG", "PMD_SOCKET"] {
        command.env_remove(other);
    }
    Ok(command)
}

/// The daemon's API.
pub(crate) fn api(home: &Path) -> Client {
    let socket: PathBuf = home.join(format!("pmd-{PORT}.sock"));
    Client::new(socket).with_patience(Duration::from_secs(120))
}

/// Whether the daemon answers.
pub(crate) fn answers(home: &Path) -> bool {
    std::os::unix::net::UnixStream::connect(api(home).socket()).is_ok()
}

/// Makes a daemon join another; the request, to be run.
pub(crate) async fn join(home: &Path, seed: &Site) -> Result<()> {
    let join = Join { addresses: vec![seed.ip.to_string()], timeout_ms: Some(60_000) };
    api(home).join(&join).await.map(drop).with_context(|| format!("joining {}", seed.ip))
}

/// The registry's fingerprint.
pub(crate) async fn fingerprint(home: &Path) -> Option<String> {
    api(home).status().await.ok()?.cluster.map(|cluster| cluster.fingerprint)
}

/// Registers an Erlang node; it is there as long as the connection.
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
        ensure!(reply[..2] == [118, 0], "pmd refuses a registration");
        Ok((begin, stream))
    })
}

/// Reports what a daemon tells, and how many members it sees.
pub(crate) async fn observe(
    home: &Path,
    place: usize,
    out: UnboundedSender<Sighting>,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    let mut stream = api(home).events(Some(0), None, &[]).await?;
    let report = move |sight| {
        // Nobody listens any more at the end of the run.
        let _ = out.send(Sighting { place, at: Instant::now(), sight });
    };
    Ok(async move {
        let mut others: HashSet<String> = HashSet::new();
        report(Sight::Members(1));
        while let Ok(Some(message)) = stream.next().await {
            let Ok(event) = serde_json::from_str::<Event>(&message.data) else { continue };
            let id = event.node_id.unwrap_or_default();
            match event.kind.as_str() {
                "node_up" if others.insert(id.clone()) => report(Sight::Members(others.len() + 1)),
                "node_down" | "node_left" if others.remove(&id) => {
                    report(Sight::Members(others.len() + 1));
                }
                "name_up" => report(Sight::Change(event.name)),
                _ => {}
            }
        }
    })
}
