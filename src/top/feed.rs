//! Reads a daemon and sends updates to the view: the lists once, then the stream of events; status and links every second.

use std::time::Duration;

use tokio::sync::mpsc::Sender;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::world::{Entry, Key, Lists, Update};
use crate::control::api::{self, Event};
use crate::control::client::{Client, ClientError, Message};

/// How often the status is read.
const SECOND: Duration = Duration::from_secs(1);
/// Pause between attempts to reconnect to the daemon.
const RECONNECT: Duration = Duration::from_millis(500);
/// How long an answer may take before the view shows that there is none.
const PATIENCE: Duration = Duration::from_secs(5);

/// The view was closed.
struct Unwatched;

/// Why reading stopped.
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

/// Reads a daemon, across its restarts, until the view is closed.
pub async fn feed(client: Client, to: Sender<Update>) {
    let client = client.with_patience(PATIENCE);
    loop {
        let why = match follow(&client, &to).await {
            Ok(()) => "it has stopped".to_owned(),
            Err(Interrupted::Unwatched) => return,
            Err(Interrupted::Lost(error)) => error.to_string(),
        };
        if tell(&to, Update::Lost(why)).await.is_err() {
            return;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn tell(to: &Sender<Update>, update: Update) -> Result<(), Unwatched> {
    to.send(update).await.map_err(|_| Unwatched)
}

/// Reads one stream of events to its end.
async fn follow(client: &Client, to: &Sender<Update>) -> Result<(), Interrupted> {
    // Before the lists, so that nothing is missed; applying an event twice changes nothing.
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
                    // This reader was too slow for the stream.
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
                // Events lack the address and version of a new member.
                if std::mem::take(&mut members_changed)
                    && let Some(nodes) = in_cluster(client.nodes().await)?
                {
                    tell(to, Update::Members(nodes.nodes)).await?;
                }
            }
        }
    }
}

/// Passes an event on. Returns whether it is about a member.
async fn take(message: &Message, to: &Sender<Update>) -> Result<bool, Unwatched> {
    // Keep-alives, the hello message and messages of later versions are not events.
    let Ok(event) = serde_json::from_str::<Event>(&message.data) else { return Ok(false) };
    let about_member = event.kind.starts_with("node_");
    tell(to, Update::Event(event)).await?;
    Ok(about_member)
}

async fn lists(client: &Client) -> Result<Update, ClientError> {
    let mut lists = Lists::default();
    let mut add = |service, name, host, node_id, port, since| {
        lists.entries.push((Key { host, name, service, node_id }, Entry { port, since }));
    };
    if let Some(nodes) = in_cluster(client.nodes().await)? {
        for name in client.cluster_names(None).await?.names {
            add(false, name.name, name.host, name.node_id, name.port, name.registered_at);
        }
        for service in client.cluster_services().await?.services {
            add(true, service.name, service.host, service.node_id, service.port, service.registered_at);
        }
        lists.members = nodes.nodes;
        lists.links = client.peers().await?.peers;
    } else {
        let (names, services) = (client.names(None).await?, client.services().await?);
        for name in names.names {
            add(false, name.name, names.host.clone(), String::new(), name.port, name.registered_at);
        }
        for service in services.services {
            add(true, service.name, names.host.clone(), String::new(), service.port, service.registered_at);
        }
    }
    Ok(Update::Lists(Box::new(lists)))
}

/// None if the daemon is not part of a cluster.
fn in_cluster<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ClientError::Api { info, .. }) if info.code == api::ErrorCode::NoCluster.as_str() => Ok(None),
        Err(error) => Err(error),
    }
}
