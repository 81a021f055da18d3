//! Sets up the log of a daemon that runs as pmd: text or JSON lines on standard error.

use std::io::{self, IsTerminal};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

use super::panics;
use super::ring::LogRing;
use super::writer::{Flush, LogWriter};

/// The variable for the log filter: a level, or comma-separated `target=level` pairs.
pub const FILTER: &str = "PMD_LOG";
/// The variable for the log format: `json` for one JSON object per line, anything else for text.
pub const FORMAT: &str = "PMD_LOG_FORMAT";

/// Sets up the log from the environment. A filter that cannot be parsed is reported and ignored. The caller keeps the
/// returned guard until the process ends.
///
/// # Errors
///
/// If the log thread cannot be created.
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
    // The lines for `pmd debug` stay at level info, even if the log itself is at trace level.
    let recent = fmt::layer().with_writer(LogRing).with_ansi(false).with_target(false);
    let recent = recent.with_filter(LevelFilter::INFO);
    // This fails only if a log has been set up before, which is then kept.
    let _ = tracing_subscriber::registry().with(filter).with(lines).with(recent).try_init();
    if let Some(error) = complaint {
        tracing::warn!("{FILTER}={asked:?} is not a valid filter ({error}); logging at level info");
    }
    Ok(flush)
}
