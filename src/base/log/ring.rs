//! The latest lines of the log, kept in memory for `pmd debug`, because only the service manager knows where the log goes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Lines that are kept: enough for a few minutes of trouble.
const LINES: usize = 500;
/// Bytes of a line that are kept. With [`LINES`], at most 512 KiB.
const LONGEST: usize = 1024;

/// The lines of this process, the oldest first. A process has only one log.
static RING: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Receives the lines of the log.
#[derive(Debug, Clone, Copy)]
pub struct LogRing;

impl Write for LogRing {
    /// Keeps one line: the log writes each with one call.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let kept = line.get(..LONGEST).unwrap_or(line);
        let text = String::from_utf8_lossy(kept).trim_end().to_owned();
        let mut ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
        if ring.len() >= LINES {
            ring.pop_front();
        }
        ring.push_back(text);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogRing {
    type Writer = LogRing;

    fn make_writer(&self) -> LogRing {
        LogRing
    }
}

/// The lines that are kept, the oldest first.
pub fn recent() -> String {
    let ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
    ring.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_latest_lines_are_kept_and_none_is_long() {
        for number in 0..LINES + 3 {
            LogRing
                .write_all(format!("line {number} {}\n", "x".repeat(number * 10)).as_bytes())
                .expect("memory");
        }
        let recent = recent();
        let lines: Vec<&str> = recent.lines().collect();
        assert_eq!(lines.len(), LINES);
        assert!(lines[0].starts_with("line 3 "), "{}", lines[0]);
        assert!(lines.iter().all(|line| line.len() <= LONGEST));
    }
}
