//! `epmd -daemon`: to the background, the way stock goes there.
//!
//! Two processes are started one after the other. The first leaves the session and starts the second, which is
//! therefore no session leader and can never get a terminal again; the first ends, and init adopts the second.
//! The launcher returns 0 whatever happens, but, unlike stock's, only once the daemon listens or has given up,
//! so that whoever runs `epmd -daemon` and then asks it something does not come too early.

use std::os::unix::process::CommandExt;
use std::process::{Command, ExitCode, Stdio};
use std::time::Duration;

use super::args::{self, Action, Environment};
use super::server;
use crate::daemon::process::{drop_inherited_descriptors, leave_session, pipe, wait_for_ready};

/// The last but one word of a process that is on its way to the background; the last one says how far it is.
pub const STAGE: &str = "-pmd_stage";
/// It has to leave the session.
const SESSION: &str = "session";
/// It has to serve.
const SERVE: &str = "serve";

/// How long the launcher waits at most. A daemon needs a few milliseconds.
const PATIENCE: Duration = Duration::from_secs(5);

/// Starts the daemon. `words` are the arguments without the program's name.
pub fn launch(words: &[String]) -> ExitCode {
    drop_inherited_descriptors();
    let Ok((ready, their_stdout)) = pipe() else { return ExitCode::SUCCESS };
    let mut session = again(words, SESSION);
    session.stdout(their_stdout);
    if let Ok(mut child) = session.spawn() {
        // Dropped now, so that the daemon holds the last copy of the pipe's writing end.
        drop(session);
        let _ = child.wait();
        let _ = wait_for_ready(ready, PATIENCE);
    }
    ExitCode::SUCCESS
}

/// Goes on where the process that started this one has stopped.
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
