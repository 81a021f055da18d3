//! `pmd health` and `pmd reload`.

use std::time::Duration;

use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::{Colour, Output};
use super::common::runtime::{block_on, with_progress};
use super::common::target::Target;

/// How long a daemon that is well takes at most: longer than it waits for itself, shorter than most probes do.
const PATIENCE: Duration = Duration::from_secs(3);

/// Tells whether the daemon is well.
pub fn run(target: &Target, ready: bool, output: Output) -> Result<Exit> {
    block_on(async {
        let answer = target.client().with_patience(PATIENCE).health(ready).await;
        let health = match explain(target, answer).await {
            Ok(health) => health,
            // A daemon that is there and does not answer is what this command is meant to find.
            Err(failure) if failure.exit == Exit::TimedOut => {
                return Err(Failure { exit: Exit::Unhealthy, code: "unhealthy".into(), ..failure });
            }
            Err(failure) => return Err(failure),
        };
        output.one(&health, |out| {
            if health.healthy {
                return writeln!(
                    out,
                    "{}",
                    output.paint(Colour::Green, if ready { "ready" } else { "healthy" })
                );
            }
            writeln!(out, "{}", output.paint(Colour::Red, "unhealthy"))?;
            health.problems.iter().try_for_each(|problem| writeln!(out, "  {problem}"))
        })?;
        Ok(if health.healthy { Exit::Done } else { Exit::Unhealthy })
    })
}

/// Makes the daemon read its configuration file again.
pub fn reload(target: &Target, output: Output) -> Result<Exit> {
    block_on(async {
        let reloading = with_progress("reading the configuration", target.client().reload()).await;
        let done = explain(target, reloading).await?;
        output.one(&done, |out| {
            let file = match &done.config_file {
                Some(file) => file.display().to_string(),
                None => return writeln!(out, "this daemon has no configuration file"),
            };
            if !done.applied.is_empty() {
                writeln!(out, "{file} is right; in force now: {}", done.applied.join(", "))?;
                if done.needs_restart.is_empty() {
                    return Ok(());
                }
            }
            if done.needs_restart.is_empty() {
                return writeln!(out, "{file} is right, and nothing in it has changed");
            }
            writeln!(out, "{file} is right; these keys need a restart: {}", done.needs_restart.join(", "))?;
            writeln!(out, "restart it: {} && {}", target.command("stop"), target.command("start"))
        })?;
        Ok(Exit::Done)
    })
}
