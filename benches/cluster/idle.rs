//! The costs of idle processes.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use pmd_bench::fleet::Traffic;
use pmd_bench::process::{cpu_time, memory};

use crate::cluster::Cluster;
use crate::figures::Idle;

const MEGABYTE: f64 = 1024.0 * 1024.0;

struct Reading {
    at: Instant,
    cpu: Duration,
    traffic: Vec<Traffic>,
}

/// Leaves a cluster idle for `settle`, then measures the resource usage of its processes for `span`.
pub(crate) fn measure(cluster: &mut Cluster<'_>, settle: Duration, span: Duration) -> Result<Idle> {
    cluster.stop_observing();
    thread::sleep(settle);
    let before = read(cluster)?;
    thread::sleep(span);
    let after = read(cluster)?;
    let idle = used(&before, &after, &cluster.pids());
    // A new event stream starts with the history of the membership.
    cluster.observe()?;
    let all = cluster.all();
    cluster.wait_for_members(&all, all.len(), Instant::now())?;
    idle
}

fn read(cluster: &Cluster<'_>) -> Result<Reading> {
    Ok(Reading { at: Instant::now(), cpu: cpu_time(&cluster.pids())?, traffic: cluster.fleet().traffic() })
}

fn used(before: &Reading, after: &Reading, pids: &[u32]) -> Result<Idle> {
    let seconds = (after.at - before.at).as_secs_f64();
    let cpu = after.cpu.saturating_sub(before.cpu).as_secs_f64();
    let traffic = before.traffic.iter().zip(&after.traffic).map(|(before, after)| after.since(before));
    let (bytes, packets): (Vec<f64>, Vec<f64>) =
        traffic.map(|sent| (sent.sent_bytes as f64 / seconds, sent.sent_packets as f64 / seconds)).unzip();
    let memory = pids.iter().map(|pid| memory(*pid)).collect::<Result<Vec<_>>>()?;
    let resident: Vec<f64> = memory.iter().map(|memory| memory.resident as f64 / MEGABYTE).collect();
    let proportional: Vec<f64> = memory.iter().map(|memory| memory.proportional as f64 / MEGABYTE).collect();
    Ok(Idle {
        cpu: cpu / seconds / pids.len() as f64 * 100.0,
        sent: [mean(&bytes), largest(&bytes)],
        packets: mean(&packets),
        resident: [mean(&resident), largest(&resident)],
        proportional: mean(&proportional),
    })
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(0.0, f64::max)
}
