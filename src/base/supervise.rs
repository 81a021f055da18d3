//! Supervises the essential threads and tasks of the daemon.
//!
//! If one of them ended unnoticed, the daemon might hold its port without serving anybody. So if any of them panics or
//! ends unexpectedly, the daemon exits, and the service manager restarts it.

use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::FutureExt;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::shutdown::{Reason, Shutdown};

/// Starts essential threads and tasks. Clones share their state.
#[derive(Debug, Clone)]
pub struct Supervisor {
    shutdown: Shutdown,
    stop: CancellationToken,
    tasks: TaskTracker,
    threads: Arc<Mutex<Vec<JoinHandle<()>>>>,
}

impl Supervisor {
    /// Creates a supervisor that requests `shutdown` when a thread or task ends unexpectedly.
    #[must_use]
    pub fn new(shutdown: Shutdown) -> Supervisor {
        Supervisor {
            shutdown,
            stop: CancellationToken::new(),
            tasks: TaskTracker::new(),
            threads: Arc::default(),
        }
    }

    /// The shutdown of the daemon.
    #[must_use]
    pub fn shutdown(&self) -> &Shutdown {
        &self.shutdown
    }

    /// Runs `work` on its own thread. Before [`join`](Self::join), the caller must make it end.
    ///
    /// # Errors
    ///
    /// If the thread cannot be created.
    pub fn thread(&self, name: &'static str, work: impl FnOnce() + Send + 'static) -> io::Result<()> {
        let supervisor = self.clone();
        let running = std::thread::Builder::new().name(name.into()).spawn(move || {
            let ended = std::panic::catch_unwind(AssertUnwindSafe(work));
            supervisor.ended(name, ended.is_err());
        })?;
        self.threads.lock().unwrap_or_else(PoisonError::into_inner).push(running);
        Ok(())
    }

    /// Runs a task on the current runtime until the daemon ends.
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

    /// Handles the end of a thread or task: shuts the daemon down, unless it is shutting down already.
    pub fn ended(&self, name: &'static str, panicked: bool) {
        if self.stop.is_cancelled() || (self.shutdown.requested().is_some() && !panicked) {
            return;
        }
        let how = if panicked { "panicked" } else { "ended unexpectedly" };
        tracing::error!("{name} {how}: the daemon cannot continue without it and exits");
        self.shutdown.request(Reason::Failed);
    }

    /// Cancels all tasks, and waits up to `timeout` for the end of tasks and threads. Returns whether all have ended.
    pub async fn join(&self, timeout: Duration) -> bool {
        self.stop.cancel();
        self.tasks.close();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let joined = tokio::task::spawn_blocking(move || {
            // The thread has handled its own panic, if any.
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
    async fn a_task_that_ends_or_a_thread_that_panics_ends_the_daemon() {
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
    async fn an_orderly_end_is_awaited_and_is_not_a_failure() {
        let shutdown = Shutdown::new();
        let supervisor = Supervisor::new(shutdown.clone());
        let (sender, receiver) = std::sync::mpsc::channel::<()>();
        supervisor.task("a task", std::future::pending());
        supervisor
            .thread("a thread", move || {
                // Returns when the sender is dropped.
                let _ = receiver.recv();
            })
            .expect("a thread");
        shutdown.request(Reason::Stop);
        drop(sender);
        assert!(supervisor.join(Duration::from_secs(10)).await);
        assert_eq!(shutdown.requested(), Some(Reason::Stop));
    }
}
