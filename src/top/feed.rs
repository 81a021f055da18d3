//! What happens on a daemon, as updates of the view: the lists once, then its stream of events; numbers every second.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::world::{Lists, Update};
use crate::control::api::{self, Event};
use crate::control::client::{Client, ClientError, Message};

/// How often numbers are asked for.
const SECOND: Duration = Duration::from_secs(1);
/// Pause between attempts to reach a daemon that has gone.
const AGAIN: Duration = Duration::from_millis(500);
/// How long an answer may take. Who watches wants to know that there is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// The view has gone.
struct Unwatched;

/// Why a round of reading has ended.
enum Interrupted {
    Unwatched,
    Lost(ClientError),
}

impl From<Unwatched> for Interrupted {
    fn from(_: Unwatched) -> Interrupted {
        Interrupted::Unwatched
    }
}

impl From<ClientError> for Interrupted {
    fn from(error: ClientError) -> Interrupted {
        Interrupted::Lost(error)
    }
}

/// Reads a daemon, whenever it is there, until nobody looks any more.
pub async fn feed(client: Client, to: Sender<Update>) {
    let client = client.with_patience(PATIENCE);
    loop {
        let why = match follow(&client, &to).await {
            Ok(()) => "it has ended".to_owned(),
            Err(Interrupted::Unwatched) => return,
            Err(Interrupted::Lost(error)) => error.to_string(),
        };
        if tell(&to, Update::Lost(why)).await.is_err() {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
}

async fn tell(to: &Sender<Update>, update: Update) -> Result<(), Unwatched> {
    to.send(update).await.map_err(|_| Unwatched)
}

/// Reads one stream of events to its end.
async fn follow(client: &Client, to: &Sender<Update>) -> Result<(), Interrupted> {
    // Before the lists: what happens in between comes twice, which changes nothing, and nothing is missed.
    let mut events = client.events(None, None, &[]).await?;
    tell(to, lists(client).await?).await?;
    let mut seconds = interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut asked = Instant::now();
    let mut members_changed = false;
    loop {
        tokio::select! {
            message = events.next() => {
                let Some(message) = message? else { return Ok(()) };
                match message.event.as_str() {
                    // A stream cannot miss what is there since its beginning, unless this reader is too slow for it.
                    "gap" => tell(to, lists(client).await?).await?,
                    _ => members_changed |= take(&message, to).await?,
                }
            }
            _ = seconds.tick() => {
                let status = client.status().await?;
                let after = asked.elapsed();
                asked = Instant::now();
                tell(to, Update::Status(Box::new(status), after)).await?;
                if let Some(peers) = in_cluster(client.peers().await)? {
                    tell(to, Update::Links(peers.peers)).await?;
                }
                // What an event does not say: address and version of who has come.
                if std::mem::take(&mut members_changed)
                    && let Some(nodes) = in_cluster(client.nodes().await)?
                {
                    tell(to, Update::Members(nodes.nodes)).await?;
                }
            }
        }
    }
}

/// Hands an event on; whether it is one about members.
async fn take(message: &Message, to: &Sender<Update>) -> Result<bool, Unwatched> {
    // Signs of life, the greeting, and what a later version may send, are no events.
    let Ok(event) = serde_json::from_str::<Event>(&message.data) else { return Ok(false) };
    let about_member = event.kind.starts_with("node_");
    tell(to, Update::Event(event)).await?;
    Ok(about_member)
}

async fn lists(client: &Client) -> Result<Update, ClientError> {
    let lists = match in_cluster(client.nodes().await)? {
        Some(nodes) => Lists {
            members: nodes.nodes,
            names: client.cluster_names(None).await?.names,
            services: client.cluster_services().await?.services,
            links: client.peers().await?.peers,
        },
        None => local_lists(client).await?,
    };
    Ok(Update::Lists(Box::new(lists)))
}

/// What a daemon has that takes no part in a cluster.
async fn local_lists(client: &Client) -> Result<Lists, ClientError> {
    let (names, services) = (client.names(None).await?, client.services().await?);
    let host = names.host;
    let names = names.names.into_iter().map(|name| api::ClusterName {
        name: name.name,
        host: host.clone(),
        node_id: String::new(),
        port: name.port,
        creation: name.creation,
        registered_at: name.registered_at,
        node_type: name.node_type,
        highest_version: name.highest_version,
        lowest_version: name.lowest_version,
    });
    let services = services.services.into_iter().map(|service| api::ClusterService {
        name: service.name,
        host: host.clone(),
        node_id: String::new(),
        port: service.port,
        metadata: service.metadata,
        registered_at: service.registered_at,
    });
    Ok(Lists { names: names.collect(), services: services.collect(), ..Lists::default() })
}

/// None if the daemon takes no part in a cluster.
fn in_cluster<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ClientError::Api { info, .. }) if info.code == api::ErrorCode::NoCluster.as_str() => Ok(None),
        Err(error) => Err(error),
    }
}
