//! `pmd top`.

use std::io::{self, IsTerminal};

use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::Output;
use super::common::runtime::block_on_uninterrupted;
use super::common::target::Target;
use crate::top::run::{Ends, show};

/// Shows the daemon and its cluster until a key or a signal ends it.
pub fn run(target: &Target, output: Output) -> Result<Exit> {
    if !is_terminal() {
        return Err(Failure::new(
            Exit::Usage,
            "pmd top needs a terminal to draw on",
            format!(
                "use `{}` for a stream of JSON lines, or `{}` for the numbers",
                target.command("nodes --watch"),
                target.command("status --json")
            ),
        ));
    }
    block_on_uninterrupted(async {
        let mut ends = Ends::new()?;
        // A daemon that is not there at all is an error; one that goes away later is waited for.
        explain(target, target.client().status().await).await?;
        let (_, nothing_more) = tokio::sync::mpsc::channel(1);
        tokio::select! {
            done = show(target.client(), output.has_colour(), nothing_more) => done?,
            () = ends.wait() => {}
        }
        Ok(Exit::Done)
    })
}

/// Whether there is somebody who sees what is drawn and can type.
pub fn is_terminal() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}
