//! `pmd register` and `pmd unregister`.

use std::ffi::OsString;
use std::future::pending;
use std::io::ErrorKind;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};
use tokio::signal::unix::{self, SignalKind, signal};

use super::args::Register;
use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::{Failure, Result};
use super::common::output::{Output, note};
use super::common::runtime::{block_on, block_on_uninterrupted};
use super::common::target::Target;
use crate::base::text::printable;
use crate::config::types::Port;
use crate::control::api::NewService;
use crate::control::client::{Client, ClientError, Held};

/// Pause between attempts to register again with a daemon that has gone: that of an Erlang node.
const AGAIN: Duration = Duration::from_secs(2);
/// What shells end with if a command is not there, or cannot be run.
const NO_SUCH_COMMAND: u8 = 127;
const NOT_A_COMMAND: u8 = 126;

/// Registers a service, if need be for as long as a command runs.
pub fn run(target: &Target, args: Register, output: Output) -> Result<Exit> {
    let service = NewService {
        name: args.name,
        port: Port::get(args.service_port),
        metadata: args.meta.into_iter().collect(),
        ttl_ms: args.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX).max(1)),
    };
    match args.command.split_first() {
        Some((program, words)) => block_on_uninterrupted(run_command(target, service, program, words)),
        None => block_on(async {
            let info = explain(target, target.client().register(&service).await).await?;
            output.one(&info, |out| {
                writeln!(out, "{} is registered with port {}", printable(&info.name), info.port)
            })?;
            Ok(Exit::Done)
        }),
    }
}

/// Ends a service.
pub fn unregister(target: &Target, name: &str, output: Output) -> Result<Exit> {
    block_on(async {
        let info = explain(target, target.client().unregister(name).await).await?;
        output.one(&info, |out| {
            writeln!(out, "{} is no longer registered (it had port {})", printable(&info.name), info.port)
        })?;
        Ok(Exit::Done)
    })
}

async fn run_command(
    target: &Target,
    service: NewService,
    program: &OsString,
    words: &[OsString],
) -> Result<Exit> {
    let mut signals = Signals::new()?;
    let client = target.client();
    // First, so that a name that is taken keeps the command from running.
    let held = explain(target, client.hold(&service).await).await?;
    let mut child = Command::new(program).args(words).spawn().map_err(|error| {
        let code = if error.kind() == ErrorKind::NotFound { NO_SUCH_COMMAND } else { NOT_A_COMMAND };
        let message = format!("cannot run {}: {error}", program.display());
        Failure {
            code: "command".into(),
            ..Failure::new(Exit::Command(code), message, "check the name and the PATH")
        }
    })?;
    let mut kept = std::pin::pin!(keep(client, service, held));
    loop {
        tokio::select! {
            status = child.wait() => return Ok(Exit::of_command(status?)),
            signal = signals.next() => forward(signal, &child),
            () = kept.as_mut() => {}
        }
    }
}

/// Keeps a service registered over restarts of the daemon. Never ends.
async fn keep(client: Client, service: NewService, mut held: Held) {
    let name = printable(&service.name).into_owned();
    loop {
        if held.ended().await.is_some() {
            note(&format!("note: somebody has unregistered {name}; the command goes on without"));
            return pending().await;
        }
        note(&format!("note: the daemon has gone; registering {name} again as soon as it is back"));
        let mut told = false;
        held = loop {
            tokio::time::sleep(AGAIN).await;
            match client.hold(&service).await {
                Ok(held) => break held,
                Err(error @ ClientError::Api { .. }) if !told => {
                    note(&format!("note: {name} cannot be registered again, trying on: {error}"));
                    told = true;
                }
                Err(_) => {}
            }
        };
        note(&format!("note: {name} is registered again"));
    }
}

/// The signals that are meant for the command.
#[derive(Debug)]
struct Signals {
    terminate: unix::Signal,
    interrupt: unix::Signal,
    hangup: unix::Signal,
}

impl Signals {
    fn new() -> Result<Signals> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> Signal {
        tokio::select! {
            _ = self.terminate.recv() => Signal::TERM,
            _ = self.interrupt.recv() => Signal::INT,
            _ = self.hangup.recv() => Signal::HUP,
        }
    }
}

fn forward(signal: Signal, child: &Child) {
    // A terminal tells every process of its foreground group, the command included; twice would be once too
    // often for those that take the second Ctrl-C for impatience.
    if signal != Signal::TERM && is_in_foreground() {
        return;
    }
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // It may have ended in between.
        let _ = kill_process(pid, signal);
    }
}

/// Whether this process belongs to the group that its terminal sends signals to (proc_pid_stat(5): pgrp, tpgid).
fn is_in_foreground() -> bool {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return false };
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    matches!(fields.as_slice(), [_, _, group, _, _, terminal, ..] if group == terminal)
}
