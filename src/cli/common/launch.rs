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

/// Time limit for a daemon to start. It normally takes milliseconds, but longer on a loaded host.
const START: Duration = Duration::from_secs(15);
/// Time limit for a daemon to stop: it gives its connections a few seconds to finish.
const STOP: Duration = Duration::from_secs(15);

/// The arguments that start this daemon in the foreground, valid in any directory.
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

/// The flags for the addresses to listen on and for the relaxed command check.
pub fn flags(bind: &[IpAddr], relaxed: bool) -> Vec<OsString> {
    let bind = bind.iter().flat_map(|address| ["--bind".to_owned(), address.to_string()]);
    bind.chain(relaxed.then(|| "--relaxed-command-check".to_owned())).map(OsString::from).collect()
}

/// Starts a daemon with these arguments in the background and returns its status.
///
/// If the control socket of the new daemon does not answer, the daemon is stopped, so that a failed start leaves
/// nothing running.
pub async fn start(target: &Target, words: &[OsString]) -> Result<Status> {
    // Blocking is fine: this thread has nothing else to do.
    let started = match process::background(words, START) {
        Ok(started) => started,
        Err(error) => return Err(start_failure(error, target).await),
    };
    match with_progress("waiting for the daemon", target.client().status()).await {
        Ok(status) if status.pid == started.pid => Ok(status),
        Ok(status) => {
            terminate(started.pid).await;
            Err(serves_another_port(&status, target))
        }
        Err(error) => {
            terminate(started.pid).await;
            Err(Failure::new(
                Exit::General,
                format!(
                    "the daemon started, but its control socket does not answer, so it was stopped: {error}"
                ),
                "use --socket or PMD_HOME to choose a path that this user can write to",
            ))
        }
    }
}

/// The failure for a control socket that belongs to a daemon on another port.
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

/// Terminates a daemon that was just started.
async fn terminate(pid: u32) {
    let Some(process) = i32::try_from(pid).ok().and_then(|pid| Process::open(pid).ok()) else { return };
    // The daemon runs as the same user, so sending the signal is permitted.
    let _ = process.terminate();
    let _ = process.ended(START).await;
}

async fn start_failure(error: BackgroundError, target: &Target) -> Failure {
    let (exit, hint) = match &error {
        BackgroundError::Ended { code: Some(code), .. } if *code == i32::from(Exit::Conflict.code()) => {
            return port_conflict(&Port::look(target.port).await, target);
        }
        BackgroundError::Ended { code, complaint } => {
            // The daemon wrote this in the format of `Output::failure`, after its notes.
            let line = |prefix: &str| {
                complaint.lines().find_map(|line| line.strip_prefix(prefix)).map(str::to_owned)
            };
            return Failure::new(
                code.map_or(Exit::General, Exit::of_code),
                line("error: ").unwrap_or_else(|| error.to_string()),
                line("hint: ").unwrap_or_else(|| "run `pmd start --foreground` for details".into()),
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

/// Stops the daemon, waits for it to exit, and returns its process id.
pub async fn stop(target: &Target) -> Result<u32> {
    let client = target.client();
    // Opened before the stop request, so that this never waits for a later process with the same id. The id comes from
    // the kernel because the daemon may run in another process namespace and report an id that is not valid here.
    let connection = UnixStream::connect(client.socket()).await.ok();
    let pid = connection.as_ref().and_then(|stream| stream.peer_cred().ok()?.pid());
    let process = pid.and_then(|pid| Process::open(pid).ok());
    drop(connection);
    let stopping = explain(target, client.stop().await).await?;
    let exited = async {
        match &process {
            Some(process) => matches!(process.ended(STOP).await, Ok(true)),
            None => tokio::time::timeout(STOP, wait_for_socket_to_close(target)).await.is_ok(),
        }
    };
    if with_progress("waiting for the daemon to stop", exited).await {
        return Ok(stopping.pid);
    }
    Err(Failure::new(
        Exit::TimedOut,
        format!("the daemon (pid {}) did not stop within {} s", stopping.pid, STOP.as_secs()),
        format!("check its log, or kill it: kill -9 {}", stopping.pid),
    ))
}

/// Waits until the control socket no longer accepts connections.
async fn wait_for_socket_to_close(target: &Target) {
    while UnixStream::connect(&target.socket).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
