//! Keeps the latest log lines in memory for `pmd debug`, because only the service manager knows where the log goes.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Mutex, PoisonError};

use tracing_subscriber::fmt::MakeWriter;

/// Number of lines that are kept: enough for a few minutes of trouble.
const LINES: usize = 500;
/// Maximum length of a line in bytes. With [`LINES`], the total is at most 512 KiB.
const LONGEST: usize = 1024;

/// The lines, the oldest first. Static because a process has only one log.
static RING: Mutex<VecDeque<String>> = Mutex::new(VecDeque::new());

/// Writes log lines to the ring.
#[derive(Debug, Clone, Copy)]
pub struct LogRing;

impl Write for LogRing {
    /// Keeps one line; `tracing` writes each line with one call.
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

/// The kept lines, the oldest first.
pub fn recent() -> String {
    let ring = RING.lock().unwrap_or_else(PoisonError::into_inner);
    ring.iter().flat_map(|line| [line.as_str(), "\n"]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_and_length_of_the_lines_are_limited() {
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
