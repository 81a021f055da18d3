//! Runs a program every 30 seconds that prints addresses of daemons, one per line.
//!
//! This supports any inventory for which pmd has no plugin: a cloud API, a list on a web server, a database. The
//! program is run as the daemon's user, without a shell, with the words of its [`CommandLine`] as arguments. The
//! addresses have the format of [`Find::address`](super::Find::address); empty lines and text after a `#` are ignored.
//! The program must exit with status 0 within [10 seconds](TIMEOUT), after printing at most [64 KiB](MAX_OUTPUT) in
//! [1,000 lines](MAX_LINES). Otherwise its output is ignored, and the first line of its standard error is logged. The
//! program is killed with all its children when it times out or the daemon stops.
//!
//! The program gets only the variables in [`ENVIRONMENT`] of the daemon's environment, which may hold what is meant for
//! the daemon alone: the service manager's sockets, credentials of other programs.

use std::ffi::OsString;
use std::io;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, copy, sink};
use tokio::process::{Child, Command};

use super::{Discovery, DiscoveryError, Find, Finds, Running};
use crate::config::address::{Address, AddressError};
use crate::config::discovery::CommandLine;

/// The plugin's name.
pub const NAME: &str = "exec";
/// Pause between the end of one run and the next.
pub const EVERY: Duration = Duration::from_secs(30);
/// Timeout for one run.
pub const TIMEOUT: Duration = Duration::from_secs(10);
/// Maximum output in bytes: enough for [`MAX_LINES`] lines of 64 bytes.
pub const MAX_OUTPUT: usize = 64 * 1024;
/// Maximum number of output lines. `Candidates` remembers about as many addresses.
pub const MAX_LINES: usize = 1000;
/// The variables of the daemon that the program gets, if they are set: what a program needs to run, and what it needs
/// to ask this daemon.
pub const ENVIRONMENT: [&str; 8] =
    ["PATH", "HOME", "LANG", "PMD_HOME", "PMD_CONFIG", "PMD_SOCKET", "PMD_CLUSTER", "PMD_HOST_NAME"];
/// Bytes of standard error that are searched for the first line.
const MAX_STDERR: u64 = 4096;
/// Maximum number of characters of a line in an error message.
const MAX_QUOTE: usize = 200;

/// Runs a program that prints addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exec {
    command: CommandLine,
    every: Duration,
    timeout: Duration,
}

impl Exec {
    /// Creates a plugin that runs `command` every [30 seconds](EVERY).
    pub fn new(command: CommandLine) -> Exec {
        Exec { command, every: EVERY, timeout: TIMEOUT }
    }

    /// Changes the pause between two runs.
    #[must_use]
    pub fn every(self, every: Duration) -> Exec {
        Exec { every, ..self }
    }

    async fn addresses(&self) -> Result<Vec<String>, ExecError> {
        let mut command = Command::new(self.command.program());
        command
            .args(self.command.arguments())
            .env_clear()
            .envs(environment(|name| std::env::var_os(name)))
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // In its own process group, the program can be killed with its children.
            .process_group(0);
        let mut program = Program(command.spawn().map_err(ExecError::Start)?);
        match tokio::time::timeout(self.timeout, program.run()).await {
            Ok(ended) => parse(&ended?),
            Err(_) => Err(ExecError::Timeout(self.timeout)),
        }
    }
}

impl Discovery for Exec {
    fn name(&self) -> &'static str {
        NAME
    }

    fn run<'a>(&'a self, finds: &'a Finds) -> Running<'a> {
        Box::pin(async move {
            loop {
                let addresses = self.addresses().await.map_err(|error| {
                    DiscoveryError::because(format!("{}: {error}", self.command.program()))
                })?;
                for address in addresses {
                    finds.report(Find::at(address)).await;
                }
                tokio::time::sleep(self.every).await;
            }
        })
    }
}

/// The environment of the program.
fn environment(
    of_daemon: impl Fn(&str) -> Option<OsString>,
) -> impl Iterator<Item = (&'static str, OsString)> {
    ENVIRONMENT.into_iter().filter_map(move |name| Some((name, of_daemon(name)?)))
}

/// Why the output of a run is ignored.
#[derive(Debug, thiserror::Error)]
enum ExecError {
    #[error("cannot be started: {0}")]
    Start(io::Error),
    #[error("cannot read its output: {0}")]
    Read(io::Error),
    #[error("it was killed after {} s", .0.as_secs_f32())]
    Timeout(Duration),
    #[error("it was killed because it printed more than {MAX_OUTPUT} bytes")]
    TooLong,
    #[error("it printed more than {MAX_LINES} lines")]
    TooManyLines,
    #[error("its output is not UTF-8")]
    NotText,
    #[error("line {line} of its output, {text:?}, is not an address: {reason}")]
    Line { line: usize, text: String, reason: AddressError },
    #[error("{status}{message}")]
    Status { status: ExitStatus, message: String },
}

/// The running program. Dropping this kills it and its children.
struct Program(Child);

impl Program {
    /// Waits for the program to exit and returns its output.
    async fn run(&mut self) -> Result<Vec<u8>, ExecError> {
        let (Some(stdout), Some(stderr)) = (self.0.stdout.take(), self.0.stderr.take()) else {
            return Err(ExecError::Read(io::ErrorKind::BrokenPipe.into()));
        };
        let (output, message) = tokio::try_join!(read_output(stdout), read_stderr(stderr))?;
        let status = self.0.wait().await.map_err(ExecError::Read)?;
        if !status.success() {
            return Err(ExecError::Status { status, message });
        }
        Ok(output)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Until the child is waited for, its id is that of the program and its group, even if it has exited. Afterwards
        // there is no id, because it may belong to another process.
        let group = self.0.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            let _ = kill_process_group(group, Signal::KILL);
        }
        // The runtime reaps dropped children.
    }
}

async fn read_output(stdout: impl AsyncRead + Unpin) -> Result<Vec<u8>, ExecError> {
    let mut output = Vec::new();
    let most = u64::try_from(MAX_OUTPUT).unwrap_or(u64::MAX);
    stdout.take(most.saturating_add(1)).read_to_end(&mut output).await.map_err(ExecError::Read)?;
    if output.len() > MAX_OUTPUT {
        return Err(ExecError::TooLong);
    }
    Ok(output)
}

/// Reads the first line, in a form to append to an error message. The rest is read too, or the program would block.
async fn read_stderr(mut stderr: impl AsyncRead + Unpin) -> Result<String, ExecError> {
    let mut text = Vec::new();
    (&mut stderr).take(MAX_STDERR).read_to_end(&mut text).await.map_err(ExecError::Read)?;
    copy(&mut stderr, &mut sink()).await.map_err(ExecError::Read)?;
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().map(str::trim).find(|line| !line.is_empty()).unwrap_or_default();
    let line: String = line.chars().filter(|char| !char.is_control()).take(MAX_QUOTE).collect();
    Ok(if line.is_empty() { line } else { format!(": {line}") })
}

fn parse(output: &[u8]) -> Result<Vec<String>, ExecError> {
    let text = str::from_utf8(output).map_err(|_| ExecError::NotText)?;
    if text.lines().count() > MAX_LINES {
        return Err(ExecError::TooManyLines);
    }
    let mut addresses = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        // The line is only validated here, so any default port will do.
        Address::parse(line, pmd_protocol::limits::DEFAULT_PORT).map_err(|reason| ExecError::Line {
            line: at.saturating_add(1),
            text: line.chars().take(MAX_QUOTE).collect(),
            reason,
        })?;
        addresses.push(line.to_owned());
    }
    Ok(addresses)
}

#[cfg(test)]
mod tests;
