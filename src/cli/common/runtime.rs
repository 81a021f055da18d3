//! Runs asynchronous commands.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::Instant;

use super::exit::Exit;
use super::failure::{Failure, Result};
use super::output::note;

/// Operations that take longer than this show a progress message.
const SILENT: Duration = Duration::from_secs(1);

/// The upper limit for a wait.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The future of a command.
type Work<'a> = Pin<&'a mut dyn Future<Output = Result<Exit>>>;

/// Runs a command until it completes or is interrupted.
pub fn block_on(work: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    let work: Work<'_> = pin!(work);
    run(pin!(async {
        tokio::select! {
            // Handled from before the work begins.
            biased;
            _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
            done = work => done,
        }
    }))
}

/// Runs a step of a command and returns its result; if it is interrupted, the command must end with that exit code.
pub fn block_on_step<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let mut result = None;
    let exit = block_on(async {
        result = Some(work.await?);
        Ok(Exit::Done)
    })?;
    // Without a result, it was interrupted.
    result.ok_or_else(|| Failure::silent(exit))
}

/// Runs a command that handles interrupts itself.
pub fn block_on_uninterrupted(work: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    run(pin!(work))
}

/// Not generic, so that the runtime's loop is not compiled for each command.
fn run(work: Work<'_>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(
            Exit::General,
            format!("cannot start the async runtime: {error}"),
            "free memory or file descriptors, and try again",
        )
    })?;
    let done = runtime.block_on(work);
    // A blocking thread, such as one waiting for the resolver, must not delay the exit.
    runtime.shutdown_background();
    done
}

/// The end of a wait that starts now. Very long waits are shortened because the clock would overflow.
pub fn deadline(timeout: Duration) -> Instant {
    Instant::now() + timeout.min(LONGEST)
}

/// Runs `work`, and prints `doing` if it takes longer than a second.
pub async fn with_progress<T>(doing: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        done = work.as_mut() => return done,
        () = tokio::time::sleep(SILENT) => note(&format!("{doing} ...")),
    }
    work.await
}
