//! `pmd reload`: reloads the configuration.

use std::io::{self, Write};

use super::common::{Exit, Output, Result, Target, block_on, explain, with_progress};
use crate::control::api::Reloaded;

/// Makes the daemon reload its configuration file.
pub fn run(target: &Target, output: Output) -> Result<Exit> {
    block_on(async {
        let reloading = with_progress("reloading the configuration", target.client().reload()).await;
        let done = explain(target, reloading).await?;
        output.one(&done, |out| write_report(out, &done, target))?;
        Ok(Exit::Done)
    })
}

fn write_report(out: &mut dyn Write, done: &Reloaded, target: &Target) -> io::Result<()> {
    let Some(file) = &done.config_file else {
        return writeln!(out, "this daemon has no configuration file");
    };
    let file = file.display();
    if !done.applied.is_empty() {
        writeln!(out, "{file}: configuration is valid; applied: {}", done.applied.join(", "))?;
    }
    if !done.needs_restart.is_empty() {
        writeln!(out, "{file}: configuration is valid; needs a restart: {}", done.needs_restart.join(", "))?;
        writeln!(out, "restart the daemon: {} && {}", target.command("stop"), target.command("start"))?;
    } else if done.applied.is_empty() {
        writeln!(out, "{file}: configuration is valid; no changes")?;
    }
    Ok(())
}
