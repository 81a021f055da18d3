//! Panics, written to the log.
//!
//! There, collectors and `pmd debug` find them. Rust would print them directly to standard error: when that is blocked, the
//! thread would block in its panic, and nobody would learn that it is gone.

use std::backtrace::{Backtrace, BacktraceStatus};
use std::panic::{self, PanicHookInfo};

use tracing::Level;

use super::writer::LogWriter;

/// Writes panics to the log from now on, and has `writer` write them before the thread, or the process, ends.
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
    // Captured only if the environment asks for it.
    let backtrace = Backtrace::capture();
    if backtrace.status() == BacktraceStatus::Captured {
        tracing::error!("thread {name} {what}\n{backtrace}");
    } else {
        tracing::error!("thread {name} {what}");
    }
}
