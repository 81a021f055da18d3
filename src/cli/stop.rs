//! `pmd stop`.

use std::time::Duration;

use tokio::net::UnixStream;

use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::Output;
use super::common::runtime::{block_on, with_progress};
use super::common::target::Target;
use crate::takeover::process::Process;

/// How long a daemon may take to end: it gives its connections some seconds.
const PATIENCE: Duration = Duration::from_secs(15);

/// Stops the daemon and waits until it is gone.
pub fn run(target: &Target, output: Output) -> Result<Exit> {
    block_on(async {
        let pid = stop(target).await?;
        let report = serde_json::json!({ "stopped": true, "pid": pid, "port": target.port });
        output.one(&report, |out| writeln!(out, "pmd on port {} has stopped (pid {pid})", target.port))?;
        Ok(Exit::Done)
    })
}

/// Stops the daemon, waits until it is gone, and returns what its process id was.
pub async fn stop(target: &Target) -> Result<u32> {
    let client = target.client();
    // Held before it is asked to end, so that no later process is waited for. What it says its number is may be
    // that of another container; what the kernel says is right here.
    let connection = UnixStream::connect(client.socket()).await.ok();
    let pid = connection.as_ref().and_then(|stream| stream.peer_cred().ok()?.pid());
    let process = pid.and_then(|pid| Process::open(pid).ok());
    drop(connection);
    let stopping = explain(target, client.stop().await).await?;
    let gone = async {
        match &process {
            Some(process) => matches!(process.ended(PATIENCE).await, Ok(true)),
            None => tokio::time::timeout(PATIENCE, silence(target)).await.is_ok(),
        }
    };
    if with_progress("waiting for the daemon to end", gone).await {
        return Ok(stopping.pid);
    }
    Err(Failure::new(
        Exit::TimedOut,
        format!("the daemon (pid {}) has not ended within {} s", stopping.pid, PATIENCE.as_secs()),
        format!("look at its log, or end it: kill -9 {}", stopping.pid),
    ))
}

/// Waits until nobody answers any more.
async fn silence(target: &Target) {
    while UnixStream::connect(&target.socket).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
