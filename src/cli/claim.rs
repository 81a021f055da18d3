//! `pmd claim`: runs a command while this host holds a claim.
//!
//! ```text
//!   pmd claim ──▶ pmd claim-guard   holds the claim; kills the command's process group when its time is over
//!       └──────▶ claim-exec ──▶ command   in a process group of its own; killed by the kernel if pmd claim is
//! ```
//!
//! See [`claim_guard`](super::claim_guard).

use std::ffi::OsString;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

use super::args::{Claim, ClaimAction};
use super::claim_guard::{EXEC, GUARD, Said};
use super::claims;
use super::common::runtime::block_on_uninterrupted;
use super::common::signals::Signals;
use super::common::{Exit, Failure, Output, Result, Target, block_on, explain, note};
use crate::base::text::printable;
use crate::control::api::{ClaimHeld, NewClaim};

/// Claims a name.
pub fn run(target: &Target, args: Claim, output: Output) -> Result<Exit> {
    if let Some(ClaimAction::Check { name, number }) = args.action {
        return claims::check(target, &name, number, output);
    }
    let milliseconds = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let claim = NewClaim {
        name: args.name.unwrap_or_default(),
        ttl_ms: Some(u32::try_from(args.ttl.as_millis()).unwrap_or(u32::MAX)),
        wait_ms: if args.r#try { Some(0) } else { args.wait.map(milliseconds) },
        guarded: true,
    };
    // The guardian reports only what the daemon answers; why there is no daemon is explained here.
    block_on(async {
        explain(target, target.client().health(false).await).await?;
        Ok(Exit::Done)
    })?;
    block_on_uninterrupted(hold(target, claim, &args.command, output))
}

async fn hold(target: &Target, claim: NewClaim, command: &[OsString], output: Output) -> Result<Exit> {
    // From now on, signals end the command, and not only this process.
    let mut signals = Signals::new()?;
    let program = std::env::current_exe()?;
    let mut guard = Command::new(&program)
        .arg(GUARD)
        .arg(&target.socket)
        .arg(serde_json::to_string(&claim).unwrap_or_default())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let (Some(mut orders), Some(said)) = (guard.stdin.take(), guard.stdout.take()) else {
        return Err(Failure::new(Exit::General, "cannot talk to the guardian", "free file descriptors"));
    };
    let mut said = BufReader::new(said).lines();
    let held = tokio::select! {
        held = granted(&mut said) => held?,
        signal = signals.next() => {
            drop(orders);
            let _ = guard.wait().await;
            // The command has not run.
            return Ok(Exit::Command(u8::try_from(128 + signal.as_raw()).unwrap_or(1)));
        }
    };
    let name = printable(&claim.name).into_owned();
    let Some((first, words)) = command.split_first() else {
        output.one(&held, |out| writeln!(out, "{name} is held with number {}", held.number))?;
        let exit = tokio::select! {
            signal = signals.next() => if signal == Signal::INT { Exit::Interrupted } else { Exit::Done },
            lost = lost(&mut said) => {
                note(&format!("error: {name} is lost: {lost}"));
                Exit::Conflict
            }
        };
        drop(orders);
        let _ = guard.wait().await;
        return Ok(exit);
    };
    let (gate, opener) = std::io::pipe()?;
    let own = std::process::id();
    let mut child = Command::new(&program)
        .arg(EXEC)
        .arg(own.to_string())
        .arg(format!("/proc/{own}/fd/{}", gate.as_raw_fd()))
        .arg(first)
        .args(words)
        .env("PMD_CLAIM", &claim.name)
        .env("PMD_CLAIM_NUMBER", held.number.to_string())
        .process_group(0)
        .spawn()?;
    let group = group_of(&child);
    if let Some(group) = group {
        // If the guardian has just ended, so does the command below.
        let _ = orders.write_all(format!("{}\n", group.as_raw_pid()).as_bytes()).await;
    }
    // The command begins when the guardian knows its group, and never if the claim is over by then.
    let mut opener = Some(opener);
    let (mut is_begun, mut is_lost, mut is_guarded) = (false, false, true);
    let status = loop {
        tokio::select! {
            status = child.wait() => break status?,
            signal = signals.next() => send(group, signal),
            said = next(&mut said), if is_guarded => {
                let reason = match said {
                    Some(Said::Watched) => {
                        is_begun = opener.take().is_some_and(|mut opener| opener.write_all(b"!").is_ok());
                        continue;
                    }
                    Some(Said::Lost(reason)) => reason,
                    Some(_) => continue,
                    None => {
                        is_guarded = false;
                        send(group, Signal::KILL);
                        GUARD_GONE.to_owned()
                    }
                };
                opener = None;
                is_lost = true;
                note(&format!("error: {name} is lost: {reason}; the command is told to end"));
            }
        }
    };
    // The guardian kills what is left of the group, releases the claim, and ends.
    drop(orders);
    while is_guarded && let Some(said) = next(&mut said).await {
        is_lost |= matches!(said, Said::Lost(_));
    }
    let _ = guard.wait().await;
    // Nobody may take the work for done.
    let is_unfinished = is_lost && (!is_begun || status.success());
    Ok(if is_unfinished { Exit::Conflict } else { Exit::of_command(status) })
}

/// The reason if the guardian itself has ended.
const GUARD_GONE: &str = "its guardian has ended";

type FromGuard = Lines<BufReader<ChildStdout>>;

async fn granted(said: &mut FromGuard) -> Result<ClaimHeld> {
    match next(said).await {
        Some(Said::Held(held)) => Ok(held),
        Some(Said::Failed { exit, code, message, hint }) => {
            Err(Failure { exit: Exit::of_code(exit), code, message, hint })
        }
        Some(Said::Lost(reason)) => Err(Failure::new(Exit::Conflict, reason, "try again")),
        Some(Said::Watched) | None => Err(Failure::new(Exit::General, GUARD_GONE, "try again")),
    }
}

/// Waits until the claim is lost, and returns why.
async fn lost(said: &mut FromGuard) -> String {
    loop {
        match next(said).await {
            Some(Said::Lost(reason)) => return reason,
            Some(_) => {}
            None => return GUARD_GONE.to_owned(),
        }
    }
}

async fn next(said: &mut FromGuard) -> Option<Said> {
    let line = said.next_line().await.ok()??;
    serde_json::from_str(&line).ok()
}

fn group_of(child: &Child) -> Option<Pid> {
    Pid::from_raw(i32::try_from(child.id()?).ok()?)
}

fn send(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // Fails if the command has just ended.
        let _ = kill_process_group(group, signal);
    }
}
