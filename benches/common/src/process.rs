//! Child processes and their kernel statistics: CPU time, memory, descriptors.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::time::clock_getcpuclockid;
use nix::unistd::Pid;

/// The timeout for a process to start.
const STARTUP_TIMEOUT: Duration = Duration::from_secs(60);

/// A child process that is killed when this value is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    log: Option<PathBuf>,
}

impl Process {
    /// Starts `command` without input and redirects its output to the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> Result<Process> {
        let file = File::create(log)?;
        command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
        let child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        Ok(Process { child, log: Some(log.to_owned()) })
    }

    /// The process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until `ready` returns true, polling every `interval`. Fails with the log if the process exits first or
    /// takes too long.
    pub fn wait_until(&mut self, interval: Duration, mut ready: impl FnMut() -> bool) -> Result<()> {
        let begin = Instant::now();
        while !ready() {
            let exited = self.child.try_wait()?;
            if exited.is_some() || begin.elapsed() > STARTUP_TIMEOUT {
                let state = exited.map_or_else(|| "does not answer".to_owned(), |status| status.to_string());
                let log =
                    self.log.as_ref().and_then(|path| fs::read_to_string(path).ok()).unwrap_or_default();
                bail!("process {} {state}; its output: {log}", self.pid());
            }
            thread::sleep(interval);
        }
        Ok(())
    }

    /// Kills it with SIGKILL and waits for its exit.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl From<Child> for Process {
    fn from(child: Child) -> Process {
        Process { child, log: None }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // This only fails if it has already exited.
        let _ = self.kill();
    }
}

/// The total user and system time of these processes, including threads that have ended.
///
/// Their CPU clocks count nanoseconds. `/proc/PID/stat` counts hundredths of a second, too coarse for short slices, and
/// `/proc/PID/task` forgets the threads that have ended.
pub fn cpu_time(pids: &[u32]) -> Result<Duration> {
    let used = |pid: &u32| -> Result<Duration> {
        let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(*pid)?))
            .with_context(|| format!("CPU time of process {pid}"))?;
        Ok(clock.now()?.into())
    };
    pids.iter().map(used).sum()
}

/// The memory of a process in bytes.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    /// Its resident set.
    pub resident: u64,
    /// Its proportional set, in which pages shared with other processes count in proportion.
    pub proportional: u64,
}

/// Reads the memory of a process. `smaps_rollup` counts pages; `VmRSS` in `status` may be off by several hundred
/// kilobytes, because its counters are kept per CPU.
pub fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let bytes = |field: &str| -> Result<u64> {
        let line = text.lines().find_map(|line| line.strip_prefix(field));
        let kilobytes = line.and_then(|rest| rest.trim().trim_end_matches(" kB").parse::<u64>().ok());
        Ok(kilobytes.with_context(|| format!("{path} has no {field}"))? * 1024)
    };
    Ok(Memory { resident: bytes("Rss:")?, proportional: bytes("Pss:")? })
}

/// The number of descriptors that a process has open.
pub fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
