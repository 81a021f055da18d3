//! Commands with `--watch`, which print once or repeatedly.

use std::time::Duration;

use super::exit::Exit;
use super::failure::Result;
use super::output::Output;
use super::runtime::block_on;

/// How often a watched command prints.
const REFRESH: Duration = Duration::from_secs(2);

/// Runs `show` once, or repeatedly until interrupted.
pub fn run(watch: bool, output: Output, mut show: impl AsyncFnMut(Output) -> Result<()>) -> Result<Exit> {
    let output = if watch { output.watched() } else { output };
    block_on(async {
        loop {
            show(output).await?;
            if !watch {
                return Ok(Exit::Done);
            }
            tokio::time::sleep(REFRESH).await;
        }
    })
}
