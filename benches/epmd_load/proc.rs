//! What the kernel says about a server process: CPU time, memory, descriptors.

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// CPU time of each thread of a process at one moment.
#[derive(Debug)]
pub(crate) struct CpuReading(HashMap<String, u64>);

impl CpuReading {
    /// First field of every thread's `schedstat`: user and system time in nanoseconds, exact when the thread sleeps.
    /// (`/proc/PID/stat` counts in hundredths of a second, too coarse for slices of a fifth of one.)
    pub(crate) fn take(pid: u32) -> Result<CpuReading> {
        let mut threads = HashMap::new();
        let folder = format!("/proc/{pid}/task");
        for entry in fs::read_dir(&folder).with_context(|| format!("{folder}: has the server ended?"))? {
            let entry = entry?;
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(entry.path().join("schedstat")) else { continue };
            let nanos = text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0);
            threads.insert(entry.file_name().to_string_lossy().into_owned(), nanos);
        }
        if threads.values().all(|nanos| *nanos == 0) {
            bail!("{folder}/*/schedstat gives no CPU time: the kernel lacks CONFIG_SCHED_INFO");
        }
        Ok(CpuReading(threads))
    }

    /// CPU time used from `earlier` to this reading.
    pub(crate) fn since(&self, earlier: &CpuReading) -> Duration {
        let used = |(thread, nanos): (&String, &u64)| {
            nanos.saturating_sub(earlier.0.get(thread).copied().unwrap_or(0))
        };
        Duration::from_nanos(self.0.iter().map(used).sum())
    }
}

/// Resident memory in bytes. `smaps_rollup` counts pages; `VmRSS` of `status` may lag by some hundred kilobytes, since
/// its counters are kept per CPU.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/smaps_rollup");
    let text = fs::read_to_string(&path).with_context(|| path.clone())?;
    let field = text.lines().find_map(|line| line.strip_prefix("Rss:"));
    let kilobytes =
        field.and_then(|rest| rest.split_whitespace().next()).and_then(|number| number.parse::<u64>().ok());
    Ok(kilobytes.with_context(|| format!("no Rss in {path}"))? * 1024)
}

/// How many descriptors the process has open.
pub(crate) fn descriptors(pid: u32) -> Result<usize> {
    Ok(fs::read_dir(format!("/proc/{pid}/fd"))?.count())
}
