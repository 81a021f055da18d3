//! All parts at one size: both sides in turn, idle together.

use std::thread;
use std::time::Instant;

use anyhow::Result;
use tokio::runtime::Runtime;

use crate::idle;
use crate::options::{Part, Plan, Side};
use crate::stats::Figures;
use crate::team::{Team, Who};

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
    eprintln!("cluster: {size} hosts");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut entrants = [Who::Pmd, Who::Serf].map(|who| Entrant { who, team: None, figures: Figures::none() });
    for entrant in &mut entrants {
        let wanted = match plan.side {
            None => true,
            Some(Side::Pmd) => entrant.who == Who::Pmd,
            Some(Side::Serf) => entrant.who == Who::Serf,
        };
        if wanted {
            join(plan, &runtime, size, entrant)?;
        }
    }
    for part in &plan.parts {
        match part {
            Part::Changes => changes(plan, &mut entrants),
            Part::Idle => rest(plan, &mut entrants)?,
            Part::Kills => each(&mut entrants, plan.kills, "kill", |team, figures, round| {
                let victim = victim(team, round);
                figures.kill.extend_worst(team.kill(victim)?);
                team.bring_back(victim)
            }),
            Part::Cables => each(&mut entrants, plan.cables, "cable", |team, figures, round| {
                let victim = victim(team, round);
                figures.cable.extend_worst(team.unplug(victim)?);
                team.bring_back(victim)
            }),
            Part::Split => split(plan, &mut entrants),
        }
    }
    Ok(entrants.map(|entrant| entrant.figures))
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

/// Some host that is not the first, never the same twice in a row.
fn victim(team: &Team<'_>, round: usize) -> usize {
    let others = team.all().len() - 1;
    1 + (round * 7 + others / 2) % others
}

/// Rounds in turn: pmd, serf, pmd, and on.
fn each(
    entrants: &mut [Entrant<'_>; 2],
    rounds: usize,
    what: &str,
    mut work: impl FnMut(&mut Team<'_>, &mut Figures, usize) -> Result<()>,
) {
    for round in 0..rounds {
        for entrant in entrants.iter_mut() {
            entrant.with(what, |team, figures| work(team, figures, round));
        }
    }
}

/// Changes come one after the other, each on another host, in as many turns as serf has changes.
fn changes(plan: &Plan, entrants: &mut [Entrant<'_>; 2]) {
    let [of_pmd, of_serf] = plan.changes;
    let mut number = 0;
    each(entrants, of_serf, "changes", |team, figures, _| {
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

fn rest(plan: &Plan, entrants: &mut [Entrant<'_>; 2]) -> Result<()> {
    let (mut teams, figures): (Vec<_>, Vec<_>) = entrants
        .iter_mut()
        .filter_map(|entrant| Some((entrant.team.as_mut()?, &mut entrant.figures)))
        .unzip();
    for (figures, idle) in figures.into_iter().zip(idle::measure(&mut teams, plan.idle)?) {
        figures.idle = idle;
    }
    Ok(())
}

/// Cuts a third off, on both sides, and heals them one after the other.
fn split(plan: &Plan, entrants: &mut [Entrant<'_>; 2]) {
    let third = |team: &Team<'_>| (team.all().len() / 3).max(1);
    for entrant in entrants.iter_mut() {
        entrant.with("split", |team, _| {
            let (all, third) = (team.all(), third(team));
            team.fleet().cut(&all[all.len() - third..], &all[..all.len() - third]);
            Ok(())
        });
    }
    thread::sleep(plan.split);
    for entrant in entrants.iter_mut() {
        entrant.with("heal", |team, figures| {
            let (all, third) = (team.all(), third(team));
            let (small, large) = (&all[all.len() - third..], &all[..all.len() - third]);
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
}
