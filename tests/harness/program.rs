//! Programs under test: they end with the test, and their output is printed if it fails.

use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::{PATIENCE, wait_within};

/// A program that runs alongside the test.
#[derive(Debug)]
pub struct Program {
    child: Child,
    what: String,
    logs: TempDir,
    /// Whether its output is printed if the test fails.
    loud: bool,
}

impl Program {
    /// Starts `command` with no standard input and both outputs in files.
    pub fn spawn(command: Command) -> Program {
        Program::spawn_with(command, Stdio::null())
    }

    /// Starts `command` like [`Program::spawn`], but with a standard input that [`Program::say`] writes to and that is
    /// closed at the end of the test.
    pub fn spawn_listening(command: Command) -> Program {
        Program::spawn_with(command, Stdio::piped())
    }

    /// Starts `command` like [`Program::spawn`], but with this standard input.
    pub fn spawn_with(mut command: Command, input: Stdio) -> Program {
        let logs = TempDir::new().expect("a directory for the logs");
        let file = |name: &str| File::create(logs.path().join(name)).expect("a log file");
        let what = format!("{command:?}");
        let child = command
            .stdin(input)
            .stdout(file("stdout"))
            .stderr(file("stderr"))
            .spawn()
            .unwrap_or_else(|error| panic!("starting {what}: {error}"));
        Program { child, what, logs, loud: true }
    }

    /// Starts `command` with no input, no standard output, and this standard error.
    pub fn spawn_complaining_to(mut command: Command, stderr: Stdio) -> Program {
        let what = format!("{command:?}");
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr).spawn();
        Program::adopt(child.unwrap_or_else(|error| panic!("starting {what}: {error}")), &what)
    }

    /// Takes ownership of a process that was started elsewhere.
    pub fn adopt(child: Child, what: &str) -> Program {
        let logs = TempDir::new().expect("a directory for the logs");
        Program { child, what: what.to_owned(), logs, loud: true }
    }

    /// Disables printing its output when the test fails, because its owner does that.
    pub fn quietly(mut self) -> Program {
        self.loud = false;
        self
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The command it was started with.
    pub fn what(&self) -> &str {
        &self.what
    }

    /// Writes a line to its standard input. Errors are ignored: the caller waits for the answer and reports more
    /// context if there is none.
    pub fn say(&mut self, line: &str) {
        let input = self.child.stdin.as_mut().expect("a program started to listen");
        let _ = writeln!(input, "{line}");
    }

    /// Its standard output so far.
    pub fn stdout(&self) -> String {
        self.read("stdout")
    }

    /// Its standard error so far.
    pub fn stderr(&self) -> String {
        self.read("stderr")
    }

    fn read(&self, name: &str) -> String {
        let path: PathBuf = self.logs.path().join(name);
        String::from_utf8_lossy(&std::fs::read(path).unwrap_or_default()).into_owned()
    }

    /// Waits until `text` appears in its standard output or error.
    pub fn wait_for_text(&self, text: &str) {
        wait_within(PATIENCE, &format!("{text:?} from {}", self.what), || {
            self.stdout().contains(text) || self.stderr().contains(text)
        });
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("asking for the exit status").is_none()
    }

    /// Waits for it to exit.
    pub fn wait(&mut self, patience: Duration) -> ExitStatus {
        let mut status = None;
        let what = format!("the end of {}", self.what);
        wait_within(patience, &what, || {
            status = self.child.try_wait().expect("asking for the exit status");
            status.is_some()
        });
        status.expect("it has ended")
    }

    /// Sends a signal to the process only, not to its group.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(i32::try_from(self.pid()).expect("a pid")).expect("a pid");
        kill_process(pid, signal).unwrap_or_else(|error| panic!("signalling {}: {error}", self.what));
    }

    /// Stops the process and waits until it has stopped: it sees everything that happens meanwhile at once when thawed.
    pub fn freeze(&self) {
        self.signal(Signal::STOP);
        wait_within(PATIENCE, &format!("{} to stop", self.what), || {
            let status = self.proc("stat").unwrap_or_default();
            status.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('T'))
        });
    }

    /// Continues a process that was frozen.
    pub fn thaw(&self) {
        self.signal(Signal::CONT);
    }

    /// The resident memory of the process, in KiB.
    pub fn resident_memory(&self) -> usize {
        let status = self.proc("status").expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a running process");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    fn proc(&self, file: &str) -> std::io::Result<String> {
        std::fs::read_to_string(format!("/proc/{}/{file}", self.pid()))
    }

    /// Kills the process with SIGKILL and waits for its exit.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        self.kill();
        if self.loud && std::thread::panicking() {
            eprintln!("---- {}\n-- stdout\n{}\n-- stderr\n{}", self.what, self.stdout(), self.stderr());
        }
    }
}

/// A full pipe, to which writes block until it is read from: a non-blocking reader, and the writer.
pub fn full_pipe() -> (File, OwnedFd) {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).expect("a pipe");
    rustix::io::ioctl_fionbio(&reader, true).expect("a pipe");
    rustix::io::ioctl_fionbio(&writer, true).expect("a pipe");
    while rustix::io::write(&writer, &[b'\n'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).expect("a pipe");
    (reader.into(), writer)
}

/// Runs `command` to its end and returns its output; panics if it does not end within [`PATIENCE`].
pub fn run(command: Command) -> Output {
    run_within(PATIENCE, command)
}

/// [`run`] with a longer timeout.
pub fn run_within(patience: Duration, command: Command) -> Output {
    let mut program = Program::spawn(command);
    let status = program.wait(patience);
    let read = |name: &str| std::fs::read(program.logs.path().join(name)).unwrap_or_default();
    Output { status, stdout: read("stdout"), stderr: read("stderr") }
}
