//! Runs commands that wait: for the daemon, for time, or for a signal.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::Instant;

use super::exit::Exit;
use super::failure::{Failure, Result};
use super::output::note;

/// Work that takes longer than this is announced.
const SILENT: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The work of a command.
type Work<'a> = Pin<&'a mut dyn Future<Output = Result<Exit>>>;

/// Runs a command until it is done or interrupted.
pub fn block_on(work: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let work: Work<'_> = pin!(work);
    run(pin!(async {
        tokio::select! {
            done = work => done,
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
        }
    }))
}

/// Runs a command that handles interruptions itself.
pub fn block_on_uninterrupted(work: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    run(pin!(work))
}

/// Not generic: compiling the runtime's loop for each command would cost a lot of code.
fn run(work: Work<'_>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(
            Exit::General,
            format!("cannot start: {error}"),
            "free memory or file descriptors, and try again",
        )
    })?;
    let done = runtime.block_on(work);
    // A blocking thread that still waits, as for the resolver, must not delay the exit.
    runtime.shutdown_background();
    done
}

/// When a wait ends. Very long waits are cut, as the clock would overflow.
pub fn deadline(patience: Duration) -> Instant {
    Instant::now() + patience.min(LONGEST)
}

/// Tells people what `work` is if it takes more than a moment.
pub async fn with_progress<T>(doing: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        done = work.as_mut() => return done,
        () = tokio::time::sleep(SILENT) => note(&format!("{doing} ...")),
    }
    work.await
}
