//! A daemon's events about the cluster.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use pmd::control::api::Event;
use pmd::control::client::Client;
use tokio::task::JoinHandle;

use crate::harness::wait_within;

/// A reader of one daemon's event stream, from the daemon's start to its exit.
#[derive(Debug)]
pub(crate) struct Watch {
    host: String,
    events: Arc<Mutex<Vec<Event>>>,
    task: JoinHandle<()>,
}

impl Watch {
    /// Reads the events of the daemon behind `client` on `host`, including all it remembers.
    pub(crate) fn begin(runtime: &tokio::runtime::Runtime, host: &str, client: &Client) -> Watch {
        let events = Arc::new(Mutex::new(Vec::new()));
        let sink = Arc::clone(&events);
        let stream = runtime.block_on(client.events(Some(0), None, &[])).expect("a stream of events");
        let task = runtime.spawn(async move {
            let mut stream = stream;
            while let Ok(Some(message)) = stream.next().await {
                // Other messages (hello, keep-alives) are ignored.
                if let Ok(event) = serde_json::from_str::<Event>(&message.data) {
                    sink.lock().unwrap_or_else(PoisonError::into_inner).push(event);
                }
            }
        });
        Watch { host: host.to_owned(), events, task }
    }

    /// Everything so far.
    pub(crate) fn events(&self) -> Vec<Event> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The number of events of this kind about this name.
    pub(crate) fn count(&self, kind: &str, name: &str) -> usize {
        self.events().iter().filter(|event| event.kind == kind && event.name == name).count()
    }

    /// The reasons of the events of this kind about this name.
    pub(crate) fn reasons(&self, kind: &str, name: &str) -> Vec<Option<String>> {
        let is_meant = |event: &Event| event.kind == kind && event.name == name;
        self.events().into_iter().filter(is_meant).map(|event| event.reason).collect()
    }

    /// Waits until there was an event of this kind about this name.
    pub(crate) fn wait_for(&self, kind: &str, name: &str) {
        let what = format!("{kind} of {name} on {}", self.host);
        wait_within(Duration::from_secs(90), &what, || self.count(kind, name) > 0);
    }

    /// Fails the test if there ever was an event of this kind about this name.
    pub(crate) fn never(&self, kind: &str, name: &str) {
        let told = self.events();
        assert_eq!(self.count(kind, name), 0, "{kind} of {name} on {}: {told:#?}", self.host);
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}
