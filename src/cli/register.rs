//! `pmd register` and `pmd unregister`.

use std::ffi::OsString;
use std::future::pending;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use super::args::Register;
use super::common::runtime::block_on_uninterrupted;
use super::common::signals::Signals;
use super::common::{Exit, Failure, Output, Result, Target, block_on, explain, note};
use crate::base::text::printable;
use crate::config::types::Port;
use crate::control::api::NewService;
use crate::control::client::{Client, ClientError, Held};

/// Pause between attempts to register with a restarted daemon, the same as in Erlang nodes.
const RETRY: Duration = Duration::from_secs(2);

/// Registers a service; if a command is given, only while the command runs.
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
                writeln!(out, "{} is registered on port {}", printable(&info.name), info.port)
            })?;
            Ok(Exit::Done)
        }),
    }
}

/// Unregisters a service.
pub fn unregister(target: &Target, name: &str, output: Output) -> Result<Exit> {
    block_on(async {
        let info = explain(target, target.client().unregister(name).await).await?;
        output.one(&info, |out| {
            writeln!(out, "{} is no longer registered (was on port {})", printable(&info.name), info.port)
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
    // These signals are forwarded to the command.
    let mut signals = Signals::new()?;
    let client = target.client();
    // Registers before the command starts, because it must not run if the name is taken.
    let held = explain(target, client.hold(&service).await).await?;
    let mut child = Command::new(program)
        .args(words)
        .spawn()
        .map_err(|error| Failure { code: "command".into(), ..Failure::command(program, &error) })?;
    let mut kept = std::pin::pin!(keep(client, service, held));
    loop {
        tokio::select! {
            status = child.wait() => return Ok(Exit::of_command(status?)),
            signal = signals.next() => forward(signal, &child),
            () = kept.as_mut() => {}
        }
    }
}

/// Keeps a service registered across restarts of the daemon. Never returns.
async fn keep(client: Client, service: NewService, mut held: Held) {
    let name = printable(&service.name).into_owned();
    loop {
        if held.ended().await.is_some() {
            note(&format!("note: {name} was unregistered by another command; this command keeps running"));
            return pending().await;
        }
        note(&format!("note: the daemon has stopped; {name} will be registered again when it is back"));
        let mut reported = false;
        held = loop {
            tokio::time::sleep(RETRY).await;
            match client.hold(&service).await {
                Ok(held) => break held,
                Err(error @ ClientError::Api { .. }) if !reported => {
                    note(&format!("note: cannot register {name} again, still trying: {error}"));
                    reported = true;
                }
                Err(_) => {}
            }
        };
        note(&format!("note: {name} is registered again"));
    }
}

fn forward(signal: Signal, child: &Child) {
    // A terminal signals its whole foreground process group, including the command. Many programs abort on a second
    // Ctrl-C, so the signal must not be sent twice.
    if signal != Signal::TERM && is_in_foreground() {
        return;
    }
    let pid = child.id().and_then(|pid| Pid::from_raw(i32::try_from(pid).ok()?));
    if let Some(pid) = pid {
        // Fails if the command has just exited.
        let _ = kill_process(pid, signal);
    }
}

/// Whether this process is in the foreground process group of its terminal (proc_pid_stat(5): pgrp, tpgid).
fn is_in_foreground() -> bool {
    let Ok(stat) = std::fs::read_to_string("/proc/self/stat") else { return false };
    let Some((_, fields)) = stat.rsplit_once(')') else { return false };
    let fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    matches!(fields.as_slice(), [_, _, group, _, _, terminal, ..] if group == terminal)
}
