//! The log of a daemon that runs as pmd: lines for people, or JSON for collectors, on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::panics;
use super::ring::LogRing;
use super::writer::{Flush, LogWriter};

/// What is logged: a level, or `target=level` pairs with commas between them.
pub const FILTER: &str = "PMD_LOG";
/// `json` for one JSON object a line; anything else for lines for people.
pub const FORMAT: &str = "PMD_LOG_FORMAT";

/// Sets the log up from the environment. A filter that cannot be parsed is reported and ignored. The process keeps the
/// returned value until it ends.
///
/// # Errors
///
/// If the system has no thread left.
pub fn init() -> io::Result<Flush> {
    let asked = std::env::var(FILTER).unwrap_or_default();
    let usual = || Targets::new().with_default(LevelFilter::INFO);
    let (filter, complaint) = match asked.parse::<Targets>() {
        Ok(filter) if !asked.is_empty() => (filter, None),
        Ok(_) => (usual(), None),
        Err(error) => (usual(), Some(error)),
    };
    let writer = LogWriter::start()?;
    let flush = writer.flush_at_end();
    panics::to_log(Some(writer.clone()));
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let lines = fmt::layer().with_writer(writer).with_ansi(colour).with_target(false);
    let lines = if std::env::var(FORMAT).is_ok_and(|format| format == "json") {
        lines.json().boxed()
    } else {
        lines.boxed()
    };
    // The lines for `pmd debug` stay at a level that an operator would read, even if the log itself is at trace level.
    let recent = fmt::layer().with_writer(LogRing).with_ansi(false).with_target(false);
    let recent = recent.with_filter(LevelFilter::INFO);
    // This fails only if a log was set up before, which then stays.
    let _ = tracing_subscriber::registry().with(filter).with(lines).with(recent).try_init();
    if let Some(error) = complaint {
        tracing::warn!("{FILTER} is {asked:?}, which is not a filter ({error}); logging at level info");
    }
    Ok(flush)
}
