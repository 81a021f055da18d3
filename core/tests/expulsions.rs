//! Expelling members, and readmitting them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a violated property fails the test")]

#[path = "support/cluster.rs"]
mod support;

use pmd_core::attest::{Keys, id_of};
use pmd_core::membership::expulsions::{Administrators, Expulsions, Heard, MAX_DECISIONS};
use pmd_core::sim::keys::SimKeys;
use pmd_core::sim::{SimNode, World};
use pmd_protocol::HostName;
use pmd_protocol::peer::{Expulsion, NodeId};
use support::{cluster, found, happened, is_fine, state, time_until};

const LATEST: u64 = 1_000_000;

fn keys(number: u8) -> SimKeys {
    SimKeys::new(&[number; 32])
}

fn host() -> HostName {
    "ops1".parse().unwrap()
}

fn id(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

fn decide(all: &Expulsions, by: u8, member: u8, now_ms: u64, expelled: bool) -> Expulsion {
    all.decide(&keys(by), now_ms, (id(member), "stolen".into()), &host(), expelled)
}

fn merge(all: &mut Expulsions, decision: &Expulsion) -> Heard {
    all.merge(&keys(0), LATEST, decision.clone())
}

#[test]
fn the_latest_decision_counts_in_any_order() {
    let (mut one, mut other) = (Expulsions::default(), Expulsions::default());
    let out = decide(&one, 1, 9, 100, true);
    assert_eq!(merge(&mut one, &out), Heard::New(None));
    assert_eq!(merge(&mut one, &out), Heard::Known);
    // The clock of the second author is behind.
    let back = decide(&one, 2, 9, 50, false);
    assert_eq!(back.decided_ms, 101);
    assert_eq!(merge(&mut other, &back), Heard::New(None));
    assert_eq!(merge(&mut other, &out), Heard::Known);
    assert_eq!(merge(&mut one, &back), Heard::New(None));
    for all in [&one, &other] {
        assert!(!all.is_expelled(&id(9)) && !all.is_expelled(&id(8)));
        assert_eq!(all.about(&id(9)), Some(&back));
    }
}

#[test]
fn a_decision_that_was_changed_or_is_of_the_far_future_does_not_count() {
    let mut all = Expulsions::default();
    let decision = decide(&all, 1, 9, 100, true);
    for forged in [
        Expulsion { member: id(8), ..decision.clone() },
        Expulsion { decided_ms: 101, ..decision.clone() },
        Expulsion { expelled: false, ..decision.clone() },
        Expulsion { by: "ops2".into(), ..decision.clone() },
        Expulsion { author: keys(2).public_key(), ..decision },
    ] {
        assert_eq!(merge(&mut all, &forged), Heard::Forged, "{forged:?}");
    }
    let last = decide(&all, 1, 9, u64::MAX, true);
    assert_eq!(merge(&mut all, &last), Heard::Ignored);
    assert_eq!(all.iter().count(), 0);
}

#[test]
fn only_administrators_decide_if_some_are_named() {
    let admin = id_of(&keys(1).public_key());
    let mut all = Expulsions::new(Administrators::Only([admin].into()));
    let (theirs, others, own) =
        (decide(&all, 1, 9, 1, true), decide(&all, 2, 8, 1, true), decide(&all, 0, 7, 1, true));
    assert_eq!(merge(&mut all, &theirs), Heard::New(None));
    assert_eq!(merge(&mut all, &others), Heard::Ignored);
    assert_eq!(merge(&mut all, &own), Heard::New(None), "the administrator of this host");
}

/// Whoever was expelled decides nothing any more, and nobody takes back what was decided about itself.
#[test]
fn an_expelled_daemon_decides_nothing_any_more() {
    let mut all = Expulsions::default();
    let thief = id_of(&keys(2).public_key());
    let before = decide(&all, 2, 8, 50, true);
    let out = all.decide(&keys(1), 100, (thief, String::new()), &host(), true);
    assert_eq!(merge(&mut all, &out), Heard::New(None));
    let after = decide(&all, 2, 9, 101, true);
    assert_eq!(merge(&mut all, &after), Heard::Ignored);
    assert_eq!(merge(&mut all, &before), Heard::New(None), "what it decided before still counts");
    let back = all.decide(&keys(2), 200, (thief, String::new()), &host(), false);
    assert_eq!(merge(&mut all, &back), Heard::Ignored);
    assert!(all.is_expelled(&thief));
    let back = all.decide(&keys(1), 200, (thief, String::new()), &host(), false);
    assert_eq!(merge(&mut all, &back), Heard::New(None));
    let again = decide(&all, 2, 9, 300, true);
    assert_eq!(merge(&mut all, &again), Heard::New(None), "it is a member again");
}

#[test]
fn nobody_can_use_up_the_room_for_decisions() {
    let mut all = Expulsions::default();
    let honest = decide(&all, 1, 9, 1, true);
    assert_eq!(merge(&mut all, &honest), Heard::New(None));
    for number in 0..2 * u64::try_from(MAX_DECISIONS).unwrap() {
        let mut bytes = [7; 32];
        bytes[..8].copy_from_slice(&number.to_be_bytes());
        let invented = (NodeId::new(bytes), String::new());
        let decision = all.decide(&keys(2), 10 + number, invented, &host(), true);
        assert!(matches!(merge(&mut all, &decision), Heard::New(_)));
    }
    assert_eq!(all.iter().count(), MAX_DECISIONS);
    assert!(all.is_expelled(&id(9)));
}

/// Whether all others agree on a cluster without this daemon.
fn is_out(world: &World, expelled: usize) -> bool {
    let others = world.nodes().filter(|(number, _)| *number != expelled);
    let fingerprints: Vec<_> =
        others.map(|(_, node)| (node.member_count(), node.replica().fingerprint())).collect();
    fingerprints.iter().all(|one| *one == (fingerprints.len() - 1, fingerprints[0].1))
}

#[test]
fn an_expelled_member_is_gone_everywhere_and_stays_away_until_it_is_readmitted() {
    for (seed, count) in [(1, 3), (2, 30), (3, 100)] {
        let mut world = cluster(seed, count);
        world.register(1, "stolen", 1);
        time_until(&mut world, "stolen", 1, 2_000);
        world.decide(0, 1, true);
        let begin = world.now_ms();
        assert!(world.run_until(2_000, |world| is_out(world, 1)), "{seed}: {}", state(&world));
        println!("{count}: expelled everywhere after {} ms", world.now_ms() - begin);
        // It keeps dialling, restarts, and asks everybody.
        world.run_for(60_000);
        world.kill(1);
        world.restart(1, 0);
        (0..count).filter(|number| *number != 1).for_each(|number| world.join(1, number));
        world.run_for(60_000);
        assert!(is_out(&world, 1), "{seed}: {}", state(&world));
        assert_eq!(found(&world, "stolen").iter().sum::<usize>(), 0);
        let left = happened(&world, "node_left");
        assert!((0..count).all(|number| number == 1 || left.contains(&(number, 1))), "{left:?}");
        assert!(happened(&world, "node_down").iter().all(|(observer, _)| *observer == 1));

        world.decide(count - 1, 1, false);
        world.run_for(1_000);
        world.join(1, 0);
        assert!(world.run_until(20_000, World::is_converged), "{seed}: {}", state(&world));
        world.run_for(10_000);
        is_fine(&world);
    }
}

/// Those that were away when it was decided learn of it, and those that decided may be gone by then.
#[test]
fn a_decision_outlives_its_author_and_reaches_those_that_were_away() {
    for seed in 10..14 {
        let mut world = cluster(seed, 10);
        world.vanish(7);
        world.faults.partition(|number| number >= 8, 10);
        world.run_for(20_000);
        world.decide(0, 9, true);
        world.run_for(2_000);
        world.kill(0);
        world.run_for(5_000);
        world.faults.heal();
        world.restart(7, 0);
        world.join(7, 2);
        // All others restart, and with them the only witnesses.
        for number in 1..7 {
            world.kill(number);
            world.restart(number, 0);
            world.join(number, if number == 1 { 2 } else { 1 });
            world.run_for(3_000);
        }
        world.join(8, 2);
        world.join(9, 7);
        assert!(world.run_until(60_000, |world| is_out(world, 9)), "{seed}: {}", state(&world));
        let decided = world.nodes().filter(|(number, _)| *number != 9);
        let known = decided.map(|(_, node)| node.expulsions().iter().filter(|one| one.expelled).count());
        assert_eq!(known.collect::<Vec<_>>(), [1; 8]);
    }
}

/// Both sides of a partition decide otherwise; afterwards the later decision counts everywhere.
#[test]
fn decisions_of_both_sides_of_a_partition_merge() {
    for seed in 20..24 {
        let mut world = cluster(seed, 12);
        world.faults.partition(|number| number < 6, 12);
        world.run_for(10_000);
        world.decide(0, 11, true);
        world.run_for(1_000);
        world.decide(6, 11, false);
        world.decide(7, 1, true);
        world.run_for(1_000);
        world.faults.heal();
        assert!(world.run_until(60_000, |world| is_out(world, 1)), "{seed}: {}", state(&world));
        let expelled = |node: &SimNode| node.expulsions().iter().filter(|one| one.expelled).count();
        assert!(world.nodes().all(|(number, node)| number == 1 || expelled(node) == 1));
    }
}
