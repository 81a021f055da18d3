//! Stock epmd's log: to standard error in the foreground, to the system log from the background.

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

/// Facility "user", severity "error": what stock logs with, whatever it says.
const PRIORITY: &str = "<11>";

/// Sets the log up: `debug` is the number of `-d`, which say more the more there are. The process keeps the returned value
/// until it ends.
pub fn init(debug: u8, background: bool) -> Option<Flush> {
    let level = match debug {
        0 => Level::WARN,
        1 => Level::DEBUG,
        _ => Level::TRACE,
    };
    // The runtime's own messages are not stock's.
    let names = if debug > 2 { Level::TRACE } else { Level::WARN };
    let filter = Targets::new().with_target("pmd", level).with_target(trace::NAMES, names);
    let lines = fmt::layer().fmt_fields(DefaultFields::new());
    // Without a thread for the log, lines are written directly: the daemon will not start, and can say why.
    let writer = if background { None } else { LogWriter::start().ok() };
    let flush = writer.as_ref().map(LogWriter::flush_at_end);
    panics::to_log(writer.clone());
    let lines = match writer {
        _ if background => lines.event_format(StockFormat { clock: false }).with_writer(Syslog).boxed(),
        Some(writer) => lines.event_format(StockFormat { clock: true }).with_writer(writer).boxed(),
        None => lines.event_format(StockFormat { clock: true }).with_writer(io::stderr).boxed(),
    };
    // It fails only if a log was set up before, which then stays.
    let _ = tracing_subscriber::registry().with(filter).with(lines).try_init();
    flush
}

/// `epmd: <time as ctime prints it>: <text>`, ended by CR LF; without the time for the system log, which has its
/// own.
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
        // A host without a system log loses the line; the daemon must not end because of that. Nor must it wait for a
        // system log that has stalled.
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
