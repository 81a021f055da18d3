//! serf agents: HashiCorp's gossip membership, as packaged, with the profile for local networks.
//!
//! serf has two advantages here: it does not encrypt, and the measured change is an uncoalesced user event, its fastest
//! means to inform all members. The members are read from every agent's statistics, because serf deliberately delays
//! its own membership events by a second or more.

mod rpc;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use pmd_bench::fleet::Site;
use pmd_bench::fleet::cell::mortal;
use rmpv::Value;
use tokio::sync::{mpsc::UnboundedSender, watch};

use self::rpc::{Rpc, map, text};
use crate::observation::{Event, Observation};

/// How often an agent's number of members is polled; short compared with the measured times.
const POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Returns the command that runs an agent on a host.
pub(crate) fn command(site: &Site) -> Command {
    let mut command = mortal("serf");
    command.args(["agent", "-node", &site.name, "-bind", &site.ip.to_string(), "-log-level", "err"]);
    command
}

/// Whether the agent accepts connections.
pub(crate) fn answers(site: &Site) -> bool {
    site.cell.run(|| Rpc::connect().is_ok())
}

async fn connect(site: &Site) -> Result<Rpc> {
    Rpc::handshake(site.cell.run(Rpc::connect)?).await
}

/// Makes an agent join another.
pub(crate) async fn join(site: &Site, seed: &Site) -> Result<()> {
    let mut rpc = connect(site).await?;
    let existing = Value::Array(vec![seed.ip.to_string().into()]);
    rpc.ask("join", Some(map([("Existing", existing), ("Replay", false.into())]))).await.map(drop)
}

/// Sends a user event to all members.
pub(crate) async fn change(site: &Site, name: &str) -> Result<Instant> {
    let mut rpc = connect(site).await?;
    let body = map([("Name", name.into()), ("Payload", "".into()), ("Coalesce", false.into())]);
    let begin = Instant::now();
    rpc.order("event", Some(body)).await?;
    Ok(begin)
}

/// Connects to an agent. The returned future reports changes and, while `counting`, the number of members.
pub(crate) async fn observe(
    site: &Site,
    host: usize,
    out: UnboundedSender<Observation>,
    counting: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    let mut events = connect(site).await?;
    events.subscribe("user").await?;
    let statistics = connect(site).await?;
    Ok(async move {
        let changes = async {
            while let Ok(event) = events.event().await {
                let event = Event::Change(text(&event["Name"]).to_owned());
                // The receiver is gone at the end of the run.
                let _ = out.send(Observation { host, at: Instant::now(), event });
            }
        };
        tokio::join!(changes, count(statistics, host, out.clone(), counting));
    })
}

async fn count(
    mut rpc: Rpc,
    host: usize,
    out: UnboundedSender<Observation>,
    mut counting: watch::Receiver<bool>,
) {
    let mut last = 0;
    while counting.wait_for(|on| *on).await.is_ok() {
        let Ok(members) = members(&mut rpc).await else { return };
        if members != last {
            let _ = out.send(Observation { host, at: Instant::now(), event: Event::Members(members) });
            last = members;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// The number of members that an agent considers alive.
async fn members(rpc: &mut Rpc) -> Result<usize> {
    let statistics = rpc.ask("stats", None).await?;
    let number = |key: &str| text(&statistics["serf"][key]).parse::<usize>();
    let all = number("members").context("serf's statistics lack the members")?;
    Ok(all - number("failed")? - number("left")?)
}
