//! Runs plugins. One that fails is run again after a pause.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::{Discovery, Find, Finds};
use crate::base::backoff::Backoff;

/// Pauses before a plugin that has failed is run again. A plugin that has run for longer than the longest of them starts
/// over with the first.
const PAUSES: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(60));

/// Runs each of `plugins` as a task of its own, which reports to `finds`. The tasks end when the returned set is dropped.
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

/// Runs `plugin` until the future is dropped or the receiver of `finds` is gone.
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

/// How often a plugin has failed in a row, and why the last time.
#[derive(Debug)]
struct Failures {
    pauses: Backoff,
    count: u32,
    reason: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
struct Failure {
    /// How long to wait before it is run again.
    pause: Duration,
    /// Whether the reason differs from that of the failure before.
    is_news: bool,
}

impl Failures {
    fn new(pauses: Backoff) -> Failures {
        Failures { pauses, count: 0, reason: None }
    }

    /// Records that the plugin has failed for `reason`, after a run that `lasted` so long.
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

    /// Fails a few times before it finds something, and then again.
    #[derive(Debug, Default)]
    struct Clumsy(AtomicUsize);

    impl Discovery for Clumsy {
        fn name(&self) -> &'static str {
            "clumsy"
        }

        fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a> {
            Box::pin(async move {
                let runs = self.0.fetch_add(1, Ordering::Relaxed);
                if runs >= 3 {
                    finds.report(Find::at(format!("host-{runs}"))).await;
                }
                Err(DiscoveryError::because("stumbled"))
            })
        }
    }

    fn quick() -> Failures {
        Failures::new(Backoff::new(Duration::from_millis(1), Duration::from_millis(2)))
    }

    #[tokio::test]
    async fn a_plugin_that_fails_is_run_again_with_what_it_remembers() {
        let (sender, mut receiver) = mpsc::channel(1);
        let task = tokio::spawn(drive_with(Box::new(Clumsy::default()), sender, quick()));
        assert_eq!(receiver.recv().await, Some(("clumsy", Find::at("host-3"))));
        assert_eq!(receiver.recv().await, Some(("clumsy", Find::at("host-4"))));
        drop(receiver);
        task.await.expect("it ends when nobody listens");
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
        // All senders are gone.
        assert_eq!(receiver.recv().await, None);
    }

    #[test]
    fn pauses_grow_to_their_limit_and_begin_anew_after_a_good_run() {
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
