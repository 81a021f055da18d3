//! `pmd status`.

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use super::diagnosis::explain;
use super::exit::Exit;
use super::failure::Result;
use super::output::{Colour, Format, Output};
use super::runtime::block_on;
use super::target::Target;
use super::text::{count, printable, span};
use crate::control::api::Status;

/// How often a watched status is shown.
pub const REFRESH: Duration = Duration::from_secs(2);

/// Shows how the daemon is, once or again and again.
pub fn run(target: &Target, watch: bool, output: Output) -> Result<Exit> {
    block_on(async {
        let client = target.client();
        let output = if watch { watched(output) } else { output };
        loop {
            let status = explain(target, client.status().await).await?;
            if watch {
                clear()?;
            }
            output.one(&status, |out| write_status(out, &status, output))?;
            if !watch {
                return Ok(Exit::Done);
            }
            tokio::time::sleep(REFRESH).await;
        }
    })
}

/// How something that is shown again and again is shown: JSON lines for whoever is not a terminal.
pub fn watched(output: Output) -> Output {
    if io::stdout().is_terminal() && !output.format.is_json() {
        output
    } else {
        output.with_format(Format::Jsonl)
    }
}

/// Clears a terminal, if there is one.
pub fn clear() -> Result<()> {
    if io::stdout().is_terminal() {
        let mut out = io::stdout().lock();
        out.write_all(b"\x1b[H\x1b[2J")?;
        out.flush()?;
    }
    Ok(())
}

fn write_status(out: &mut dyn Write, status: &Status, output: Output) -> io::Result<()> {
    let addresses: Vec<String> = status.listening.iter().map(ToString::to_string).collect();
    let counters = &status.counters;
    let adopted = match status.names.adopted {
        0 => String::new(),
        adopted => format!(", {adopted} of them not back yet"),
    };
    writeln!(
        out,
        "pmd {} on {}, port {}, pid {}, up {}",
        status.version,
        printable(&status.host),
        status.port,
        status.pid,
        span(status.uptime_seconds)
    )?;
    let mut row = |label: &str, text: String| writeln!(out, "  {label:<15} {text}");
    row(
        "addresses",
        if addresses.is_empty() { "handed over by a supervisor".into() } else { addresses.join(", ") },
    )?;
    row("control socket", status.socket.display().to_string())?;
    row(
        "names",
        format!(
            "{} registered{adopted}, {} remembered, room for {}",
            status.names.registered, status.names.old, status.names.limit
        ),
    )?;
    row(
        "services",
        format!("{} registered, room for {}", status.services.registered, status.services.limit),
    )?;
    row(
        "descriptors",
        format!(
            "{} of {}: {} registered, {} waiting, {} refused",
            status.descriptors.registered + status.descriptors.waiting + status.descriptors.refused,
            status.descriptors.limit,
            status.descriptors.registered,
            status.descriptors.waiting,
            status.descriptors.refused
        ),
    )?;
    if let Some(tunnels) = &status.tunnels {
        row(
            "tunnels",
            format!(
                "{} open, room for {}, {} bytes; {} entries, {} aliases",
                tunnels.open, tunnels.limit, tunnels.bytes, tunnels.entries, tunnels.aliases
            ),
        )?;
    }
    row("look-ups", format!("{} found, {} not found", counters.lookups_found, counters.lookups_not_found))?;
    row(
        "registrations",
        format!(
            "{} made, {} ended, {} refused as duplicates, {} invalid, {} without room, {} evicted",
            counters.registrations,
            counters.unregistrations,
            counters.registrations_duplicate,
            counters.registrations_invalid,
            counters.registrations_full,
            counters.evictions
        ),
    )?;
    row(
        "connections",
        format!(
            "{} accepted, {} malformed, {} forbidden, {} too slow, {} shed",
            counters.connections_accepted,
            counters.malformed,
            counters.forbidden,
            counters.timeouts,
            counters.shed
        ),
    )?;
    for (key, value) in &status.metadata {
        row("metadata", format!("{}={}", printable(key), printable(value)))?;
    }
    if status.warnings.is_empty() {
        row("warnings", output.paint(Colour::Green, "none"))?;
    }
    for warning in &status.warnings {
        row("warning", output.paint(Colour::Yellow, warning))?;
    }
    Ok(())
}

/// How many nodes there are, in words.
pub fn nodes(number: usize) -> String {
    count(number, "node", "nodes")
}
