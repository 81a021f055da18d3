//! Services that last as long as a connection.
//!
//! The response to `POST /v1/services/hold` does not end. When its connection closes, even because the client was
//! killed, the response is dropped and the service is unregistered.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::watch;

use super::api;
use crate::base::clock::now_ms;
use crate::base::shutdown::Shutdown;
use crate::directory::local::Local;

/// How long a hold waits after an event before it checks whether its service is still registered. Otherwise thousands
/// of holds would each check thousands of times while thousands of nodes reconnect.
const GATHER: Duration = Duration::from_millis(200);

/// A service that is unregistered when this value is dropped.
#[derive(Debug)]
pub struct Hold {
    local: Arc<Local>,
    shutdown: Shutdown,
    name: String,
    id: u64,
}

impl Hold {
    /// Holds the service `id`, which has just been registered.
    pub fn new(local: Arc<Local>, shutdown: Shutdown, name: &str, id: u64) -> Hold {
        Hold { local, shutdown, name: name.to_owned(), id }
    }

    fn is_registered(&self) -> bool {
        self.local.service(&self.name).is_some_and(|service| service.id == self.id)
    }

    /// The response: the service as a line of JSON, and a line with the reason if the service ends before the daemon.
    pub fn stream(self, service: &api::ServiceInfo) -> impl Stream<Item = Result<Bytes, Infallible>> + use<> {
        let events = self.local.events().watch();
        let step = Step::Opening(line(service));
        stream::unfold((self, events, step), async |(hold, mut events, step)| {
            let (text, next) = match step {
                Step::Opening(text) => (text, Step::Waiting),
                Step::Waiting => (hold.wait(&mut events).await?, Step::Over),
                Step::Over => return None,
            };
            Some((Ok(Bytes::from(text)), (hold, events, next)))
        })
    }

    /// Waits until the service ends; none if the daemon shuts down first.
    async fn wait(&self, events: &mut watch::Receiver<u64>) -> Option<String> {
        loop {
            events.borrow_and_update();
            if !self.is_registered() {
                return Some(line(&api::ServiceEnded { ended: "unregistered".into() }));
            }
            tokio::select! {
                changed = events.changed() => changed.ok()?,
                _ = self.shutdown.wait() => return None,
            }
            tokio::time::sleep(GATHER).await;
        }
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.local.release_service(&self.name, self.id, now_ms());
    }
}

#[derive(Debug)]
enum Step {
    Opening(String),
    Waiting,
    Over,
}

fn line(data: &impl Serialize) -> String {
    // Plain data always has a JSON form.
    serde_json::to_string(data).unwrap_or_default() + "\n"
}
