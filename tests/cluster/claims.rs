//! Claims on hosts that are cut off, frozen, killed and restarted.

use std::path::Path;

use rustix::process::{Pid, Signal, kill_process};

use crate::harness::program::Program;
use crate::harness::wait_within;
use crate::world::{PATIENCE, World};

/// Three voters and a member that does not vote.
fn world() -> World {
    let mut world = World::new(4);
    for host in world.all() {
        let text =
            format!("voters = [\"h1\", \"h2\", \"h3\"]\njoin = [\"{}\", \"{}\"]\n", world[0].ip, world[1].ip);
        world[host].configure(&text);
    }
    world.start_all();
    world.join_first(1..4);
    world.wait_until_agreed(&world.all());
    world.wait_on(&world.all(), "a leader of the voters", |host| leader(&world, host).is_some());
    world
}

/// The index of the leader of the voters, as `host` sees it.
fn leader(world: &World, host: usize) -> Option<usize> {
    let voters = world.block_on(world[host].api().voters()).ok()?.voters;
    voters.iter().position(|voter| voter.state == "leader")
}

/// A command that writes its number and the time to `trace` until it is killed or `stop` exists. SIGTERM does not end it.
fn tracing(trace: &Path, stop: &Path) -> String {
    format!(
        "trap '' TERM; until [ -e {stop} ]; do echo \"$PMD_CLAIM_NUMBER $(date +%s%N)\" >> {trace}; sleep 0.02; done",
        stop = stop.display(),
        trace = trace.display()
    )
}

fn claim(world: &World, host: usize, args: &[&str], script: &str) -> Program {
    let words = [&["claim", "job"], args, &["--", "sh", "-c", script]].concat();
    let command = world[host].command(&words);
    world.site(host).cell.run(move || Program::spawn(command))
}

/// Each number in the file, with the first and the last time at which its command ran.
fn traces(trace: &Path) -> Vec<(u64, u64, u64)> {
    let mut commands: Vec<(u64, u64, u64)> = Vec::new();
    for line in std::fs::read_to_string(trace).unwrap_or_default().lines() {
        let mut words = line.split(' ').map(|word| word.parse().expect("a number"));
        let (number, time) = (words.next().expect("a number"), words.next().expect("a time"));
        match commands.iter_mut().find(|command| command.0 == number) {
            Some(command) => command.2 = time,
            None => commands.push((number, time, time)),
        }
    }
    commands
}

fn pid(program: &Program) -> Pid {
    Pid::from_raw(program.pid().cast_signed()).expect("a process")
}

fn children(parent: u32) -> Vec<Pid> {
    let list = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).unwrap_or_default();
    list.split(' ').filter_map(|child| Pid::from_raw(child.parse().ok()?)).collect()
}

/// No command ran while another did, and the numbers rise.
fn check(trace: &Path) -> Vec<(u64, u64, u64)> {
    let commands = traces(trace);
    for pair in commands.windows(2) {
        assert!(pair[0].0 < pair[1].0 && pair[0].2 < pair[1].1, "{commands:?}");
    }
    commands
}

/// One host after the other has the claim: at once when a command ends, and only after the command is dead when its host is
/// cut off, or its daemon and command line are frozen or killed.
#[test]
fn a_claim_has_one_holder_whatever_happens_to_hosts() {
    let mut world = world();
    let (trace, stop) = (world.shared("trace"), world.shared("stop"));
    let script = tracing(&trace, &stop);
    let quick = format!("echo \"$PMD_CLAIM_NUMBER $(date +%s%N)\" >> {}", trace.display());
    let running = |count: usize| wait_within(PATIENCE, "the next command", || traces(&trace).len() == count);

    // Whoever tries while somebody else has it is told who; whoever waits gets it in turn.
    let mut all: Vec<Program> =
        world.all().into_iter().map(|host| claim(&world, host, &[], &quick)).collect();
    all.iter_mut()
        .for_each(|program| assert_eq!(program.wait(PATIENCE).code(), Some(0), "{}", program.stderr()));
    assert_eq!(check(&trace).len(), 4);

    // It did not run, or what it has left running may not be taken for done.
    let mut holder = claim(&world, 3, &["--ttl", "3s"], &script);
    running(5);
    let mut waiting = claim(&world, 0, &[], &quick);
    wait_within(PATIENCE, "the guardian", || !children(waiting.pid()).is_empty());
    kill_process(pid(&waiting), Signal::TERM).expect("it runs");
    assert_eq!(waiting.wait(PATIENCE).code(), Some(143), "{}", waiting.stderr());
    // What a service manager ends at once: the command line, the guardian, and the command, which does not listen.
    for process in children(holder.pid()) {
        kill_process(process, Signal::TERM).expect("it runs");
    }
    std::fs::write(&stop, "").expect("a file");
    assert_eq!(holder.wait(PATIENCE).code(), Some(0), "{}", holder.stderr());
    std::fs::remove_file(&stop).expect("a file");
    std::fs::remove_file(&trace).expect("a file");

    // Its host is cut off.
    let mut holder = claim(&world, 3, &["--ttl", "3s"], &script);
    running(1);
    let refused = world.run(0, &["claim", "job", "--try", "--", "true"]).ended_with(7);
    assert!(refused.stderr.contains("held by h4"), "{refused:#?}");
    let mut next = claim(&world, 0, &["--ttl", "3s"], &script);
    world.fleet().cut(&[3], &[0, 1, 2]);
    let lonely = world.run(3, &["claim", "other", "--wait", "1s", "--", "true"]).ended_with(6);
    assert!(lonely.stderr.contains("not reached: h1, h2, h3"), "{lonely:#?}");
    running(2);
    assert_eq!(holder.wait(PATIENCE).code(), Some(137), "{}", holder.stderr());
    assert!(holder.stderr().contains("job is lost"), "{}", holder.stderr());
    world.fleet().heal();

    // Its command line is killed: the command dies with it, and nobody has to wait for the lease.
    kill_process(pid(&next), Signal::KILL).expect("it runs");
    let mut holder = claim(&world, 3, &["--ttl", "3s"], &script);
    running(3);
    next.wait(PATIENCE);

    // Daemon and command line are frozen. The guardian kills the command nevertheless.
    world[3].freeze();
    holder.freeze();
    let mut next = claim(&world, 1, &["--ttl", "3s"], &script);
    running(4);
    holder.thaw();
    world[3].thaw();
    assert_eq!(holder.wait(PATIENCE).code(), Some(137), "{}", holder.stderr());

    // Its daemon is killed: the command ends.
    let last = traces(&trace).len();
    world[1].kill();
    assert_eq!(next.wait(PATIENCE).code(), Some(137), "{}", next.stderr());
    world.start(1);
    let mut after = claim(&world, 3, &["--ttl", "3s"], &script);
    running(last + 1);

    // The leader of the voters is killed, and then all of them. The holder keeps its claim through the first.
    let leads = leader(&world, 3).expect("a leader");
    world[leads].kill();
    wait_within(PATIENCE, "another leader", || leader(&world, 3).is_some_and(|other| other != leads));
    std::fs::write(&stop, "").expect("a file");
    assert_eq!(after.wait(PATIENCE).code(), Some(0), "{}", after.stderr());
    world.run(3, &["claim", "job", "--", "sh", "-c", &quick]).ended_with(0);
    world.start(leads);
    (0..3).for_each(|voter| world[voter].kill());
    (0..3).for_each(|voter| world.start(voter));
    world.run(3, &["claim", "job", "--", "sh", "-c", &quick]).ended_with(0);
    assert_eq!(check(&trace).len(), last + 3);
    let numbers = check(&trace);
    let number = numbers.last().expect("a command").0;
    world.run(0, &["claim", "check", "job", &number.to_string()]).ended_with(7);
    assert!(!world[3].file("claims-4369").exists(), "a host that does not vote has a store");
}

/// A voter with a restored backup does not vote, and says so. Two others suffice.
#[test]
fn a_voter_with_a_lost_or_restored_store_does_not_vote() {
    let mut world = world();
    let store = world[0].file("claims-4369");
    let backup = world[0].file("backup");
    std::fs::copy(&store, &backup).expect("a copy");
    world.run(3, &["claim", "job", "--", "true"]).ended_with(0);
    world[0].terminate();
    std::fs::rename(&backup, &store).expect("a file");
    world.start(0);
    let state = |world: &World, state: &str| {
        let voters = world.block_on(world[0].api().voters());
        voters.is_ok_and(|list| list.problem.is_some() && list.voters[0].state == state)
    };
    wait_within(PATIENCE, "the backup to be refused", || state(&world, "broken"));
    let metrics = world.run(0, &["metrics"]).ended_with(0);
    assert!(metrics.stdout.contains("\npmd_claims_voting 0\n"), "{}", metrics.stdout);
    let status = world.run(0, &["status"]).ended_with(0);
    assert!(status.stdout.contains("this host does not vote"), "{}", status.stdout);
    world.run(0, &["claim", "job", "--", "true"]).ended_with(0);
    world[0].terminate();
    std::fs::remove_file(&store).expect("a file");
    world.start(0);
    wait_within(PATIENCE, "the lost store to be noticed", || state(&world, "stranger"));
    world.run(0, &["claim", "job", "--", "true"]).ended_with(0);
    let said = world.run(0, &["voters"]).ended_with(0);
    assert!(said.stderr.contains("does not vote"), "{said:#?}");
}
