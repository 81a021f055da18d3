//! Running what waits for something.

use std::future::Future;
use std::pin::{Pin, pin};
use std::time::Duration;

use tokio::time::Instant;

use super::exit::Exit;
use super::failure::{Failure, Result};
use super::output::note;

/// What takes longer than this says so.
const PATIENCE_OF_PEOPLE: Duration = Duration::from_secs(1);

/// The longest wait.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What a command does.
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

/// Runs a command that takes care of interruptions itself.
pub fn block_on_uninterrupted(work: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    run(pin!(work))
}

/// Takes whatever work there is: a runtime's loop for each command would be a lot of code.
fn run(work: Work<'_>) -> Result<Exit> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| {
        Failure::new(
            Exit::General,
            format!("cannot start: {error}"),
            "free memory or descriptors, and try again",
        )
    })?;
    let done = runtime.block_on(work);
    // A thread that still waits for something must not hold up the end.
    runtime.shutdown_background();
    done
}

/// The end of a wait. One that nobody can live to see is cut, as a clock has an end too.
pub fn deadline(patience: Duration) -> Instant {
    Instant::now() + patience.min(LONGEST)
}

/// Says what is waited for, once it takes long enough for people to wonder.
pub async fn with_progress<T>(doing: &str, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    tokio::select! {
        done = work.as_mut() => return done,
        () = tokio::time::sleep(PATIENCE_OF_PEOPLE) => note(&format!("{doing} ...")),
    }
    work.await
}
