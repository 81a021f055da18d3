//! The guardian of a claim: a process of its own that holds it and kills what depends on it in time.
//!
//! It needs neither the daemon nor the command line to do that: it knows when the lease ends by the clock that also counts
//! while the host is suspended, it has a session of its own, so what stops or ends the command line does not reach it,
//! and SIGKILL also ends stopped processes. When the command line ends, for whatever reason, it kills the command's
//! process group as well, and releases the claim only then. If the guardian itself is killed, the command line kills
//! the command. If both are killed at once, the kernel kills the command, but not its children, and the daemon keeps the
//! claim until the lease is over.
//!
//! The command begins only after the guardian knows its process group: `claim-exec` is the first program of the group, and
//! waits until then.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use rustix::io::Errno;
use rustix::process::{
    Pid, Signal, getppid, kill_process_group, set_parent_process_death_signal, setsid,
    test_kill_process_group,
};
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create, timerfd_settime,
};
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;

use super::common::runtime::block_on_uninterrupted;
use super::common::signals::Signals;
use super::common::{Exit, Failure, Result, note};
use crate::base::clock::boot_ms;
use crate::base::text::printable;
use crate::control::api::{ClaimHeld, ENDED_REVOKED, NewClaim, ReleaseClaim};
use crate::control::client::{ClaimUpdate, Client, HeldClaim};

/// The command of the guardian, for `pmd claim` alone: control socket, claim.
pub const GUARD: &str = "claim-guard";
/// The command that becomes the user's command: parent, the file from which it reads that it may, program, arguments.
pub const EXEC: &str = "claim-exec";
/// How long a killed process group may take to disappear.
const GONE: Duration = Duration::from_secs(5);

/// How long the daemon has to release the claim. One that is stopped lets the lease end.
const RELEASED: Duration = Duration::from_secs(2);

/// What the guardian says on standard output, as lines of JSON.
#[derive(Debug, Serialize, Deserialize)]
pub enum Said {
    /// The claim is held.
    Held(ClaimHeld),
    /// It is not granted.
    Failed {
        /// The exit code.
        exit: i32,
        /// The error code.
        code: String,
        /// What went wrong.
        message: String,
        /// What to do next.
        hint: String,
    },
    /// The process group of the command is known, and the claim is still held: the command may begin.
    Watched,
    /// The claim is over, and the command was told to end.
    Lost(String),
}

/// Runs one of the two hidden commands; none if the arguments are not those of one.
pub fn hidden(args: &[OsString]) -> Option<Exit> {
    let (command, rest) = (args.get(1)?, args.get(2..)?);
    if command == EXEC {
        return Some(exec(rest));
    }
    if command != GUARD {
        return None;
    }
    let [socket, claim] = rest else { return Some(Exit::Usage) };
    let Some(claim) = claim.to_str().and_then(|claim| serde_json::from_str(claim).ok()) else {
        return Some(Exit::Usage);
    };
    // Fails only for the leader of a process group, which a child of `pmd claim` is not.
    let _ = setsid();
    let done = block_on_uninterrupted(guard(PathBuf::from(socket), claim));
    Some(done.unwrap_or_else(|failure| failure.exit))
}

/// Replaces this process with the command, which ends with its parent.
fn exec(args: &[OsString]) -> Exit {
    let [parent, gate, program, words @ ..] = args else { return Exit::Usage };
    let parent = parent.to_str().and_then(|parent| parent.parse().ok()).and_then(Pid::from_raw);
    let bound = set_parent_process_death_signal(Some(Signal::KILL));
    // The parent may have ended before that.
    if bound.is_err() || parent.is_none() || getppid() != parent {
        return Exit::General;
    }
    // It ends without a byte if the claim is lost already, or the parent has ended.
    let is_open = std::fs::File::open(gate).is_ok_and(|mut gate| gate.read_exact(&mut [0]).is_ok());
    if !is_open {
        return Exit::General;
    }
    let failure = Failure::command(program, &std::process::Command::new(program).args(words).exec());
    note(&format!("error: {}", failure.message));
    failure.exit
}

/// One of the two moments at which something has to be done. A thread waits for it, because it can do so on the clock that
/// counts while the host is suspended.
struct Alarm(Arc<(OwnedFd, Notify)>);

impl Alarm {
    fn new() -> io::Result<Alarm> {
        let timer = timerfd_create(TimerfdClockId::Boottime, TimerfdFlags::CLOEXEC)?;
        let alarm = Arc::new((timer, Notify::new()));
        let waiting = Arc::clone(&alarm);
        std::thread::Builder::new().spawn(move || {
            // Never fails for a timer that exists; if it did, the command must not be left alone.
            while rustix::io::read(&waiting.0, &mut [0; 8]) == Err(Errno::INTR) {}
            waiting.1.notify_one();
        })?;
        Ok(Alarm(alarm))
    }

    /// Moves the moment.
    fn set(&self, at_boot_ms: u64) -> io::Result<()> {
        let seconds = i64::try_from(at_boot_ms / 1_000).unwrap_or(i64::MAX);
        let nanoseconds = i64::try_from(at_boot_ms % 1_000 * 1_000_000).unwrap_or_default();
        let zero = Timespec { tv_sec: 0, tv_nsec: 0 };
        let time =
            Itimerspec { it_interval: zero, it_value: Timespec { tv_sec: seconds, tv_nsec: nanoseconds } };
        timerfd_settime(&self.0.0, TimerfdTimerFlags::ABSTIME, &time)?;
        Ok(())
    }

    async fn rings(&self) {
        self.0.1.notified().await;
    }
}

async fn guard(socket: PathBuf, claim: NewClaim) -> Result<Exit> {
    // What ends all processes of a service at once must not end this one before the command. Its end is that of its input.
    let _signals = Signals::new()?;
    let client = Client::new(socket);
    let mut orders =
        BufReader::new(Receiver::from_owned_fd(io::stdin().as_fd().try_clone_to_owned()?)?).lines();
    let held = {
        let mut asked = pin!(client.hold_claim(&claim));
        tokio::select! {
            held = asked.as_mut() => held,
            // The command line has ended.
            _ = orders.next_line() => return Ok(Exit::Done),
        }
    };
    let mut claim_held = match held {
        Ok(held) => held,
        Err(error) => {
            let failure = Failure::from(error);
            let Failure { exit, code, message, hint } = failure;
            say(&Said::Failed { exit: exit.code().into(), code, message, hint });
            return Ok(exit);
        }
    };
    let (lost, dead) = (Alarm::new()?, Alarm::new()?);
    let arm = |held: &ClaimHeld| lost.set(held.lost_at_boot_ms).and_then(|()| dead.set(held.dead_at_boot_ms));
    arm(&claim_held.held)?;
    say(&Said::Held(claim_held.held.clone()));
    let mut group = None;
    let mut lost_ms = claim_held.held.lost_at_boot_ms;
    let (mut is_lost, mut is_dead) = (false, false);
    loop {
        let reason = tokio::select! {
            // The order matters after a suspension: first what has to be killed.
            biased;
            () = dead.rings(), if !is_dead => {
                is_dead = true;
                kill(group, Signal::KILL);
                continue;
            }
            () = lost.rings(), if !is_lost => "it was not renewed in time",
            order = orders.next_line() => match order {
                Ok(Some(line)) => {
                    group = line.trim().parse().ok().and_then(Pid::from_raw);
                    if is_dead {
                        kill(group, Signal::KILL);
                    } else if is_lost {
                        kill(group, Signal::TERM);
                    } else if group.is_some() && boot_ms() < lost_ms {
                        say(&Said::Watched);
                    }
                    continue;
                }
                _ => break,
            },
            update = claim_held.next(), if !is_lost => match update {
                Some(ClaimUpdate::Renewed(held)) => {
                    lost_ms = held.lost_at_boot_ms;
                    arm(&held)?;
                    continue;
                }
                // Somebody else may hold it already.
                Some(ClaimUpdate::Ended(reason)) if reason == ENDED_REVOKED => {
                    is_dead = true;
                    "the voters do not know it any more"
                }
                Some(ClaimUpdate::Ended(_)) => "it was not renewed in time",
                None => "the daemon has stopped",
            },
        };
        is_lost = true;
        kill(group, if is_dead { Signal::KILL } else { Signal::TERM });
        say(&Said::Lost(reason.to_owned()));
    }
    end(&client, &claim, &claim_held, group).await;
    Ok(Exit::Done)
}

/// Kills what is left of the command, and releases the claim once nothing is.
async fn end(client: &Client, claim: &NewClaim, held: &HeldClaim, group: Option<Pid>) {
    kill(group, Signal::KILL);
    let gone = async {
        // A process that may not be killed is there as well.
        while group.is_some_and(|group| test_kill_process_group(group) != Err(Errno::SRCH)) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    if tokio::time::timeout(GONE, gone).await.is_ok() {
        let release = ReleaseClaim { name: claim.name.clone(), number: held.held.number };
        // If the daemon does not answer, the lease ends by itself.
        let _ = client.clone().with_timeout(RELEASED).release_claim(&release).await;
    } else {
        note(&format!(
            "error: the command of {} was not killed, so the claim is not released before its lease is over; end what is \
             left of process group {}, and run commands that this user may kill",
            printable(&claim.name),
            group.map_or(0, Pid::as_raw_pid)
        ));
    }
}

fn kill(group: Option<Pid>, signal: Signal) {
    if let Some(group) = group {
        // Fails if the group has ended.
        let _ = kill_process_group(group, signal);
    }
}

fn say(said: &Said) {
    use std::io::Write;
    // Nobody reads it any more if the command line has ended.
    let mut out = io::stdout().lock();
    let _ = writeln!(out, "{}", serde_json::to_string(said).unwrap_or_default()).and_then(|()| out.flush());
}
