//! Runs plugins, and restarts failed ones after a pause.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Discovery, Find, Finds};
use crate::base::backoff::Backoff;

/// Pauses before a failed plugin is run again. They start over after a run longer than the longest pause.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Runs each of `plugins` in its own task, reporting to `finds`. The tasks end when the returned set is dropped.
pub fn start(
    plugins: impl IntoIterator<Item = Box<dyn Discovery>>,
    finds: &mpsc::Sender<(&'static str, Find)>,
) -> JoinSet<()> {
    let mut tasks = JoinSet::new();
    for plugin in plugins {
        tasks.spawn(drive(plugin, finds.clone()));
    }
    tasks
}

/// Runs `plugin` until the future or the receiver of `finds` is dropped.
pub async fn drive(plugin: Box<dyn Discovery>, finds: mpsc::Sender<(&'static str, Find)>) {
    drive_with(plugin, finds, Failures::new(PAUSES)).await;
}

async fn drive_with(
    plugin: Box<dyn Discovery>,
    sender: mpsc::Sender<(&'static str, Find)>,
    mut failures: Failures,
) {
    let name = plugin.name();
    let finds = Finds::new(name, sender.clone());
    loop {
        let begin = Instant::now();
        let error = tokio::select! {
            ended = plugin.run(&finds) => match ended {
                Err(error) => error.to_string(),
                Ok(never) => match never {},
            },
            () = sender.closed() => return,
        };
        let failure = failures.failed(&error, begin.elapsed());
        if failure.is_news {
            tracing::warn!(plugin = name, "discovery by {name} failed and will be retried: {error}");
        } else {
            tracing::debug!(plugin = name, "discovery by {name} failed again: {error}");
        }
        tokio::select! {
            () = tokio::time::sleep(failure.pause) => {}
            () = sender.closed() => return,
        }
    }
}

/// Consecutive failures of a plugin, and the last reason.
#[derive(Debug)]
struct Failures {
    pauses: Backoff,
    count: u32,
    reason: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Failure {
    /// The pause before the next run.
    pause: Duration,
    /// Whether the reason differs from that of the previous failure.
    is_news: bool,
}

impl Failures {
    fn new(pauses: Backoff) -> Failures {
        Failures { pauses, count: 0, reason: None }
    }

    /// Records that the plugin failed with `reason` after running for `lasted`.
    fn failed(&mut self, reason: &str, lasted: Duration) -> Failure {
        if lasted > self.pauses.longest() {
            self.count = 0;
            self.reason = None;
        }
        self.count = self.count.saturating_add(1);
        let is_news = self.reason.as_deref() != Some(reason);
        self.reason = Some(reason.to_owned());
        Failure { pause: self.pauses.pause(self.count), is_news }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::discovery::{DiscoveryError, Running};

    /// Always fails, but reports something from the fourth run on.
    #[derive(Debug, Default)]
    struct Flaky(AtomicUsize);

    impl Discovery for Flaky {
        fn name(&self) -> &'static str {
            "flaky"
        }

        fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a> {
            Box::pin(async move {
                let runs = self.0.fetch_add(1, Ordering::Relaxed);
                if runs >= 3 {
                    finds.report(Find::at(format!("host-{runs}"))).await;
                }
                Err(DiscoveryError::because("failed"))
            })
        }
    }

    fn quick() -> Failures {
        Failures::new(Backoff::new(Duration::from_millis(1), Duration::from_millis(2)))
    }

    #[tokio::test]
    async fn a_failed_plugin_is_run_again_and_keeps_its_state() {
        let (sender, mut receiver) = mpsc::channel(1);
        let task = tokio::spawn(drive_with(Box::new(Flaky::default()), sender, quick()));
        assert_eq!(receiver.recv().await, Some(("flaky", Find::at("host-3"))));
        assert_eq!(receiver.recv().await, Some(("flaky", Find::at("host-4"))));
        drop(receiver);
        task.await.expect("it ends when the receiver is dropped");
    }

    #[tokio::test]
    async fn plugins_end_with_their_set() {
        let (sender, mut receiver) = mpsc::channel(1);
        let seeds = |host: &str| -> Box<dyn Discovery> {
            Box::new(super::super::seeds::Seeds::new([host.to_owned()]))
        };
        let tasks = start([seeds("one"), seeds("two")], &sender);
        drop(sender);
        assert!(receiver.recv().await.is_some());
        assert!(receiver.recv().await.is_some());
        drop(tasks);
        // All senders have been dropped.
        assert_eq!(receiver.recv().await, None);
    }

    #[test]
    fn pauses_grow_to_their_limit_and_start_over_after_a_long_run() {
        let mut failures = Failures::new(PAUSES);
        let mut pause = |lasted| failures.failed("x", Duration::from_secs(lasted)).pause.as_secs();
        assert_eq!([0; 8].map(&mut pause), [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!([61, 0].map(&mut pause), [1, 2]);
    }

    #[test]
    fn a_failure_is_news_when_its_reason_changes() {
        let mut failures = quick();
        let mut news = |reason| failures.failed(reason, Duration::ZERO).is_news;
        assert_eq!(["a", "a", "b", "b", "a"].map(&mut news), [true, false, true, false, true]);
    }
}
