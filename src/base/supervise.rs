//! The threads and tasks that a daemon cannot do without: each is joined, and its end is decided about.
//!
//! A part that ends without having been told to leaves a daemon that holds its port and serves nobody. So the end of any of
//! them, by a panic or otherwise, ends the daemon, for the service manager to start it again.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shutdown::{Reason, Shutdown};

/// Starts essential threads and tasks. Clones supervise together.
#[derive(Debug, Clone)]
pub struct Supervisor {
    shutdown: Shutdown,
    stop: CancellationToken,
    tasks: TaskTracker,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Supervisor {
    /// A supervisor that throws `shutdown` when one of its charges ends.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Supervisor {
        Supervisor {
            shutdown,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            threads: Arc::default(),
        }
    }

    /// The switch that ends the daemon.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs `work` on a thread of its own. It ends in order when it was told to, by whatever it listens to.
    ///
    /// # Errors
    ///
    /// If the system refuses the thread.
    pub fn thread(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let supervisor = self.clone();
        let running = std::thread::Builder::new().name(name.into()).spawn(move || {
            let ended = std::panic::catch_unwind(AssertUnwindSafe(work));
            supervisor.ended(name, ended.is_err());
        })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(running);
        Ok(())
    }

    /// Runs a task on this runtime, until the daemon ends.
    pub fn task(&self, name: &'static str, work: impl Future<Output = ()> + Send + 'static) {
        let supervisor = self.clone();
        let work = AssertUnwindSafe(work).catch_unwind();
        self.tasks.spawn(async move {
            tokio::select! {
                () = supervisor.stop.cancelled() => {}
                ended = work => supervisor.ended(name, ended.is_err()),
            }
        });
    }

    /// Decides about the end of a part: ends the daemon, unless it ends anyway.
    pub fn ended(&self, name: &'static str, panicked: bool) {
        if self.stop.is_cancelled() || (self.shutdown.requested().is_some() && !panicked) {
            return;
        }
        let how = if panicked { "panicked" } else { "ended unexpectedly" };
        tracing::error!("{name} {how}: the daemon cannot go on without it and exits, to be started again");
        self.shutdown.request(Reason::Failed);
    }

    /// Ends all tasks and waits for the end of tasks and threads, which must have been told to end; at most `timeout`.
    /// Returns whether all have ended.
    pub async fn join(&self, timeout: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            // How it ended was decided about where it happened.
            threads.into_iter().for_each(|thread| drop(thread.join()));
        });
        let all = async {
            self.tasks.wait().await;
            joined.await.is_ok()
        };
        tokio::time::timeout(timeout, all).await.unwrap_or(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn an_essential_part_that_ends_or_panics_ends_the_daemon() {
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        supervisor.task("a task", async {});
        assert_eq!(shutdown.wait().await, Reason::Failed);
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        supervisor.thread("a thread", || panic!("on purpose")).expect("a thread");
        assert_eq!(shutdown.wait().await, Reason::Failed);
        assert!(supervisor.join(Duration::from_secs(10)).await);
    }

    #[tokio::test]
    async fn an_end_in_order_is_no_failure_and_is_waited_for() {
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        supervisor.task("a task", std::future::pending());
        supervisor
            .thread("a thread", move || {
                // It ends with the sender.
                let _ = receiver.recv();
            })
            .expect("a thread");
        shutdown.request(Reason::Stop);
        drop(sender);
        assert!(supervisor.join(Duration::from_secs(10)).await);
        assert_eq!(shutdown.requested(), Some(Reason::Stop));
    }
}
