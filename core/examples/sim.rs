//! Runs simulated clusters from the command line: `sim join 1000`, `sim idle 1000 24`, `sim heal 100`.
//!
//! The same seed gives the same history; only the real times vary.

#![allow(clippy::disallowed_methods, clippy::print_stdout, clippy::unwrap_used, clippy::expect_used)]

#[path = "../tests/support/claims.rs"]
mod claims;
#[path = "../tests/support/cluster.rs"]
mod cluster;
#[path = "../tests/support/lies.rs"]
mod lies;

use std::time::Instant;

use pmd_core::sim::{Sabotage, World};
use pmd_protocol::peer::Kind;

/// Lies for each seed.
const LIES: usize = 60;

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let word = |at: usize| arguments.get(at).map(String::as_str);
    let number = |at: usize, otherwise: u64| word(at).and_then(|text| text.parse().ok()).unwrap_or(otherwise);
    let count = usize::try_from(number(1, 100)).unwrap_or(100);
    match word(0) {
        Some("join") => drop(join(count, number(2, 1), false)),
        Some("idle") => idle(count, number(2, 1), number(3, 1)),
        Some("vanish") => distribution(number(2, 20), |seed| vanish(count, seed)),
        Some("kill") => distribution(number(2, 20), |seed| kill(count, seed)),
        Some("heal") => distribution(number(2, 20), |seed| heal(count, seed, false)),
        Some("thaw") => distribution(number(2, 20), |seed| heal(count, seed, true)),
        Some("register") => register(count, number(2, 20)),
        Some("liar") => liar(count, number(2, 20), number(3, 0)),
        Some("claims") => claims(number(1, 1_000), number(2, 0)),
        Some("restart") => distribution(number(2, 3), |seed| restart(count, seed)),
        _ => println!(
            "usage: sim join|idle|vanish|kill|heal|thaw|register|restart|liar DAEMONS [HOURS or SEEDS] [SEED]\n       sim claims SEEDS [FIRST]"
        ),
    }
}

/// Claims under faults, with three and with five voters; and how many seeds find each planted fault.
fn claims(seeds: u64, first: u64) {
    let begin = Instant::now();
    for seed in first..first + seeds {
        claims::run(seed, if seed % 2 == 0 { 3 } else { 5 });
    }
    println!("{seeds} seeds without a violation, {:.1?} real", begin.elapsed());
    for sabotage in [Sabotage::ForgetfulStores, Sabotage::SlowClocks, Sabotage::NoGuardians] {
        let found = (0..100).filter(|seed| !claims::violations(*seed, 3, sabotage).is_empty()).count();
        println!("{sabotage:?} is found by {found} of 100 seeds");
    }
}

fn join(count: usize, seed: u64, keep_events: bool) -> World {
    let begin = Instant::now();
    let mut world = World::new(seed);
    if !keep_events {
        world.discard_events();
    }
    for _ in 0..count {
        world.start();
    }
    for number in 1..count {
        world.join(number, 0);
    }
    let converged = world.run_until(60_000, World::is_converged);
    println!(
        "{count} joined: {converged}, {} ms simulated, {:.1?} real, {} events, {:?}",
        world.now_ms(),
        begin.elapsed(),
        world.events(),
        world.traffic()
    );
    world
}

fn idle(count: usize, hours: u64, seed: u64) {
    let mut world = join(count, seed, true);
    world.run_for(60_000);
    let (before, events, begin) = (world.traffic(), world.events(), Instant::now());
    for hour in 1..=hours {
        world.run_for(3_600_000);
        let deaths: usize = world.nodes().map(|(number, _)| deaths(&world, number)).sum();
        println!(
            "hour {hour}: {deaths} deaths, {} violations, {:.1?} real",
            world.violations().len(),
            begin.elapsed()
        );
    }
    let sent = world.traffic().since(&before);
    let each = |total: u64| total / u64::try_from(count).unwrap_or(1) / (hours * 3_600);
    println!(
        "{count} idle for {hours} h: converged {}, {} violations, {} B/s each with TLS, {} with TCP/IP, {} events",
        world.is_converged(),
        world.audit().len(),
        each(sent.encrypted()),
        each(sent.on_the_wire()),
        world.events() - events
    );
}

fn deaths(world: &World, number: usize) -> usize {
    world.events_of(number).iter().filter(|event| event.change.as_str() == "node_down").count()
}

fn quiet(count: usize, seed: u64) -> World {
    let mut world = World::new(seed);
    for _ in 0..count {
        world.start();
    }
    for number in 1..count {
        world.join(number, 0);
    }
    assert!(world.run_until(60_000, World::is_converged));
    world.run_for(20_000 + seed * 137);
    world
}

fn gone(world: &World, name: &str) -> bool {
    world.nodes().all(|(_, node)| node.replica().view().look_up(Kind::SERVICE, name.as_bytes()).is_empty())
}

fn vanish(count: usize, seed: u64) -> u64 {
    let mut world = quiet(count, seed);
    world.register(1, "db", 1);
    world.run_for(1_000);
    world.vanish(1);
    let begin = world.now_ms();
    assert!(world.run_until(60_000, |world| gone(world, "db")));
    world.now_ms() - begin
}

fn kill(count: usize, seed: u64) -> u64 {
    let mut world = quiet(count, seed);
    world.register(1, "db", 1);
    world.run_for(1_000);
    world.kill(1);
    let begin = world.now_ms();
    assert!(world.run_until(60_000, |world| gone(world, "db")));
    world.now_ms() - begin
}

fn heal(count: usize, seed: u64, freeze: bool) -> u64 {
    let mut world = quiet(count, seed);
    if freeze {
        (0..count / 3).for_each(|number| world.freeze(number));
    } else {
        world.faults.partition(|number| number < count / 3, count);
    }
    world.run_for(30_000);
    if freeze {
        (0..count / 3).for_each(|number| world.thaw(number));
    } else {
        world.faults.heal();
    }
    let begin = world.now_ms();
    assert!(world.run_until(60_000, World::is_converged));
    let took = world.now_ms() - begin;
    world.run_for(10_000);
    assert!(world.is_converged() && world.audit().is_empty());
    took
}

/// A member that lies about everybody else, among this many honest ones. Ends with the first property that is violated.
fn liar(count: usize, seeds: u64, first: u64) {
    let begin = Instant::now();
    for seed in first..first + seeds {
        lies::endure(seed, count + 1, LIES);
        let done = seed + 1 - first;
        if done.is_multiple_of(50) || done == seeds {
            println!("{done} seeds of {seeds}, {:.0?} real", begin.elapsed());
        }
    }
    println!(
        "a liar among {count} honest daemons, {LIES} lies, {seeds} seeds: honest entries never changed, no honest daemon took another \
         for dead, all honest fingerprints agreed, and only the liar was blamed"
    );
}

fn restart(count: usize, seed: u64) -> u64 {
    let mut world = quiet(count, seed);
    (0..count).for_each(|number| world.kill(number));
    (0..count).for_each(|number| world.restart(number, 0));
    (1..count).for_each(|number| world.join(number, 0));
    let begin = world.now_ms();
    assert!(world.run_until(60_000, World::is_converged));
    world.now_ms() - begin
}

fn register(count: usize, rounds: u64) {
    let mut world = quiet(count, 1);
    let mut all = Vec::new();
    let before = world.traffic();
    for round in 0..rounds {
        let name = format!("service-{round}");
        world.register(usize::try_from(round * 7).unwrap() % count, &name, 1);
        let begin = world.now_ms();
        while !world
            .nodes()
            .all(|(_, node)| !node.replica().view().look_up(Kind::SERVICE, name.as_bytes()).is_empty())
        {
            world.run_for(1);
        }
        all.push(world.now_ms() - begin);
        world.run_for(500);
    }
    println!("{:?}", world.traffic().since(&before));
    report(all);
}

fn distribution(seeds: u64, run: impl Fn(u64) -> u64) {
    report((0..seeds).map(run).collect());
}

fn report(mut all: Vec<u64>) {
    all.sort_unstable();
    println!("{} runs: p50 {} ms, max {} ms, all {all:?}", all.len(), all[all.len() / 2], all[all.len() - 1]);
}
