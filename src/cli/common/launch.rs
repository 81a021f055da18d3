//! Starting and stopping a daemon in the background.

use std::ffi::OsString;
use std::net::IpAddr;
use std::time::Duration;

use tokio::net::UnixStream;

use super::diagnosis::{explain, port_conflict};
use super::exit::Exit;
use super::failure::{Failure, Result};
use super::runtime::with_progress;
use super::target::{ConfigFile, Target};
use crate::cli::args::Global;
use crate::config::paths::Paths;
use crate::control::api::Status;
use crate::daemon::process::{self, BackgroundError};
use crate::takeover::port::Port;
use crate::takeover::process::Process;

/// How long a daemon may take to start. It needs some milliseconds; a loaded host may need longer.
const START: Duration = Duration::from_secs(15);
/// How long a daemon may take to stop: it gives its connections some seconds.
const STOP: Duration = Duration::from_secs(15);

/// The arguments that start this daemon in the foreground from any directory.
pub fn words(global: &Global, target: &Target, bind: &[IpAddr], relaxed: bool) -> Vec<OsString> {
    let mut words: Vec<OsString> = ["start", "--foreground", "--port"].map(OsString::from).to_vec();
    words.push(target.port.to_string().into());
    words.extend(["--socket".into(), target.socket.clone().into_os_string()]);
    let config = ConfigFile::of(global, &Paths::of_process());
    if config.asked_for || config.path.exists() {
        words.extend(["--config".into(), config.path.into_os_string()]);
    }
    words.extend(flags(bind, relaxed));
    words
}

/// The arguments for the addresses to listen on and the commands to allow.
pub fn flags(bind: &[IpAddr], relaxed: bool) -> Vec<OsString> {
    let bind = bind.iter().flat_map(|address| ["--bind".to_owned(), address.to_string()]);
    bind.chain(relaxed.then(|| "--relaxed-command-check".to_owned())).map(OsString::from).collect()
}

/// Starts a daemon with these arguments in the background and returns its status.
///
/// A daemon whose socket does not answer is stopped again: a failed start leaves nothing behind.
pub async fn start(target: &Target, words: &[OsString]) -> Result<Status> {
    // Blocks this thread, which has nothing else to do.
    let started = match process::background(words, START) {
        Ok(started) => started,
        Err(error) => return Err(start_failure(error, target).await),
    };
    match with_progress("waiting for the daemon", target.client().status()).await {
        Ok(status) if status.pid == started.pid => Ok(status),
        Ok(status) => {
            end(started.pid).await;
            Err(serves_another_port(&status, target))
        }
        Err(error) => {
            end(started.pid).await;
            Err(Failure::new(
                Exit::General,
                format!(
                    "the daemon started, but its control socket does not answer, so it was stopped: {error}"
                ),
                "choose a path that this user may write to with --socket or PMD_HOME",
            ))
        }
    }
}

/// The socket leads to a daemon on another port.
pub fn serves_another_port(status: &Status, target: &Target) -> Failure {
    Failure::new(
        Exit::Conflict,
        format!(
            "the pmd behind {} (pid {}) serves port {}, not {}",
            target.socket.display(),
            status.pid,
            status.port,
            target.port
        ),
        "choose another socket with --socket, or another port with --port",
    )
}

/// Ends a daemon that was just started.
async fn end(pid: u32) {
    let Some(process) = i32::try_from(pid).ok().and_then(|pid| Process::open(pid).ok()) else { return };
    // It is a child of this process, so this cannot be refused.
    let _ = process.terminate();
    let _ = process.ended(START).await;
}

async fn start_failure(error: BackgroundError, target: &Target) -> Failure {
    let (exit, hint) = match &error {
        BackgroundError::Ended { code: Some(code), .. } if *code == i32::from(Exit::Conflict.code()) => {
            return port_conflict(&Port::look(target.port).await, target);
        }
        BackgroundError::Ended { code, complaint } => {
            // Written by the other process in the form of `Output::failure`, after its notes.
            let line = |prefix: &str| {
                complaint.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned)
            };
            return Failure::new(
                code.map_or(Exit::General, Exit::of_code),
                line("error: ").unwrap_or_else(|| error.to_string()),
                line("hint: ").unwrap_or_else(|| "see more with `pmd start --foreground`".into()),
            );
        }
        BackgroundError::Late(_) => {
            (Exit::TimedOut, "check whether the host is overloaded, and try `pmd start --foreground`")
        }
        BackgroundError::Spawn(_) => {
            (Exit::General, "check whether the host has run out of memory or processes")
        }
    };
    Failure::new(exit, error.to_string(), hint)
}

/// Stops the daemon, waits until it is gone, and returns its process id.
pub async fn stop(target: &Target) -> Result<u32> {
    let client = target.client();
    // Opened before the daemon is asked to stop, so that no later process is waited for. The daemon's own idea of its
    // process id may be that of another container; the kernel's is right here.
    let connection = UnixStream::connect(client.socket()).await.ok();
    let pid = connection.as_ref().and_then(|stream| stream.peer_cred().ok()?.pid());
    let process = pid.and_then(|pid| Process::open(pid).ok());
    drop(connection);
    let stopping = explain(target, client.stop().await).await?;
    let gone = async {
        match &process {
            Some(process) => matches!(process.ended(STOP).await, Ok(true)),
            None => tokio::time::timeout(STOP, silence(target)).await.is_ok(),
        }
    };
    if with_progress("waiting for the daemon to stop", gone).await {
        return Ok(stopping.pid);
    }
    Err(Failure::new(
        Exit::TimedOut,
        format!("the daemon (pid {}) did not stop within {} s", stopping.pid, STOP.as_secs()),
        format!("look at its log, or kill it: kill -9 {}", stopping.pid),
    ))
}

/// Waits until the control socket no longer answers.
async fn silence(target: &Target) {
    while UnixStream::connect(&target.socket).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
