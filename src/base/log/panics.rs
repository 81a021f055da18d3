//! Writes panics to the log, where log collectors and `pmd debug` find them.
//!
//! By default, Rust prints them directly to standard error. If that is blocked, the thread would block in its panic
//! handler, and its end would go unnoticed.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

use tracing::Level;

use super::writer::LogWriter;

/// Installs a panic hook that logs panics and flushes `writer` before the thread or process ends.
pub fn to_log(writer: Option<LogWriter>) {
    let print = panic::take_hook();
    panic::set_hook(Box::new(move |panic| {
        if tracing::enabled!(Level::ERROR) {
            write(panic);
        } else {
            print(panic);
        }
        if let Some(writer) = &writer {
            writer.flush();
        }
    }));
}

fn write(panic: &PanicHookInfo<'_>) {
    let current = std::thread::current();
    let name = current.name().unwrap_or("unnamed");
    let what = panic.to_string().replacen(":\n", ": ", 1);
    // Captured only if RUST_BACKTRACE is set.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!("thread {name} {what}\n{backtrace}");
    } else {
        tracing::error!("thread {name} {what}");
    }
}
