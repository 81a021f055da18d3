//! `pmd lookup`: the address of a node or service.

use std::io::Write;
use std::time::Duration;

use serde::Serialize;
use tokio::time::Instant;

use super::args::{self, Format};
use super::common::output::{json, stdout};
use super::common::runtime::deadline;
use super::common::{Exit, Failure, Output, Result, Target, block_on, explain, with_progress};
use crate::base::text::time;
use crate::control::api::{Lookup, Match};
use crate::control::client::{Client, ClientError};

/// Pause between attempts, short enough not to delay users and start scripts.
const POLL: Duration = Duration::from_millis(100);

/// Prints the address of a node or service.
pub fn run(target: &Target, args: &args::Lookup, output: Output) -> Result<Exit> {
    block_on(async {
        let client = target.client();
        let mut found = match args.wait {
            None => explain(target, client.lookup(&args.name).await).await?,
            Some(timeout) => {
                let doing = format!("waiting for {}", args.name);
                with_progress(&doing, wait(&client, &args.name, timeout)).await?
            }
        };
        if !args.all {
            found.matches.truncate(1);
        }
        print(&found, output)?;
        Ok(Exit::Done)
    })
}

/// Polls until the name is registered. The daemon may start later, as start scripts require.
async fn wait(client: &Client, name: &str, timeout: Duration) -> Result<Lookup> {
    let deadline = deadline(timeout);
    loop {
        let error = match client.lookup(name).await {
            Ok(found) => return Ok(found),
            Err(error) if is_not_yet(&error) => error,
            Err(error) => return Err(error.into()),
        };
        if Instant::now() + POLL > deadline {
            tokio::time::sleep_until(deadline).await;
            return Err(Failure::new(
                Exit::TimedOut,
                format!("{name:?} was not registered within {}: {error}", time(timeout)),
                "list what is registered with pmd names and pmd services, or wait longer",
            ));
        }
        tokio::time::sleep(POLL).await;
    }
}

fn is_not_yet(error: &ClientError) -> bool {
    error.is_absence() || matches!(error, ClientError::Api { status: 404 | 503, .. })
}

fn print(found: &Lookup, output: Output) -> Result<()> {
    #[derive(Serialize)]
    struct Line<'a> {
        address: String,
        #[serde(flatten)]
        found: &'a Match,
    }

    #[derive(Serialize)]
    struct Document<'a> {
        query: &'a str,
        matches: Vec<Line<'a>>,
    }

    let lines =
        found.matches.iter().map(|found| Line { address: format!("{}:{}", found.host, found.port), found });
    let mut out = stdout();
    match output.format {
        Format::Json => {
            let document = Document { query: &found.query, matches: lines.collect() };
            json(&mut out, &document, true)?;
        }
        Format::Jsonl => {
            for line in lines {
                json(&mut out, &line, false)?;
            }
        }
        // The same format for people and scripts, so that it can be used as an address.
        Format::Table | Format::Wide | Format::Plain => {
            for line in lines {
                writeln!(out, "{}", line.address)?;
            }
        }
    }
    Ok(out.flush()?)
}
