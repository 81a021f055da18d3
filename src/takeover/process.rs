//! A handle to another process. It is a pidfd, so signals never reach a later process that reuses the id.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

/// A process that was running when this value was created.
#[derive(Debug, Clone)]
pub struct Process(Arc<OwnedFd>);

impl Process {
    /// The process that has this id now.
    pub fn open(pid: i32) -> io::Result<Process> {
        let pid = Pid::from_raw(pid).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Process(Arc::new(pidfd_open(pid, PidfdFlags::empty())?)))
    }

    /// Sends it SIGTERM.
    pub fn terminate(&self) -> io::Result<()> {
        Ok(pidfd_send_signal(&self.0, Signal::TERM)?)
    }

    /// Waits for the process to exit; false if it is still running after `limit`.
    pub async fn ended(&self, limit: Duration) -> io::Result<bool> {
        let process = Arc::clone(&self.0);
        tokio::task::spawn_blocking(move || wait(&process, limit)).await?
    }
}

fn wait(process: &OwnedFd, limit: Duration) -> io::Result<bool> {
    let deadline = Instant::now() + limit;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let timeout = left.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        // The descriptor becomes readable when the process exits.
        match poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&timeout)) {
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_end_of_a_process_is_waited_for() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut child = Command::new("sleep").arg("1000").spawn().expect("a child");
            let pid = i32::try_from(child.id()).expect("a pid");
            let process = Process::open(pid).expect("it is running");
            assert!(!process.ended(Duration::from_millis(1)).await.expect("a pidfd can be polled"));
            process.terminate().expect("a child can be signalled");
            assert!(process.ended(Duration::from_secs(30)).await.expect("a pidfd can be polled"));
            child.wait().expect("the child has exited");
            assert!(Process::open(pid).is_err());
        });
    }
}
