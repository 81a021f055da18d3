//! Sends updates from a daemon to the view: the lists once, then the stream of events; status and links every second.

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
/// How long a response may take before the view reports the daemon as not reachable.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(5);

/// The view was closed.
struct ViewClosed;

/// Why reading stopped.
enum Interrupted {
    ViewClosed,
    Lost(ClientError),
}

impl From<ViewClosed> for Interrupted {
    fn from(_: ViewClosed) -> Interrupted {
        Interrupted::ViewClosed
    }
}

impl From<ClientError> for Interrupted {
    fn from(error: ClientError) -> Interrupted {
        Interrupted::Lost(error)
    }
}

/// Reads a daemon, across its restarts, until the view is closed.
pub async fn feed(client: Client, to: Sender<Update>) {
    let client = client.with_timeout(RESPONSE_TIMEOUT);
    loop {
        let why = match follow(&client, &to).await {
            Ok(()) => "it has stopped".to_owned(),
            Err(Interrupted::ViewClosed) => return,
            Err(Interrupted::Lost(error)) => error.to_string(),
        };
        if send(&to, Update::Lost(why)).await.is_err() {
            return;
        }
        tokio::time::sleep(RECONNECT).await;
    }
}

async fn send(to: &Sender<Update>, update: Update) -> Result<(), ViewClosed> {
    to.send(update).await.map_err(|_| ViewClosed)
}

/// Reads one stream of events to its end.
async fn follow(client: &Client, to: &Sender<Update>) -> Result<(), Interrupted> {
    // Subscribed before the lists are read, so that nothing is missed; applying an event twice is harmless.
    let mut events = client.events(None, None, &[]).await?;
    send(to, lists(client).await?).await?;
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
                    "gap" => send(to, lists(client).await?).await?,
                    _ => members_changed |= forward(&message, to).await?,
                }
            }
            _ = seconds.tick() => {
                let status = client.status().await?;
                let after = asked.elapsed();
                asked = Instant::now();
                send(to, Update::Status(Box::new(status), after)).await?;
                if let Some(peers) = in_cluster(client.peers().await)? {
                    send(to, Update::Links(peers.peers)).await?;
                }
                // Events lack the address and version of a new member.
                if std::mem::take(&mut members_changed)
                    && let Some(nodes) = in_cluster(client.nodes().await)?
                {
                    send(to, Update::Members(nodes.nodes)).await?;
                }
            }
        }
    }
}

/// Forwards an event. Returns whether it is about a member.
async fn forward(message: &Message, to: &Sender<Update>) -> Result<bool, ViewClosed> {
    // Keep-alives, the hello message and messages of later versions are not events.
    let Ok(event) = serde_json::from_str::<Event>(&message.data) else { return Ok(false) };
    let about_member = event.kind.starts_with("node_");
    send(to, Update::Event(event)).await?;
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

/// Maps the error of a daemon outside a cluster to `None`.
fn in_cluster<T>(answer: Result<T, ClientError>) -> Result<Option<T>, ClientError> {
    match answer {
        Ok(answer) => Ok(Some(answer)),
        Err(ClientError::Api { info, .. }) if info.code == api::ErrorCode::NoCluster.as_str() => Ok(None),
        Err(error) => Err(error),
    }
}
