//! serf agents: HashiCorp's gossip membership, as its package comes, with the profile for local networks.
//!
//! What serf is given an advantage in: it does not encrypt, and the change that is measured is a user event that is not
//! coalesced, its fastest way to tell all members something. Who is a member is asked of every agent's statistics,
//! because its own reports of members are held back for a second and more on purpose.

mod msgpack;
mod rpc;

use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use tokio::sync::{mpsc::UnboundedSender, watch};

use self::msgpack::Value;
use self::rpc::Rpc;
use crate::fleet::Site;
use crate::fleet::cell::mortal;
use crate::cluster::{Sight, Sighting};

/// How often an agent is asked for its number of members: what that rounds is small beside what is measured.
pub(crate) const LOOK: Duration = Duration::from_millis(50);

/// An agent for one host.
pub(crate) fn command(site: &Site) -> Command {
    let mut command = mortal("serf");
    command.args(["agent", "-node", &site.name, "-bind", &site.ip.to_string(), "-log-level", "err"]);
    command
}

/// Whether the agent answers.
pub(crate) fn answers(site: &Site) -> bool {
    site.cell.run(|| Rpc::connect().is_ok())
}

async fn connect(site: &Site) -> Result<Rpc> {
    Rpc::greet(site.cell.run(Rpc::connect)?).await
}

/// Makes an agent join another; the request, to be run.
pub(crate) async fn join(site: &Site, seed: &Site) -> Result<()> {
    let mut rpc = connect(site).await?;
    let existing = Value::List(vec![Value::Raw(seed.ip.to_string().into_bytes())]);
    let body = Value::map([("Existing", existing), ("Replay", Value::Bool(false))]);
    rpc.ask("join", Some(body)).await.map(drop)
}

/// Says something that all members hear.
pub(crate) async fn change(site: &Site, name: &str) -> Result<Instant> {
    let mut rpc = connect(site).await?;
    let body = Value::map([
        ("Name", name.into()),
        ("Payload", Value::Raw(Vec::new())),
        ("Coalesce", Value::Bool(false)),
    ]);
    let begin = Instant::now();
    rpc.order("event", Some(body)).await?;
    Ok(begin)
}

/// Reports what an agent tells and, while `counting`, how many members it sees.
pub(crate) async fn observe(
    site: &Site,
    place: usize,
    out: UnboundedSender<Sighting>,
    counting: watch::Receiver<bool>,
) -> Result<impl Future<Output = ()> + Send + use<>> {
    let mut events = connect(site).await?;
    events.subscribe("user").await?;
    let counts = connect(site).await?;
    Ok(async move {
        let told = async {
            while let Ok(event) = events.event().await {
                let sight = Sight::Change(event.get("Name").text());
                let _ = out.send(Sighting { place, at: Instant::now(), sight });
            }
        };
        tokio::join!(told, count(counts, place, out.clone(), counting));
    })
}

async fn count(
    mut rpc: Rpc,
    place: usize,
    out: UnboundedSender<Sighting>,
    mut counting: watch::Receiver<bool>,
) {
    let mut last = 0;
    while counting.wait_for(|on| *on).await.is_ok() {
        let Ok(members) = members(&mut rpc).await else { return };
        if members != last {
            let _ = out.send(Sighting { place, at: Instant::now(), sight: Sight::Members(members) });
            last = members;
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// How many members an agent takes for alive.
async fn members(rpc: &mut Rpc) -> Result<usize> {
    let stats = rpc.ask("stats", None).await?;
    let number = |key: &str| stats.get("serf").get(key).text().parse::<usize>();
    let all = number("members").context("serf's statistics tell the members")?;
    Ok(all - number("failed")? - number("left")?)
}
