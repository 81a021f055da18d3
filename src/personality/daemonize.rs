//! `epmd -daemon`: starts in the background like stock epmd.
//!
//! The launcher starts an intermediate process, which creates a session, starts the daemon in it and exits. The daemon
//! is not a session leader, so it can never acquire a terminal, and init adopts it. Like stock epmd, the launcher
//! always returns 0; unlike stock epmd, it returns only once the daemon listens or has given up, so that the next
//! command finds the daemon.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::args::{self, Action, Environment};
use super::server;
use crate::daemon::process::{drop_inherited_descriptors, leave_session, pipe, wait_for_ready};

/// The second-to-last argument of a process that is being daemonized; the last argument is its stage.
pub const STAGE: &str = "-pmd_stage";
/// The stage that creates a session.
const SESSION: &str = "session";
/// The stage that serves.
const SERVE: &str = "serve";

/// How long the launcher waits for the daemon, which normally needs a few milliseconds.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Starts the daemon. `words` are the arguments without the program name.
pub fn launch(words: &[String]) -> ExitCode {
    drop_inherited_descriptors();
    let Ok((ready, their_stdout)) = pipe() else { return ExitCode::SUCCESS };
    let mut session = stage_command(words, SESSION);
    session.stdout(their_stdout);
    if let Ok(mut child) = session.spawn() {
        // Afterwards only the daemon holds the write end of the pipe.
        drop(session);
        let _ = child.wait();
        let _ = wait_for_ready(ready, TIMEOUT);
    }
    ExitCode::SUCCESS
}

/// Runs the given stage of daemonizing.
pub fn run_stage(stage: &str, words: &[String]) -> ExitCode {
    if stage == SESSION {
        leave_session();
        rustix::process::umask(rustix::fs::Mode::empty());
        let mut serve = stage_command(words, SERVE);
        serve.current_dir("/").stdout(Stdio::inherit());
        return if serve.spawn().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match args::parse(words, &Environment::of_process()) {
        Ok(Action::Serve(options)) => server::run(&options, true),
        _ => ExitCode::FAILURE,
    }
}

fn stage_command(words: &[String], stage: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0(own_name()).args(words).args([STAGE, stage]).stdin(Stdio::null()).stderr(Stdio::null());
    command
}

/// The name that this process was started by, if it means `epmd`: Erlang starts it by its full path, which stock epmd keeps.
fn own_name() -> OsString {
    let name = std::env::args_os().next();
    name.filter(|name| Path::new(name).file_name().is_some_and(|file| file == "epmd"))
        .unwrap_or_else(|| "epmd".into())
}
