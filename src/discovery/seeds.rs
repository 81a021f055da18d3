//! The configured seeds, which are dialled for as long as the daemon runs.

use std::future::pending;

use super::{Discovery, Find, Finds, Running};

/// The plugin's name. [`Candidates`](super::candidates::Candidates) never forgets addresses reported under it.
pub const NAME: &str = "seeds";

/// Addresses from the configuration or the command line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seeds {
    addresses: Vec<String>,
}

impl Seeds {
    /// Creates a plugin that reports these addresses, in the format of [`Find::address`].
    pub fn new(addresses: impl IntoIterator<Item = String>) -> Seeds {
        Seeds { addresses: addresses.into_iter().collect() }
    }
}

impl Discovery for Seeds {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a> {
        Box::pin(async move {
            for address in &self.addresses {
                finds.report(Find::at(address)).await;
            }
            pending().await
        })
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;

    use super::*;

    #[tokio::test]
    async fn every_seed_is_reported_once() {
        let (sender, mut receiver) = mpsc::channel(1);
        let seeds = Seeds::new(["one".to_owned(), "two:4370".to_owned()]);
        let finds = Finds::new(seeds.name(), sender);
        let running = tokio::spawn(async move { seeds.run(&finds).await });
        assert_eq!(receiver.recv().await, Some((NAME, Find::at("one"))));
        assert_eq!(receiver.recv().await, Some((NAME, Find::at("two:4370"))));
        tokio::task::yield_now().await;
        assert!(receiver.try_recv().is_err());
        assert!(!running.is_finished());
        running.abort();
    }
}
