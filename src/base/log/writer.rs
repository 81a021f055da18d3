//! Writes log lines on a separate thread, so that threads that log never wait for the reader of the log.
//!
//! If the journal stalls, or the pipe behind standard error is not read, writes block, and the threads that serve the
//! EPMD port would stop at their next log line. Instead, lines wait in a bounded queue. When it is full, lines are
//! dropped until half of it has been written, and one line then reports how many were lost.
//!
//! `tracing-appender` does not fit: it limits the number of lines but not their bytes, does not report lost lines, and
//! cannot be flushed while it is in use, which is needed after a panic.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

/// Capacity of the queue in bytes: a few hundred lines.
const CAPACITY: usize = 64 * 1024;
/// Maximum number of bytes per write: as many as a pipe takes atomically (PIPE_BUF).
const CHUNK: usize = 4096;
/// Bytes of memory that the empty queue keeps.
const KEPT: usize = 2 * CHUNK;
/// How long the end of the process, or of a thread that panics, waits for lines to be written.
const FLUSH: Duration = Duration::from_secs(1);
/// Retry interval for a non-blocking standard error, which may be replaced by another file in the meantime.
const RETRY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Queues log lines, each with one call of `write`.
#[derive(Debug, Clone, Default)]
pub struct LogWriter(Arc<Shared>);

/// Flushes the log when it is dropped.
#[derive(Debug)]
pub struct Flush(LogWriter);

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    filled: Condvar,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    text: VecDeque<u8>,
    /// Number of lines lost since the last report.
    lost: u64,
    /// Whether everything has been written and the thread waits for more.
    idle: bool,
}

impl LogWriter {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    ///
    /// If the thread cannot be created.
    pub fn start() -> io::Result<LogWriter> {
        LogWriter::writing_to(StandardError, |lost| {
            tracing::warn!("{lost} log lines were lost: standard error was blocked");
        })
    }

    fn writing_to(
        output: impl Write + Send + 'static,
        report: impl Fn(u64) + Send + 'static,
    ) -> io::Result<LogWriter> {
        let writer = LogWriter::default();
        let shared = Arc::clone(&writer.0);
        std::thread::Builder::new().name("log".into()).spawn(move || shared.run(output, report))?;
        Ok(writer)
    }

    /// Waits until all lines are written, but at most one second.
    pub fn flush(&self) {
        let queue = self.0.queue();
        let _ = self.0.emptied.wait_timeout_while(queue, FLUSH, |queue| !queue.idle);
    }

    /// Returns a guard that flushes when it is dropped.
    pub fn flush_at_end(&self) -> Flush {
        Flush(self.clone())
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue();
        // After a loss, no line is queued until the loss has been reported, so that the report is where the lines are
        // missing.
        if queue.lost > 0 || queue.text.len() + line.len() > CAPACITY {
            queue.lost += 1;
            return;
        }
        queue.text.extend(line);
        if std::mem::take(&mut queue.idle) {
            drop(queue);
            self.0.filled.notify_one();
        }
    }
}

impl Write for &LogWriter {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.push(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = &'a LogWriter;

    fn make_writer(&'a self) -> &'a LogWriter {
        self
    }
}

impl Drop for Flush {
    fn drop(&mut self) {
        self.0.flush();
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The main loop of the thread, which ends with the process.
    fn run(&self, mut output: impl Write, report: impl Fn(u64)) {
        let mut chunk = [0; CHUNK];
        loop {
            let length = self.next(&mut chunk);
            // There is nowhere to report that the log cannot be written.
            let _ = output.write_all(chunk.get(..length).unwrap_or_default());
            let lost = self.queue().take_lost();
            if lost > 0 {
                report(lost);
            }
        }
    }

    /// Waits for text, and moves some of it to `chunk`.
    fn next(&self, chunk: &mut [u8; CHUNK]) -> usize {
        let mut queue = self.queue();
        while queue.text.is_empty() {
            queue.idle = true;
            queue.text.shrink_to(KEPT);
            self.emptied.notify_all();
            queue = self.filled.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
        queue.take(chunk)
    }
}

impl Queue {
    /// Moves the whole lines that fit to `chunk`, and returns their length.
    fn take(&mut self, chunk: &mut [u8; CHUNK]) -> usize {
        let most = self.text.len().min(CHUNK);
        let last = self.text.range(..most).rposition(|byte| *byte == b'\n');
        let length = last.map_or(most, |last| last + 1);
        // This cannot fail: the queue has that many bytes.
        let _ = self.text.read_exact(chunk.get_mut(..length).unwrap_or_default());
        length
    }

    /// The number of lost lines, once there is room for the line that reports it; 0 before.
    fn take_lost(&mut self) -> u64 {
        if self.text.len() <= CAPACITY / 2 { std::mem::take(&mut self.lost) } else { 0 }
    }
}

/// File descriptor 2. Unlike `std::io::Stderr`, it has no lock, so that a thread that panics does not wait for this
/// one.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let stderr = rustix::stdio::stderr();
        loop {
            match rustix::io::write(stderr, text) {
                // Another process that shares the file may have made it non-blocking.
                Err(Errno::AGAIN) => poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], Some(&RETRY))?,
                written => return Ok(written?),
            };
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Reports each write, and blocks until the test allows it to return.
    struct Stage {
        written: Sender<String>,
        go_on: Receiver<()>,
    }

    impl Write for Stage {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.written.send(String::from_utf8_lossy(text).into_owned());
            // Once the sender is dropped, writes no longer block.
            let _ = self.go_on.recv();
            Ok(text.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn start() -> (LogWriter, Receiver<String>, Sender<()>, Receiver<u64>) {
        let (written, writes) = channel();
        let (go, go_on) = channel();
        let (report, reports) = channel();
        let report = move |lost| {
            // This fails if the test has ended.
            let _ = report.send(lost);
        };
        let log = LogWriter::writing_to(Stage { written, go_on }, report).expect("a thread");
        (log, writes, go, reports)
    }

    #[test]
    fn lines_are_written_whole_and_in_order() {
        let (log, writes, go, _) = start();
        log.push(b"first\n");
        assert_eq!(writes.recv().as_deref(), Ok("first\n"));
        let line = format!("{}\n", "x".repeat(CHUNK / 3));
        for _ in 0..4 {
            log.push(line.as_bytes());
        }
        let long = "y".repeat(CHUNK + 1);
        log.push(format!("{long}\n").as_bytes());
        drop(go);
        log.flush();
        let writes: Vec<String> = writes.try_iter().collect();
        assert_eq!(writes, [line.repeat(2), line.repeat(2), "y".repeat(CHUNK), "y\n".to_owned()]);
    }

    #[test]
    fn logging_never_blocks_and_lost_lines_are_counted() {
        let (log, writes, go, reports) = start();
        let line = format!("{}\n", "x".repeat(99));
        log.push(line.as_bytes());
        assert_eq!(writes.recv(), Ok(line.clone()), "the first write does not return");
        let fit = CAPACITY / line.len();
        for _ in 0..fit + 41 {
            log.push(line.as_bytes());
        }
        log.push(b"short\n");
        // The loss is reported only when there is room.
        go.send(()).expect("it listens");
        for write in &writes {
            assert_eq!(write.len() % line.len(), 0);
            let has_room = log.0.queue().text.len() <= CAPACITY / 2;
            assert!(reports.try_recv().is_err());
            go.send(()).expect("it listens");
            if has_room {
                break;
            }
        }
        assert_eq!(reports.recv(), Ok(42));
        log.push(b"later\n");
        drop(go);
        log.flush();
        assert!(writes.try_iter().last().is_some_and(|last| last.ends_with("\nlater\n")));
        assert!(reports.try_recv().is_err());
        assert!(log.0.queue().text.capacity() <= 2 * KEPT);
    }

    #[test]
    fn a_blocked_output_delays_the_end_only_briefly() {
        let (log, writes, _go, _) = start();
        log.push(b"line\n");
        assert_eq!(writes.recv().as_deref(), Ok("line\n"));
        drop(log.flush_at_end());
        assert!(!log.0.queue().idle);
    }
}
