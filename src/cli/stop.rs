//! `pmd stop`: stops the daemon.

use super::common::{Exit, Output, Result, Target, block_on, launch};

/// Stops the daemon and waits for it to exit.
pub fn run(target: &Target, output: Output) -> Result<Exit> {
    block_on(async {
        let pid = launch::stop(target).await?;
        let report = serde_json::json!({ "stopped": true, "pid": pid, "port": target.port });
        output.one(&report, |out| writeln!(out, "pmd on port {} has stopped (pid {pid})", target.port))?;
        Ok(Exit::Done)
    })
}
