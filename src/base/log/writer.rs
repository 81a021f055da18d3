//! Writes log lines on a thread of its own, so that a thread that logs never waits for whoever reads the log.
//!
//! When the journal stalls, or nobody reads the pipe behind standard error, writing blocks; the threads that serve the EPMD
//! port would then stop at their next log line. Lines wait in a bounded queue instead. When it is full, lines are lost
//! until half of it has been written, and one line then says how many.
//!
//! `tracing-appender` does the same for other needs: it bounds the number of lines but not their bytes, tells nobody how
//! many it has lost, and cannot be flushed while it is in use, which a panic needs.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use tracing_subscriber::fmt::MakeWriter;

/// Bytes that can wait to be written: some hundred lines.
const CAPACITY: usize = 64 * 1024;
/// Most bytes of one write: as many as a pipe takes in one piece (PIPE_BUF).
const CHUNK: usize = 4096;
/// Bytes of memory that the queue keeps while it is empty.
const KEPT: usize = 2 * CHUNK;
/// How long the end of the process, or of a thread that panics, waits for lines to be written.
const FLUSH: Duration = Duration::from_secs(1);
/// How often a standard error that does not block is tried again; another file may have taken its place.
const RETRY: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Takes log lines, each with one call of `write`.
#[derive(Debug, Clone, Default)]
pub struct LogWriter(Arc<Shared>);

/// Waits at its end until the lines before it are written, but not for long.
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
    /// Lines that were lost since the last report.
    lost: u64,
    /// Whether everything was written and the thread waits for more.
    idle: bool,
}

impl LogWriter {
    /// Starts the thread that writes to standard error.
    ///
    /// # Errors
    ///
    /// If the system has no thread left.
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

    /// Waits until all lines are written, but at most a second.
    pub fn flush(&self) {
        let queue = self.0.queue();
        let _ = self.0.emptied.wait_timeout_while(queue, FLUSH, |queue| !queue.idle);
    }

    /// Flushes when the returned value is dropped.
    pub fn flush_at_end(&self) -> Flush {
        Flush(self.clone())
    }

    fn push(&self, line: &[u8]) {
        let mut queue = self.0.queue();
        // After a loss nothing is taken until it was reported: the report stands where the lines are missing.
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

    /// The thread: it ends with the process.
    fn run(&self, mut output: impl Write, report: impl Fn(u64)) {
        let mut chunk = [0; CHUNK];
        loop {
            let length = self.next(&mut chunk);
            // There is nobody who could be told that the log cannot be written.
            let _ = output.write_all(chunk.get(..length).unwrap_or_default());
            let lost = self.queue().take_lost();
            if lost > 0 {
                report(lost);
            }
        }
    }

    /// Waits for text and takes some of it.
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
    /// Whole lines, as far as they fit.
    fn take(&mut self, chunk: &mut [u8; CHUNK]) -> usize {
        let most = self.text.len().min(CHUNK);
        let last = self.text.range(..most).rposition(|byte| *byte == b'\n');
        let length = last.map_or(most, |last| last + 1);
        // It has as many bytes.
        let _ = self.text.read_exact(chunk.get_mut(..length).unwrap_or_default());
        length
    }

    /// How many lines were lost, once there is room for the line that says so.
    fn take_lost(&mut self) -> u64 {
        if self.text.len() <= CAPACITY / 2 { std::mem::take(&mut self.lost) } else { 0 }
    }
}

/// Descriptor 2, whatever it is at the moment. It is not locked, so that a thread that panics does not wait for this one.
struct StandardError;

impl Write for StandardError {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let stderr = rustix::stdio::stderr();
        loop {
            match rustix::io::write(stderr, text) {
                // Whoever shares it has made it so.
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

    /// Tells of each write, which takes until there is an answer.
    struct Stage {
        written: Sender<String>,
        go_on: Receiver<()>,
    }

    impl Write for Stage {
        fn write(&mut self, text: &[u8]) -> io::Result<usize> {
            let _ = self.written.send(String::from_utf8_lossy(text).into_owned());
            // Without a sender nobody holds it up any more.
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
            // The test has ended.
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
    fn nobody_waits_and_what_is_lost_is_counted() {
        let (log, writes, go, reports) = start();
        let line = format!("{}\n", "x".repeat(99));
        log.push(line.as_bytes());
        assert_eq!(writes.recv(), Ok(line.clone()), "the first write does not return");
        let fit = CAPACITY / line.len();
        for _ in 0..fit + 41 {
            log.push(line.as_bytes());
        }
        log.push(b"short\n");
        // It is reported when there is room, and not before.
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
    fn an_output_that_blocks_does_not_hold_up_the_end_for_long() {
        let (log, writes, _go, _) = start();
        log.push(b"line\n");
        assert_eq!(writes.recv().as_deref(), Ok("line\n"));
        drop(log.flush_at_end());
        assert!(!log.0.queue().idle);
    }
}
