//! All parts at one size, of one side and then of the other.

use std::thread;
use std::time::Instant;

use anyhow::Result;
use tokio::runtime::Runtime;

use crate::idle;
use crate::options::{Part, Plan, Side};
use crate::figures::Figures;
use crate::cluster::{Team, Who};

/// One side, and what is known of it; none any more if it has failed.
struct Entrant<'a> {
    who: Who,
    team: Option<Team<'a>>,
    figures: Figures,
}

impl<'a> Entrant<'a> {
    /// Does something with the team. A side that fails is out: it has no more figures at this size.
    fn with(&mut self, what: &str, work: impl FnOnce(&mut Team<'a>, &mut Figures) -> Result<()>) {
        let Some(team) = &mut self.team else { return };
        let begin = Instant::now();
        match work(team, &mut self.figures) {
            Ok(()) => {
                eprintln!("cluster:   {} {what}: {:.1} s", self.who.name(), begin.elapsed().as_secs_f64());
            }
            Err(error) => {
                eprintln!("cluster:   {} {what}: FAILED: {error:#}", self.who.name());
                self.team = None;
            }
        }
    }
}

/// Measures pmd and serf with so many hosts; returns the figures of both.
pub(crate) fn size(plan: &Plan, size: usize) -> Result<[Figures; 2]> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut figures = [Figures::none(), Figures::none()];
    for (who, figures) in [Who::Pmd, Who::Serf].into_iter().zip(&mut figures) {
        let wanted = match plan.side {
            None => true,
            Some(Side::Pmd) => who == Who::Pmd,
            Some(Side::Serf) => who == Who::Serf,
        };
        if wanted {
            eprintln!("cluster: {size} hosts, {}", who.name());
            *figures = side(plan, &runtime, size, who)?;
        }
    }
    Ok(figures)
}

/// All parts with one side, whose processes are gone when this returns.
fn side(plan: &Plan, runtime: &Runtime, size: usize, who: Who) -> Result<Figures> {
    let mut entrant = Entrant { who, team: None, figures: Figures::none() };
    join(plan, runtime, size, &mut entrant)?;
    for part in &plan.parts {
        match part {
            Part::Changes => changes(plan, &mut entrant),
            Part::Idle => entrant.with("idle", |team, figures| {
                figures.idle = idle::measure(team, plan.settle, plan.idle)?;
                Ok(())
            }),
            Part::Kills => rounds(&mut entrant, plan.kills, "kill", |team, figures, victim| {
                figures.kill.extend_worst(team.kill(victim)?);
                Ok(())
            }),
            Part::Cables => rounds(&mut entrant, plan.cables, "cable", |team, figures, victim| {
                figures.cable.extend_worst(team.unplug(victim)?);
                Ok(())
            }),
            Part::Split => split(plan, &mut entrant),
        }
    }
    Ok(entrant.figures)
}

/// Starts a team and has it join, as often as planned; the last one stays.
fn join<'a>(plan: &'a Plan, runtime: &'a Runtime, size: usize, entrant: &mut Entrant<'a>) -> Result<()> {
    for _ in 0..plan.joins {
        entrant.team = None;
        entrant.team = Some(Team::start(entrant.who, &plan.pmd, runtime, size)?);
        entrant.with("join", |team, figures| {
            let places: Vec<usize> = (1..size).collect();
            figures.join.extend_worst(team.join(&places, size)?);
            Ok(())
        });
    }
    Ok(())
}

/// Does something to a host, and brings that back, as often as planned; never the same one twice in a row.
fn rounds(
    entrant: &mut Entrant<'_>,
    rounds: usize,
    what: &str,
    mut work: impl FnMut(&mut Team<'_>, &mut Figures, usize) -> Result<()>,
) {
    for round in 0..rounds {
        entrant.with(what, |team, figures| {
            let victim = victim(team, round);
            work(team, figures, victim)?;
            team.bring_back(victim)
        });
    }
}

/// Some host that is not the first, never the same twice in a row.
fn victim(team: &Team<'_>, round: usize) -> usize {
    let others = team.all().len() - 1;
    1 + (round * 7 + others / 2) % others
}

/// Changes come one after the other, each on another host. serf takes longer for each, and has fewer.
fn changes(plan: &Plan, entrant: &mut Entrant<'_>) {
    let [of_pmd, of_serf] = plan.changes;
    let mut number = 0;
    for _ in 0..of_serf {
        entrant.with("changes", |team, figures| {
            team.count_members(false);
            let count = if team.who() == Who::Pmd { of_pmd / of_serf } else { 1 };
            let before = idle::processor_time(&team.pids())?;
            for _ in 0..count {
                number += 1;
                let place = number % team.all().len();
                let (_change, took) = team.change(place, &format!("change{number}"))?;
                took.iter().for_each(|took| figures.change_one.push(*took));
                figures.change_all.extend_worst(took);
            }
            let used = idle::processor_time(&team.pids())?.saturating_sub(before);
            figures.change_cpu.push(used / u32::try_from(count)?);
            team.count_members(true);
            Ok(())
        });
    }
}

/// Cuts a third off for a while, and heals it.
fn split(plan: &Plan, entrant: &mut Entrant<'_>) {
    entrant.with("split and heal", |team, figures| {
        let all = team.all();
        let (large, small) = all.split_at(all.len() - (all.len() / 3).max(1));
        team.fleet().cut(small, large);
        thread::sleep(plan.split);
        // That nobody misses anybody any more shall not pass for a heal.
        let begin = Instant::now();
        team.wait_for_members(small, small.len(), begin)?;
        team.wait_for_members(large, large.len(), begin)?;
        let begin = Instant::now();
        team.fleet().heal();
        if let Some(took) = team.wait_for_agreement(begin)? {
            figures.heal_prints.push(took);
        }
        figures.heal_members.extend_worst(team.wait_for_members(&all, all.len(), begin)?);
        Ok(())
    });
}
