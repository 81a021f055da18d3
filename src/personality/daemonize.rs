//! `epmd -daemon`: starts in the background like stock epmd.
//!
//! The launcher starts an intermediate process, which creates a session, starts the daemon in it and exits. The daemon
//! is not a session leader, so it can never acquire a terminal, and init adopts it. Like stock epmd, the launcher
//! always returns 0; unlike stock epmd, it returns only once the daemon listens or has given up, so that the next
//! command finds the daemon.

use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
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

/// The variables with paths, which mean the folder in which the launcher was started. The daemon runs in another one.
const PATHS: [&str; 4] = ["PMD_HOME", "PMD_COOKIE_FILE", "PMD_CONFIG", "PMD_SOCKET"];

/// Starts the daemon. `words` are the arguments without the program name.
pub fn launch(words: &[String]) -> ExitCode {
    drop_inherited_descriptors();
    let Ok((ready, their_stdout)) = pipe() else { return ExitCode::SUCCESS };
    let mut session = stage_command(words, SESSION);
    session.envs(absolute(|key| std::env::var_os(key)));
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

/// The variables with relative paths, made absolute. Empty ones mean nothing.
fn absolute(variable: impl Fn(&str) -> Option<OsString>) -> Vec<(&'static str, PathBuf)> {
    let path = |key| variable(key).filter(|path| Path::new(path).is_relative() && !path.is_empty());
    PATHS.into_iter().filter_map(|key| Some((key, std::path::absolute(path(key)?).ok()?))).collect()
}

/// The name that this process was started by, if it means `epmd`: Erlang starts it by its full path, which stock epmd keeps.
fn own_name() -> OsString {
    let name = std::env::args_os().next();
    name.filter(|name| Path::new(name).file_name().is_some_and(|file| file == "epmd"))
        .unwrap_or_else(|| "epmd".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relative_paths_mean_the_folder_of_the_launcher() {
        let set = |key: &str| match key {
            "PMD_HOME" => Some("state".into()),
            "PMD_COOKIE_FILE" => Some("/etc/pmd/cookie".into()),
            "PMD_CONFIG" => Some(OsString::new()),
            _ => None,
        };
        let here = std::env::current_dir().expect("a folder");
        assert_eq!(absolute(set), [("PMD_HOME", here.join("state"))]);
    }
}
