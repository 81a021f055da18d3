//! `pmd health`: a health check for probes.

use std::time::Duration;

use super::common::{Colour, Exit, Failure, Output, Result, Target, block_on, explain};

/// Time limit for the answer: longer than the daemon's own checks take, shorter than the timeout of most probes.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Checks whether the daemon is healthy.
pub fn run(target: &Target, ready: bool, output: Output) -> Result<Exit> {
    block_on(async {
        let answer = target.client().with_timeout(TIMEOUT).health(ready).await;
        let health = match explain(target, answer).await {
            Ok(health) => health,
            // Running but not answering is exactly the state this command has to detect.
            Err(failure) if failure.exit == Exit::TimedOut => {
                return Err(Failure { exit: Exit::Unhealthy, code: "unhealthy".into(), ..failure });
            }
            Err(failure) => return Err(failure),
        };
        output.one(&health, |out| {
            let (colour, word) = match (health.healthy, ready) {
                (true, true) => (Colour::Green, "ready"),
                (true, false) => (Colour::Green, "healthy"),
                (false, _) => (Colour::Red, "unhealthy"),
            };
            writeln!(out, "{}", output.paint(colour, word))?;
            health.problems.iter().try_for_each(|problem| writeln!(out, "  {problem}"))
        })?;
        Ok(if health.healthy { Exit::Done } else { Exit::Unhealthy })
    })
}
