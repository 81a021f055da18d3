//! Stock epmd's log: to standard error in the foreground, to the system log in the background.

use std::io::{self, Write};
use std::os::unix::net::UnixDatagram;

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::format::{DefaultFields, FormatEvent, FormatFields, Writer};
use tracing_subscriber::fmt::{self, FmtContext, MakeWriter};
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;

use crate::base::log::panics;
use crate::base::log::writer::{Flush, LogWriter};
use pmd_epmd::server::trace;

/// Facility "user", severity "error", which stock epmd uses for all messages.
const PRIORITY: &str = "<11>";

/// Sets up the log. `debug` is the number of `-d` options; each raises the verbosity. The process keeps the returned
/// value until it exits.
pub fn init(debug: u8, background: bool) -> Option<Flush> {
    let level = match debug {
        0 => Level::WARN,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    // The name table is logged only from the third -d on; messages of libraries are never logged.
    let names = if debug > 2 { Level::TRACE } else { Level::WARN };
    let filter = Targets::new().with_target("pmd", level).with_target(trace::NAMES, names);
    let lines = fmt::layer().fmt_fields(DefaultFields::new());
    // If the log thread cannot be started, the daemon will not start either; writing lines directly lets it report why.
    let writer = if background { None } else { LogWriter::start().ok() };
    let flush = writer.as_ref().map(LogWriter::flush_at_end);
    panics::to_log(writer.clone());
    let lines = match writer {
        _ if background => lines.event_format(StockFormat { clock: false }).with_writer(Syslog).boxed(),
        Some(writer) => lines.event_format(StockFormat { clock: true }).with_writer(writer).boxed(),
        None => lines.event_format(StockFormat { clock: true }).with_writer(io::stderr).boxed(),
    };
    // Fails only if a log was set up earlier, which then remains in use.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    flush
}

/// `epmd: <time in ctime format>: <text>` and CR LF; for the system log, which adds its own time, only the text.
struct StockFormat {
    clock: bool,
}

impl<S, N> FormatEvent<S, N> for StockFormat
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> std::fmt::Result {
        let mut text = String::new();
        context.field_format().format_fields(Writer::new(&mut text), event)?;
        if self.clock {
            let now = jiff::Zoned::now();
            write!(writer, "epmd: {}: {text}\r\n", now.strftime("%a %b %e %H:%M:%S %Y"))
        } else {
            writer.write_str(&text)
        }
    }
}

/// The system log.
#[derive(Debug, Clone, Copy)]
struct Syslog;

impl MakeWriter<'_> for Syslog {
    type Writer = Syslog;

    fn make_writer(&self) -> Syslog {
        Syslog
    }
}

impl Write for Syslog {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut message = format!("{PRIORITY}epmd[{}]: ", std::process::id()).into_bytes();
        message.extend_from_slice(line);
        // The daemon must neither fail if the host has no system log nor block if the system log has stalled; the line
        // is lost instead.
        let _ = UnixDatagram::unbound().and_then(|socket| {
            socket.set_nonblocking(true)?;
            socket.send_to(&message, "/dev/log")
        });
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
