//! All parts at one size, first for one side, then for the other.

use std::thread;
use std::time::Instant;

use anyhow::Result;
use pmd_bench::options::name_of;
use tokio::runtime::Runtime;

use crate::cluster::Cluster;
use crate::figures::Figures;
use crate::idle;
use crate::options::{Part, Plan, Side};

/// A side that is being measured. Its cluster is dropped after a failure.
struct Measurement<'a> {
    side: Side,
    cluster: Option<Cluster<'a>>,
    figures: Figures,
}

impl<'a> Measurement<'a> {
    /// Runs one step on the cluster. A side that fails has no further figures at this size.
    fn step(&mut self, what: &str, work: impl FnOnce(&mut Cluster<'a>, &mut Figures) -> Result<()>) {
        let Some(cluster) = &mut self.cluster else { return };
        let begin = Instant::now();
        let name = name_of(&self.side);
        match work(cluster, &mut self.figures) {
            Ok(()) => eprintln!("cluster:   {name} {what}: {:.1} s", begin.elapsed().as_secs_f64()),
            Err(error) => {
                let failure = format!("{name}, {} hosts, {what}: {error:#}", cluster.all().len());
                eprintln!("cluster:   FAILED: {failure}");
                self.figures.failures.push(failure);
                self.cluster = None;
            }
        }
    }
}

/// Measures the chosen sides with `size` hosts, and returns the figures of pmd and of serf.
pub(crate) fn size(plan: &Plan, size: usize) -> Result<[Figures; 2]> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut figures = [Figures::default(), Figures::default()];
    for (side, figures) in [Side::Pmd, Side::Serf].into_iter().zip(&mut figures) {
        if plan.sides.contains(&side) {
            eprintln!("cluster: {size} hosts, {}", name_of(&side));
            *figures = measure(plan, &runtime, size, side)?;
        }
    }
    Ok(figures)
}

/// Runs all parts with one side, and stops its processes.
fn measure(plan: &Plan, runtime: &Runtime, size: usize, side: Side) -> Result<Figures> {
    let mut measurement = Measurement { side, cluster: None, figures: Figures::default() };
    join(plan, runtime, size, &mut measurement)?;
    for part in &plan.parts {
        match part {
            Part::Changes => changes(plan, &mut measurement),
            Part::Idle => measurement.step("idle", |cluster, figures| {
                figures.idle = idle::measure(cluster, plan.settle, plan.idle)?;
                Ok(())
            }),
            Part::Kills => rounds(&mut measurement, plan.kills, "kill", |cluster, figures, victim| {
                figures.kill.record_longest(cluster.kill(victim)?);
                Ok(())
            }),
            Part::Cables => rounds(&mut measurement, plan.cables, "cable", |cluster, figures, victim| {
                figures.cable.record_longest(cluster.unplug(victim)?);
                Ok(())
            }),
            Part::Split => split(plan, &mut measurement),
        }
    }
    Ok(measurement.figures)
}

/// Starts a cluster and lets it join, as often as planned, and returns the last cluster.
fn join<'a>(
    plan: &'a Plan,
    runtime: &'a Runtime,
    size: usize,
    measurement: &mut Measurement<'a>,
) -> Result<()> {
    for _ in 0..plan.joins {
        measurement.cluster = None;
        measurement.cluster = Some(Cluster::start(measurement.side, &plan.pmd, runtime, size)?);
        measurement.step("join", |cluster, figures| {
            let hosts: Vec<usize> = (1..size).collect();
            figures.join.record_longest(cluster.join(&hosts, size)?);
            Ok(())
        });
    }
    Ok(())
}

/// Applies `work` to a host and brings it back, as often as planned, but never to the same host twice in a row.
fn rounds(
    measurement: &mut Measurement<'_>,
    rounds: usize,
    what: &str,
    mut work: impl FnMut(&mut Cluster<'_>, &mut Figures, usize) -> Result<()>,
) {
    for round in 0..rounds {
        measurement.step(what, |cluster, figures| {
            let victim = victim(cluster, round);
            work(cluster, figures, victim)?;
            cluster.bring_back(victim)
        });
    }
}

/// A host that is neither the first nor the one of the previous round.
fn victim(cluster: &Cluster<'_>, round: usize) -> usize {
    let others = cluster.all().len() - 1;
    1 + (round * 7 + others / 2) % others
}

/// Makes changes one after the other, each on a different host. serf takes longer for each and therefore gets fewer.
fn changes(plan: &Plan, measurement: &mut Measurement<'_>) {
    let [for_pmd, for_serf] = plan.changes;
    let mut number = 0;
    for _ in 0..for_serf {
        measurement.step("changes", |cluster, figures| {
            cluster.count_members(false);
            let count = if cluster.side() == Side::Pmd { for_pmd / for_serf } else { 1 };
            let before = cluster.cpu_time()?;
            for _ in 0..count {
                number += 1;
                let host = number % cluster.all().len();
                let took = cluster.change(host, &format!("change{number}"))?;
                took.iter().for_each(|took| figures.change_one.record(*took));
                figures.change_all.record_longest(took);
            }
            let used = cluster.cpu_time()?.saturating_sub(before);
            figures.change_cpu.record(used / u32::try_from(count)?);
            cluster.count_members(true);
            Ok(())
        });
    }
}

/// Disconnects a third of the hosts for a while, then reconnects them.
fn split(plan: &Plan, measurement: &mut Measurement<'_>) {
    measurement.step("split and heal", |cluster, figures| {
        let all = cluster.all();
        let (large, small) = all.split_at(all.len() - (all.len() / 3).max(1));
        cluster.fleet().cut(small, large);
        thread::sleep(plan.split);
        // Waits until both sides have noticed the split; before that, they see all members, as they do after the heal.
        let begin = Instant::now();
        cluster.wait_for_members(small, small.len(), begin)?;
        cluster.wait_for_members(large, large.len(), begin)?;
        let begin = Instant::now();
        cluster.fleet().heal();
        if let Some(took) = cluster.wait_for_agreement(begin)? {
            figures.heal_prints.record(took);
        }
        figures.heal_members.record_longest(cluster.wait_for_members(&all, all.len(), begin)?);
        Ok(())
    });
}
