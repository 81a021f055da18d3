//! Expelling members, and readmitting them.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a violated property fails the test")]

#[path = "support/cluster.rs"]
mod support;

use std::sync::LazyLock;

use pmd_core::attest::{Keys, id_of};
use pmd_core::membership::expulsions::{Administrators, Circumstances, Expulsions, Heard, MAX_DECISIONS};
use pmd_core::node::Alarm;
use pmd_core::sim::keys::SimKeys;
use pmd_core::sim::{SimNode, World};
use pmd_protocol::HostName;
use pmd_protocol::limits::MAX_EXPULSIONS;
use pmd_protocol::peer::{self, Expulsion, Frame, NodeId};
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

/// A daemon with an invented id.
fn invented(number: u64) -> NodeId {
    let mut bytes = [0xee; 32];
    bytes[..8].copy_from_slice(&number.to_be_bytes());
    NodeId::new(bytes)
}

/// Keys that nobody has, but whoever makes them up.
fn invented_keys(number: u64) -> SimKeys {
    SimKeys::new(invented(number).as_bytes())
}

fn merge(all: &mut Expulsions, decision: &Expulsion) -> Heard {
    hear(all, 0, 0, decision)
}

/// The daemons with the keys 0 to 9.
static MEMBERS: LazyLock<Vec<NodeId>> =
    LazyLock::new(|| (0..10).map(|number| id_of(&keys(number).public_key())).collect());

/// Merges a decision that the daemon with keys `peer` has sent.
fn hear(all: &mut Expulsions, now_ms: u64, peer: u8, decision: &Expulsion) -> Heard {
    let keys = keys(0);
    let circumstances = Circumstances {
        keys: &keys,
        from: Some(id_of(&self::keys(peer).public_key())),
        is_member: |id: &NodeId| MEMBERS.contains(id),
        now_ms,
        latest_ms: LATEST,
    };
    all.merge(&circumstances, decision.clone())
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
    for number in 0..2 * MAX_DECISIONS as u64 {
        let decision = all.decide(&keys(2), 10 + number, (invented(number), String::new()), &host(), true);
        assert!(matches!(hear(&mut all, 1_000 * number, 3, &decision), Heard::New(_)));
    }
    assert_eq!(all.iter().count(), MAX_DECISIONS);
    assert!(all.is_expelled(&id(9)));
}

/// What one daemon decides costs all others little, however much that is.
#[test]
fn one_author_decides_only_so_often() {
    let mut all = Expulsions::default();
    let author = id_of(&keys(2).public_key());
    let mut taken = |now_ms: u64| {
        let decide =
            |number| all.decide(&keys(2), 10 + now_ms, (invented(number), String::new()), &host(), true);
        let first = 10_000 * now_ms;
        let decisions: Vec<_> = (first..first + 2_000).map(decide).collect();
        let heard = decisions.iter().map(|decision| hear(&mut all, now_ms, 3, decision));
        heard.filter(|heard| *heard != Heard::TooMany(author)).count()
    };
    assert_eq!([0, 10_000].map(&mut taken), [MAX_DECISIONS, 10]);
    // Nobody else is affected, and neither is what this daemon decides itself.
    let honest = decide(&all, 1, 9, 1, true);
    assert!(matches!(hear(&mut all, 10_000, 3, &honest), Heard::New(_)));
}

/// An intruder on a member's host makes up one author for each decision, and none has more than any other.
#[test]
fn invented_authors_displace_nobody() {
    let mut all = Expulsions::default();
    // Three decisions of an administrator, more than any of the invented authors has.
    let honest: Vec<_> = [17, 18, 19].map(|member| decide(&all, 1, member, 1, true)).into();
    honest.iter().for_each(|decision| assert_eq!(hear(&mut all, 0, 1, decision), Heard::New(None)));
    // One of an administrator that is gone.
    let gone = decide(&all, 200, 20, 1, true);
    assert_eq!(hear(&mut all, 0, 1, &gone), Heard::New(None));
    let mut taken = [0; 3];
    for (minute, number) in (0..12_000_u64).map(|number| (number / 20, number)) {
        let member = invented(number);
        let decision =
            all.decide(&invented_keys(number), 10 + number, (member, String::new()), &host(), true);
        // By way of three members, of which one is the intruder's own.
        let peer = number % 3;
        match hear(&mut all, 60_000 * minute, 2 + u8::try_from(peer).unwrap(), &decision) {
            Heard::New(_) => taken[usize::try_from(peer).unwrap()] += 1,
            heard => assert!(matches!(heard, Heard::TooMany(_)), "{heard:?}"),
        }
    }
    assert!(taken.iter().all(|taken| (300..=632).contains(taken)), "{taken:?}");
    assert_eq!(all.iter().count(), MAX_DECISIONS);
    assert!([17, 18, 19, 20].iter().all(|member| all.is_expelled(&id(*member))));
    // An administrator decides something, which no invented author can prevent.
    let later = decide(&all, 3, 21, 1, true);
    let now_ms = 60_000 * 600;
    assert!(matches!(hear(&mut all, now_ms, 2, &later), Heard::New(Some(_))));
    assert!([17, 18, 19, 20, 21].iter().all(|member| all.is_expelled(&id(*member))));
    // Where administrators are named, the others do not count at all.
    let admin = id_of(&keys(1).public_key());
    let mut all = Expulsions::new(Administrators::Only([admin].into()));
    let decision = all.decide(&invented_keys(1), 1, (invented(1), String::new()), &host(), true);
    assert_eq!(merge(&mut all, &decision), Heard::Ignored);
}

/// A daemon that starts with all the room taken still hears decisions, and its administrator is not refused.
#[test]
fn what_is_remembered_gives_way_to_what_members_decide() {
    let mut all = Expulsions::default();
    let remembered = |all: &mut Expulsions, now_ms, decision: &Expulsion, from| {
        let keys = keys(0);
        let is_member = |id: &NodeId| MEMBERS[..2].contains(id);
        all.merge(
            &Circumstances { keys: &keys, from, is_member, now_ms, latest_ms: LATEST },
            decision.clone(),
        )
    };
    for number in 0..MAX_DECISIONS as u64 {
        let decision =
            all.decide(&invented_keys(number), 1, (invented(number), String::new()), &host(), true);
        assert_eq!(remembered(&mut all, 0, &decision, None), Heard::New(None));
    }
    let peer = id_of(&keys(1).public_key());
    let (theirs, own) = (decide(&all, 1, 17, 1, true), decide(&all, 0, 18, 1, true));
    assert!(matches!(remembered(&mut all, 0, &theirs, Some(peer)), Heard::New(Some(_))));
    assert!(matches!(remembered(&mut all, 0, &own, None), Heard::New(Some(_))));
    assert!(all.is_expelled(&id(17)) && all.is_expelled(&id(18)));
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
        let reasons = (0..count).filter(|number| *number != 1).flat_map(|number| world.events_of(number));
        let mut reasons = reasons.filter_map(|event| event.change.reason());
        assert!(reasons.all(|reason| reason == "expelled"));
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

/// A member that makes up authors neither fills the others' room for decisions nor prevents what an administrator decides.
#[test]
fn a_liar_that_makes_up_authors_prevents_no_decision() {
    const COUNT: usize = 20;
    const LIAR: usize = 1;
    for seed in 30..34 {
        let mut world = cluster(seed, COUNT);
        let ids: Vec<_> = world.nodes().map(|(_, node)| node.identity().id).collect();
        world.decide(0, 19, true);
        world.run_for(1_000);
        for number in (seed * 1_000_000..).step_by(MAX_EXPULSIONS).take(100) {
            let numbers = number..number + MAX_EXPULSIONS as u64;
            let decide = |number| {
                let member = (invented(number), String::new());
                Expulsions::default().decide(&invented_keys(number), 1, member, &host(), true)
            };
            let list = numbers.map(decide).collect();
            world.inject(LIAR, &Frame::Expulsions(peer::Expulsions { list }));
            world.run_for(20);
        }
        world.decide(2, 18, true);
        world.run_for(2_000);
        for (number, node) in world.nodes().filter(|(number, _)| ![LIAR, 18, 19].contains(number)) {
            let all = node.expulsions();
            assert!([18, 19].iter().all(|out| all.is_expelled(&ids[*out])), "seed {seed}: {number}");
            // A burst over each of the liar's links.
            assert!(all.iter().count() <= 2 + 32 * COUNT, "seed {seed}: {}", all.iter().count());
        }
        let too_many = Alarm::TooManyDecisions(ids[LIAR]);
        assert!(world.alarms().iter().any(|(_, by, alarm)| *by != LIAR && *alarm == too_many), "seed {seed}");
    }
}
