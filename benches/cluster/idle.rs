//! What processes cost that have nothing to do.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

use crate::fleet::Traffic;
use crate::figures::Idle;
use crate::cluster::Team;

/// Ticks to a second in `/proc/PID/stat`: the same on all of Linux's architectures that pmd runs on.
const TICKS: f64 = 100.0;
/// What a megabyte has of `/proc`'s kilobytes.
const MEGABYTE: f64 = 1024.0;

struct Reading {
    at: Instant,
    cpu: Vec<u64>,
    traffic: Vec<Traffic>,
}

/// Leaves a team alone, until what came before has blown over and then for `span`; returns what its processes have used.
pub(crate) fn measure(team: &mut Team<'_>, settle: Duration, span: Duration) -> Result<Idle> {
    team.look_away();
    thread::sleep(settle);
    let before = read(team)?;
    thread::sleep(span);
    let after = read(team)?;
    let figures = used(&before, &after, &team.pids());
    // What is told first is how it has come to what it is.
    team.observe()?;
    let all = team.all();
    team.wait_for_members(&all, all.len(), Instant::now())?;
    figures
}

fn read(team: &Team<'_>) -> Result<Reading> {
    let cpu = team.pids().into_iter().map(ticks).collect::<Result<_>>()?;
    Ok(Reading { at: Instant::now(), cpu, traffic: team.fleet().traffic() })
}

fn used(before: &Reading, after: &Reading, pids: &[u32]) -> Result<Idle> {
    let seconds = (after.at - before.at).as_secs_f64();
    let count = pids.len() as f64;
    let ticks: u64 = before.cpu.iter().zip(&after.cpu).map(|(before, after)| after - before).sum();
    let moved: Vec<Traffic> =
        before.traffic.iter().zip(&after.traffic).map(|(before, after)| after.since(before)).collect();
    let sent = |traffic: &Traffic| traffic.sent_bytes as f64 / seconds;
    let packets: u64 = moved.iter().map(|traffic| traffic.sent_packets).sum();
    let resident = kilobytes(pids, "Rss:")?;
    let share = kilobytes(pids, "Pss:")?;
    let most = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    Ok(Idle {
        cpu: ticks as f64 / TICKS / seconds / count * 100.0,
        sent: [
            moved.iter().map(sent).sum::<f64>() / count,
            most(&moved.iter().map(sent).collect::<Vec<_>>()),
        ],
        packets: packets as f64 / seconds / count,
        resident: [resident.iter().sum::<f64>() / count, most(&resident)],
        share: share.iter().sum::<f64>() / count,
    })
}

/// User and system time. The kernel splits the exact run time between the two, so the sum is exact but for rounding.
fn ticks(pid: u32) -> Result<u64> {
    let path = format!("/proc/{pid}/stat");
    let text = fs::read_to_string(&path).with_context(|| format!("{path}: has the process ended?"))?;
    let (_, fields) = text.rsplit_once(") ").context("a name in parentheses")?;
    let numbers: Vec<u64> = fields.split(' ').map(|field| field.parse().unwrap_or(0)).collect();
    Ok(numbers[11] + numbers[12])
}

/// Time on a processor of all threads there are at the moment, exactly.
pub(crate) fn processor_time(pids: &[u32]) -> Result<Duration> {
    let mut nanos = 0;
    for pid in pids {
        let folder = format!("/proc/{pid}/task");
        for thread in fs::read_dir(&folder).with_context(|| format!("{folder}: has the process ended?"))? {
            // A thread may end between the listing and the reading.
            let Ok(text) = fs::read_to_string(thread?.path().join("schedstat")) else { continue };
            nanos += text.split(' ').next().and_then(|field| field.parse().ok()).unwrap_or(0);
        }
    }
    Ok(Duration::from_nanos(nanos))
}

/// A line of `smaps_rollup` of each process, in megabytes.
fn kilobytes(pids: &[u32], field: &str) -> Result<Vec<f64>> {
    let one = |pid: &u32| {
        let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
        let value = text.lines().find_map(|line| line.strip_prefix(field)).context("a line of memory")?;
        let value: f64 = value.trim().trim_end_matches(" kB").parse()?;
        Ok(value / MEGABYTE)
    };
    pids.iter().map(one).collect()
}
