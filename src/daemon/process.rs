//! Being a process: descriptors, sessions, standard streams, readiness, and starting one in the background.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Tells a daemon that its standard output is the pipe on which its starter waits for [`announce_ready`].
pub const READY_PIPE: &str = "PMD_READY_PIPE";
/// Tells a daemon the process id of its starter, with which it is to end.
pub const STARTER: &str = "PMD_STARTER";
/// What the daemon writes there once it answers requests.
const READY: &[u8] = b"ready\n";
/// How much of the daemon's standard error is kept to explain a failed start.
const MAX_COMPLAINT: u64 = 8 * 1024;
/// Descriptors below which a warning is due: the default of most systems, and less than stock epmd makes use of.
const FEW_DESCRIPTORS: usize = 1024;

/// Raises the soft limit of open descriptors to the hard one and returns what was had.
pub fn raise_descriptor_limit() -> usize {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if limit.current == limit.maximum {
        limit.current
    } else {
        match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(error) => {
                tracing::warn!("cannot raise the limit of open descriptors: {error}");
                limit.current
            }
        }
    };
    let current = current.and_then(|value| usize::try_from(value).ok()).unwrap_or(usize::MAX);
    if current <= FEW_DESCRIPTORS {
        tracing::info!(
            "only {current} descriptors may be open (ulimit -Hn): so many nodes can register, less a few"
        );
    }
    current
}

/// A daemon that was started in the background.
#[derive(Debug)]
pub struct Started {
    /// Its process id.
    pub pid: u32,
}

/// Why a daemon did not start in the background.
#[derive(Debug, thiserror::Error)]
pub enum BackgroundError {
    /// The process could not be made.
    #[error("cannot start the daemon process: {0}")]
    Spawn(#[from] io::Error),
    /// It ended before it was ready.
    #[error("the daemon ended at once: {complaint}")]
    Ended {
        /// Its exit status, if it ended by itself.
        code: Option<i32>,
        /// What it wrote to standard error.
        complaint: String,
    },
    /// It was not ready in time; it was ended.
    #[error("the daemon was not ready within {} s", .0.as_secs())]
    Late(Duration),
}

/// Starts this program with `args` as a daemon and waits until it answers requests.
///
/// The daemon gets a session of its own, `/` as its directory, and none of this process's descriptors but its
/// standard error until it is ready, so that whoever reads this process's output sees its end.
pub fn background(args: &[OsString], patience: Duration) -> Result<Started, BackgroundError> {
    drop_inherited_descriptors();
    let (complaints, their_stderr) = pipe()?;
    let (ready, their_stdout) = pipe()?;
    let mut child = Command::new("/proc/self/exe")
        .arg0("pmd")
        .args(args)
        .env(READY_PIPE, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(their_stdout)
        .stderr(their_stderr)
        .spawn()?;
    match wait_for_ready(ready, patience) {
        Ready::Yes => Ok(Started { pid: child.id() }),
        Ready::Ended => {
            let status = child.wait()?;
            let mut text = String::new();
            // It may have left children that keep the pipe open, but then there is something to read.
            complaints.take(MAX_COMPLAINT).read_to_string(&mut text).ok();
            Err(BackgroundError::Ended { code: status.code(), complaint: text.trim().to_owned() })
        }
        Ready::No => {
            end(&mut child);
            Err(BackgroundError::Late(patience))
        }
    }
}

/// What became of a daemon that was waited for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// It is ready.
    Yes,
    /// It has closed the pipe without saying so.
    Ended,
    /// It has said nothing in time.
    No,
}

/// Waits for the daemon at the other end of `pipe`.
pub fn wait_for_ready(mut pipe: File, patience: Duration) -> Ready {
    use rustix::event::{PollFd, PollFlags, poll};
    let deadline = Instant::now() + patience;
    let mut heard = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(timeout) = left.try_into() else { return Ready::No };
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return Ready::No,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Ready::Ended,
        }
        let mut chunk = [0; 64];
        match pipe.read(&mut chunk) {
            Ok(0) => return Ready::Ended,
            Ok(length) => heard.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ready::Ended,
        }
        if heard.ends_with(READY) {
            return Ready::Yes;
        }
    }
}

/// Tells whoever started this daemon that it is ready, and lets go of that process's pipes.
///
/// `log` takes the place of standard error from now on; without it what is written there is lost.
pub fn announce_ready(log: Option<&Path>) -> io::Result<()> {
    rustix::io::write(rustix::stdio::stdout(), READY)?;
    let null = File::options().write(true).open("/dev/null")?;
    rustix::stdio::dup2_stdout(&null)?;
    match log {
        Some(path) => {
            let file = File::options().create(true).append(true).open(path)?;
            rustix::stdio::dup2_stderr(&file)?;
        }
        None => rustix::stdio::dup2_stderr(&null)?,
    }
    Ok(())
}

/// Whether this process was started by [`background`] and its starter waits.
pub fn starter_waits() -> bool {
    std::env::var_os(READY_PIPE).is_some()
}

/// Makes this process end with the one that has started it, if that one wants it; whether it is still there.
pub fn end_with_starter() -> bool {
    let Some(starter) = std::env::var(STARTER).ok().and_then(|pid| pid.parse().ok()) else { return true };
    // Where the system does not have it, the starter still ends what it has started when it ends in order.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // It may have ended before it was asked for.
    rustix::process::getppid().map(rustix::process::Pid::as_raw_pid) == Some(starter)
}

/// Makes this process independent of the terminal and the session it was started from.
pub fn leave_session() {
    // It can only fail for a leader of a process group, which a child of `background` is not.
    let _ = rustix::process::setsid();
}

/// Sees to it that no program started from here inherits a descriptor that this process has inherited itself:
/// callers such as Erlang's `os:cmd` wait until all copies of their pipe are closed.
pub fn drop_inherited_descriptors() {
    close_fds::set_fds_cloexec(3, &[]);
}

/// A pipe as (reading end, writing end), not inherited except on purpose.
pub fn pipe() -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((File::from(reader), writer))
}

fn end(child: &mut Child) {
    // It may have ended by itself in between.
    let _ = child.kill();
    let _ = child.wait();
}
