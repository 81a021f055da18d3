//! `epmd -daemon`: starts in the background like stock epmd.
//!
//! The launcher starts a first process, which starts a second one in a new session and ends. The second process is not a
//! session leader, so it can never get a terminal again, and init adopts it. Like stock epmd, the launcher always returns 0;
//! unlike stock epmd, it returns only once the daemon listens or has given up, so that the next command finds the daemon.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::args::{self, Action, Environment};
use super::server;
use crate::daemon::process::{drop_inherited_descriptors, leave_session, pipe, wait_for_ready};

/// The last argument but one of a process on its way to the background; the last argument is its stage.
pub const STAGE: &str = "-pmd_stage";
/// Leave the session.
const SESSION: &str = "session";
/// Serve.
const SERVE: &str = "serve";

/// How long the launcher waits at most. The daemon needs a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the daemon. `words` are the arguments without the name of the program.
pub fn launch(words: &[String]) -> ExitCode {
    drop_inherited_descriptors();
    let Ok((ready, their_stdout)) = pipe() else { return ExitCode::SUCCESS };
    let mut session = again(words, SESSION);
    session.stdout(their_stdout);
    if let Ok(mut child) = session.spawn() {
        // Now the daemon holds the last copy of the write end of the pipe.
        drop(session);
        let _ = child.wait();
        let _ = wait_for_ready(ready, PATIENCE);
    }
    ExitCode::SUCCESS
}

/// Runs the next stage of a process on its way to the background.
pub fn run_stage(stage: &str, words: &[String]) -> ExitCode {
    if stage == SESSION {
        leave_session();
        rustix::process::umask(rustix::fs::Mode::empty());
        let mut serve = again(words, SERVE);
        serve.current_dir("/").stdout(Stdio::inherit());
        return if serve.spawn().is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    match args::parse(words, &Environment::of_process()) {
        Ok(Action::Serve(options)) => server::run(&options, true),
        _ => ExitCode::FAILURE,
    }
}

fn again(words: &[String], stage: &str) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg0("epmd").args(words).args([STAGE, stage]).stdin(Stdio::null()).stderr(Stdio::null());
    command
}
