//! `pmd top`: the live view on a terminal.

use super::common::runtime::block_on_uninterrupted;
use super::common::signals::Signals;
use super::common::{Exit, Failure, Output, Result, Target, explain};
use crate::top::run::show;
use crate::top::terminal::is_interactive;

/// Shows the daemon and its cluster until the user quits or a signal arrives.
pub fn run(target: &Target, output: Output) -> Result<Exit> {
    if !is_interactive() {
        return Err(Failure::new(
            Exit::Usage,
            "pmd top requires a terminal",
            format!(
                "use `{}` for a stream of JSON lines, or `{}` for counters",
                target.command("nodes --watch"),
                target.command("status --json")
            ),
        ));
    }
    block_on_uninterrupted(async {
        let mut signals = Signals::new()?;
        // A daemon that is not running is an error; if it stops later, the view waits for it.
        explain(target, target.client().status().await).await?;
        let (_, nothing_more) = tokio::sync::mpsc::channel(1);
        tokio::select! {
            done = show(target.client(), output.has_colour(), nothing_more) => done?,
            _ = signals.next() => {}
        }
        Ok(Exit::Done)
    })
}
