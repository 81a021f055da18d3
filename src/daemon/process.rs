//! Process management: descriptors, sessions, standard streams, readiness and starting the daemon in the background.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::base::files;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The variable that tells a daemon that its standard output is a pipe on which its parent waits for
/// [`announce_ready`].
pub const READY_PIPE: &str = "PMD_READY_PIPE";
/// The variable with the process id of the daemon's parent, if the daemon is to end with it.
pub const STARTER: &str = "PMD_STARTER";
/// The daemon writes this to the pipe once it answers requests.
const READY: &[u8] = b"ready\n";
/// How much of the daemon's standard error is kept to explain a failed start.
const MAX_COMPLAINT: u64 = 8 * 1024;
/// A limit of descriptors up to this one is logged: it is the default of most systems, and less than stock epmd can
/// use.
const FEW_DESCRIPTORS: usize = 1024;

/// Raises the soft limit of open descriptors to the hard one, and returns the resulting limit.
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
            "only {current} file descriptors may be open (ulimit -Hn), which limits how many nodes can register"
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
    /// The process could not be created.
    #[error("cannot start the daemon process: {0}")]
    Spawn(#[from] io::Error),
    /// The daemon exited before it was ready.
    #[error("the daemon exited during startup: {complaint}")]
    Ended {
        /// Its exit status; `None` if a signal killed it.
        code: Option<i32>,
        /// Its output on standard error.
        complaint: String,
    },
    /// The daemon was not ready in time and was killed.
    #[error("the daemon was not ready within {} s", .0.as_secs())]
    Late(Duration),
}

/// Starts this program with `args` as a daemon, and waits until it answers requests.
///
/// The daemon gets its own session, `/` as its working directory, and none of this process's descriptors, so that
/// readers of this process's output see its end.
pub fn background(args: &[OsString], timeout: Duration) -> Result<Started, BackgroundError> {
    drop_inherited_descriptors();
    let (complaints, their_stderr) = pipe()?;
    let (ready, their_stdout) = pipe()?;
    let mut child = Command::new("/proc/self/exe")
        .arg0(own_path("pmd"))
        .args(args)
        .env(READY_PIPE, "1")
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(their_stdout)
        .stderr(their_stderr)
        .spawn()?;
    match wait_for_ready(ready, timeout) {
        Ready::Yes => Ok(Started { pid: child.id() }),
        Ready::Ended => {
            let status = child.wait()?;
            let mut text = String::new();
            // Children of the daemon may keep the pipe open, but an error message has been written by then.
            complaints.take(MAX_COMPLAINT).read_to_string(&mut text).ok();
            Err(BackgroundError::Ended { code: status.code(), complaint: text.trim().to_owned() })
        }
        Ready::No => {
            end(&mut child);
            Err(BackgroundError::Late(timeout))
        }
    }
}

/// The first argument of a process that runs this program: its path, as stock epmd has it; `name` if it has no path any
/// more, or is installed under a name that means something else, because that argument decides between `pmd` and `epmd`.
pub fn own_path(name: &str) -> OsString {
    let path = std::env::current_exe().ok().filter(|path| path.exists());
    let is_epmd = |path: &Path| path.file_name().is_some_and(|file| file == "epmd");
    match path.filter(|path| is_epmd(path) == (name == "epmd")) {
        Some(path) => path.into_os_string(),
        None => name.into(),
    }
}

/// Names this process, which was started through a link in `/proc` and is called like that link.
pub fn set_name() {
    // Only tools that list processes use it.
    let _ = rustix::thread::set_name(c"pmd");
}

/// The result of waiting for a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ready {
    /// The daemon is ready.
    Yes,
    /// The daemon closed the pipe without becoming ready.
    Ended,
    /// The daemon did not become ready in time.
    No,
}

/// Waits until the daemon at the other end of `pipe` is ready.
pub fn wait_for_ready(mut pipe: File, timeout: Duration) -> Ready {
    use rustix::event::{PollFd, PollFlags, poll};
    let deadline = Instant::now() + timeout;
    let mut received = Vec::new();
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let Ok(left) = left.try_into() else { return Ready::No };
        match poll(&mut [PollFd::new(&pipe, PollFlags::IN)], Some(&left)) {
            Ok(0) => return Ready::No,
            Ok(_) => {}
            Err(rustix::io::Errno::INTR) => continue,
            Err(_) => return Ready::Ended,
        }
        let mut chunk = [0; 64];
        match pipe.read(&mut chunk) {
            Ok(0) => return Ready::Ended,
            Ok(length) => received.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return Ready::Ended,
        }
        if received.ends_with(READY) {
            return Ready::Yes;
        }
    }
}

/// Closes the pipes of this daemon's parent, and tells it that the daemon is ready.
///
/// From now on, standard error goes to `log`, or to `/dev/null` without one.
pub fn announce_ready(log: Option<&Path>) -> io::Result<()> {
    let parent = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stdout(), 3)?;
    let null = File::options().write(true).open("/dev/null")?;
    let log = log.map(files::open_log).transpose()?;
    rustix::stdio::dup2_stdout(&null)?;
    rustix::stdio::dup2_stderr(log.as_ref().unwrap_or(&null))?;
    // Last: whoever waits may count on a daemon that is detached.
    rustix::io::write(&parent, READY)?;
    Ok(())
}

/// Whether this process was started by [`background`], which waits for it.
pub fn starter_waits() -> bool {
    std::env::var_os(READY_PIPE).is_some()
}

/// Makes this process end with its parent, if the parent asked for it. Returns false if the parent is gone already.
pub fn end_with_starter() -> bool {
    let Some(starter) = std::env::var(STARTER).ok().and_then(|pid| pid.parse().ok()) else { return true };
    // If the system does not support it, the parent still stops this process in an orderly exit.
    let _ = rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::TERM));
    // The parent may have ended before the signal was set.
    rustix::process::getppid().map(rustix::process::Pid::as_raw_pid) == Some(starter)
}

/// Detaches this process from the terminal and the session in which it was started.
pub fn leave_session() {
    // This fails only for a process group leader, which a child of `background` is not.
    let _ = rustix::process::setsid();
}

/// Prevents programs started by this process from inheriting the descriptors that it inherited itself: callers such as
/// Erlang's `os:cmd` wait until all copies of their pipe are closed.
pub fn drop_inherited_descriptors() {
    close_fds::set_fds_cloexec(3, &[]);
}

/// Creates a close-on-exec pipe, and returns its read end and its write end.
pub fn pipe() -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    Ok((File::from(reader), writer))
}

fn end(child: &mut Child) {
    // This fails if the child has exited in the meantime.
    let _ = child.kill();
    let _ = child.wait();
}
