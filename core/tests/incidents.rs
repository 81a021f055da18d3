//! Incidents that have brought down other clusters, each with a bound on recovery.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a violated property fails the test")]

#[path = "support/cluster.rs"]
mod support;

use pmd_core::node::Alarm;
use pmd_core::sim::World;
use pmd_core::tuning::Tuning;
use pmd_protocol::peer::{Attestation, Base, Digest, Frame, Key, Kind, Op, Stamp, Update, Value, Version};
use support::{cluster, cluster_of, downs, found, happened, is_fine, state, time_until};

/// A daemon that missed a failure still considers the dead member alive and tells all others.
#[test]
fn dead_node_bounced_alive_by_full_syncs() {
    for seed in 100..110 {
        let mut world = cluster(seed, 20);
        world.register(1, "db", 1);
        world.run_for(10_000);
        world.faults.partition(|number| number == 7, 20);
        world.kill(1);
        // Long enough for the others to declare it dead, but too short for the isolated daemon to notice anything.
        world.run_for(1_500);
        world.faults.heal();
        assert!(world.run_until(10_000, World::is_converged), "{seed}: {}", state(&world));
        world.run_for(20_000);
        is_fine(&world);
        assert_eq!(found(&world, "db"), [0; 19]);
        let bounced: Vec<_> =
            happened(&world, "name_up").into_iter().filter(|(_, about)| *about == 1).collect();
        assert_eq!(bounced, []);
        let downs = downs(&world);
        assert!(downs.iter().all(|(_, about)| *about == 1), "{seed}: {downs:?}");
        assert_eq!(downs.len(), 19, "{seed}: every daemon should report it once: {downs:?}");
    }
}

/// All processes are restarted at once, as a configuration management tool does.
#[test]
fn mass_restart_leaves_nobody_stuck_dead() {
    let mut world = cluster(120, 300);
    world.run_for(5_000);
    (0..300).for_each(|number| world.kill(number));
    (0..300).for_each(|number| world.restart(number, 0));
    (1..300).for_each(|number| world.join(number, 0));
    assert!(world.run_until(30_000, World::is_converged), "{}", state(&world));
    world.run_for(10_000);
    is_fine(&world);
}

/// All processes are restarted one after the other while the cluster is in use.
#[test]
fn rolling_restart_leaves_nobody_stuck_dead() {
    let mut world = cluster(121, 20);
    for number in 0..20 {
        world.register(number, &format!("own-{number}"), 1);
    }
    for number in 0..20 {
        world.kill(number);
        world.run_for(700);
        world.restart(number, 0);
        world.join(number, (number + 1) % 20);
        world.register(number, &format!("own-{number}"), 2);
        world.run_for(300);
    }
    assert!(world.run_until(3_000, World::is_converged), "{}", state(&world));
    is_fine(&world);
    for number in 0..20 {
        assert_eq!(found(&world, &format!("own-{number}")), [1; 20]);
    }
}

/// A daemon misses the restart of another.
#[test]
fn old_generation_does_not_stay_visible() {
    for seed in 130..140 {
        let mut world = cluster(seed, 12);
        world.register(3, "old", 1);
        world.run_for(5_000);
        world.faults.partition(|number| number == 8, 12);
        world.kill(3);
        world.restart(3, 0);
        world.join(3, 0);
        world.register(3, "new", 1);
        world.run_for(1_000);
        world.faults.heal();
        time_until(&mut world, "new", 1, 8_000);
        time_until(&mut world, "old", 0, 1_000);
        world.run_for(10_000);
        is_fine(&world);
    }
}

/// A supervisor restarts a crashed daemon before or while others detect the crash.
#[test]
fn restart_races_the_detection_of_the_crash() {
    for (seed, pause) in (140..).zip([0, 1, 5, 20, 100, 250, 300, 310, 320, 330, 400, 1_000]) {
        let mut world = cluster(seed, 15);
        world.register(3, "old", 1);
        world.run_for(5_000);
        world.kill(3);
        world.run_for(pause);
        world.restart(3, 0);
        world.join(3, 0);
        world.register(3, "new", 1);
        let took = time_until(&mut world, "new", 1, 3_000);
        assert!(took <= 1_000, "{pause}: {took} ms");
        time_until(&mut world, "old", 0, 100);
        let before = world.now_ms();
        world.run_for(10_000);
        is_fine(&world);
        assert_eq!(found(&world, "new"), [1; 15], "{pause}: down again after {before}");
    }
}

/// An entry is deleted on one side of a partition while the other side still has it, with and without tombstones.
#[test]
fn key_deleted_during_a_partition_does_not_reappear() {
    for (seed, tombstones) in [(150, 1_024), (151, 0)] {
        let mut tuning = Tuning::default();
        tuning.replica.tombstones = tombstones;
        let mut world = cluster_of(seed, 9, tuning);
        world.register(0, "deleted", 1);
        world.register(0, "kept", 1);
        world.run_for(2_000);
        world.faults.partition(|number| number < 3, 9);
        world.run_for(10_000);
        world.unregister(0, "deleted");
        world.run_for(20_000);
        world.faults.heal();
        assert!(world.run_until(2_000, World::is_converged), "{}", state(&world));
        for _ in 0..200 {
            world.run_for(50);
            assert!(found(&world, "deleted").iter().all(|found| *found == 0));
        }
        assert_eq!(found(&world, "kept"), [1; 9]);
        is_fine(&world);
    }
}

/// All members have forgotten a dead member except a daemon that was frozen, whose records are news to the others.
#[test]
fn reaped_node_is_not_learned_again_for_long() {
    for seed in 160..165 {
        let mut tuning = Tuning::default();
        tuning.replica.keep_dead_ms = 2_000;
        tuning.membership.remember_down_ms = 10_000;
        let mut world = cluster_of(seed, 12, tuning);
        world.register(4, "db", 1);
        world.run_for(5_000);
        world.freeze(9);
        world.vanish(4);
        world.run_for(60_000);
        assert!(
            world.nodes().all(|(number, node)| number == 9 || node.replica().store().iter().count() <= 11)
        );
        world.thaw(9);
        assert!(world.run_until(10_000, World::is_converged), "{seed}: {}", state(&world));
        world.run_for(30_000);
        is_fine(&world);
        assert_eq!(found(&world, "db"), [0; 11]);
    }
}

/// A member dies while another daemon is frozen. That daemon still considers it alive, is not told of a failure that is
/// no longer news, and is not a neighbour that would notice the silence.
#[test]
fn a_death_during_a_freeze_is_learned_afterwards() {
    for seed in 210..218 {
        let mut world = cluster(seed, 30);
        world.register(4, "db", 1);
        world.run_for(5_000);
        world.freeze(9);
        // Long enough for its links to be closed before the other daemon dies.
        world.run_for(20_000);
        world.vanish(4);
        world.run_for(60_000);
        world.thaw(9);
        assert!(world.run_until(10_000, World::is_converged), "{seed}: {}", state(&world));
        world.run_for(10_000);
        is_fine(&world);
        assert_eq!(found(&world, "db"), [0; 29]);
    }
}

/// The new generation counts, whatever its clock reads, and nothing of the old one remains.
#[test]
fn clock_a_year_off() {
    for (seed, skew) in [(14, 0), (15, -31_536_000_000), (16, 31_536_000_000)] {
        let mut world = cluster(seed, 8);
        world.register(3, "old", 1);
        world.run_for(5_000);
        world.kill(3);
        world.restart(3, skew);
        world.join(3, 0);
        world.register(3, "new", 1);
        let took = time_until(&mut world, "new", 1, 10_000);
        assert!(took <= 1_000, "{skew}: {took} ms");
        time_until(&mut world, "old", 0, 1_000);
        // The next generation has a correct clock again.
        world.kill(3);
        world.restart(3, 0);
        world.join(3, 0);
        time_until(&mut world, "new", 0, 10_000);
        world.run_for(10_000);
        is_fine(&world);
        assert_eq!(world.alarms(), []);
    }
}

/// A daemon whose clock is centuries ahead is not admitted, because its key would be used up. Once its clock is right, it
/// is welcome.
#[test]
fn clock_two_centuries_ahead() {
    let mut world = cluster(16, 8);
    world.register(3, "old", 1);
    world.run_for(5_000);
    world.kill(3);
    world.restart(3, 200 * 31_536_000_000);
    world.join(3, 0);
    world.run_for(10_000);
    let future = |alarm: &Alarm| matches!(alarm, Alarm::Future(id) if world.number_of(id) == Some(3));
    assert!(world.alarms().iter().any(|(_, _, alarm)| future(alarm)), "{:?}", world.alarms());
    time_until(&mut world, "old", 0, 1_000);
    world.kill(3);
    world.restart(3, 0);
    world.join(3, 0);
    assert!(world.run_until(10_000, World::is_converged), "{}", state(&world));
    is_fine(&world);
}

#[test]
fn crash_loop_fills_nothing() {
    let mut world = cluster(18, 6);
    for _ in 0..30 {
        world.kill(2);
        world.run_for(300);
        world.restart(2, 0);
        world.join(2, 0);
        world.run_for(300);
    }
    assert!(world.run_until(2_000, World::is_converged), "{}", state(&world));
    world.run_for(10_000);
    is_fine(&world);
    assert!(world.nodes().all(|(_, node)| node.replica().store().iter().count() == 6));
    assert!(world.nodes().all(|(_, node)| node.links().count() <= 5));
}

#[test]
fn one_slow_reader_delays_nobody() {
    let mut world = cluster(20, 20);
    world.run_for(5_000);
    world.faults.slow_reader = Some((5, 400));
    for round in 0..200 {
        world.register(1, &format!("burst-{round}"), 1);
        world.run_for(5);
    }
    world.register(1, "last", 1);
    world.run_for(150);
    let found = found(&world, "last");
    let late: Vec<_> =
        found.iter().enumerate().filter(|(_, found)| **found != 1).map(|(number, _)| number).collect();
    assert!(late.iter().all(|number| *number == 5), "{late:?}");
    world.faults.slow_reader = None;
    assert!(world.run_until(60_000, World::is_converged), "{}", state(&world));
    is_fine(&world);
}

/// Unreadable entries and updates that violate the protocol at worst end the sender's link.
#[test]
fn poison_update_harms_nobody() {
    let mut world = cluster(170, 8);
    (0..8).for_each(|number| world.register(number, &format!("own-{number}"), 1));
    world.run_for(2_000);
    let origin = world.node(2).unwrap().identity().id;
    let generation = world.node(2).unwrap().identity().generation;
    let stamp = Stamp { generation, version: Version(1_000), digest: Digest::of([7; 32]) };
    let key = Key::new(Kind(200), b"unknown", 0).unwrap();
    let put = |version| (Version(version), Op::Put(key.clone(), Value::new(&[0xff; 100]).unwrap()));
    let update = |base, ops| {
        let attestation = Attestation::default();
        Frame::Update(Update { origin, stamp, attestation, base, after: Version::ZERO, last: true, ops })
    };
    let poisons = [
        update(Base::Nothing, vec![put(1_000)]),
        update(Base::Nothing, vec![put(9), put(3)]),
        update(Base::After(Version::ZERO), vec![put(1_000)]),
        update(Base::After(Version(999_999)), vec![]),
    ];
    for poison in &poisons {
        for sender in [5, 2] {
            world.inject(sender, poison);
            world.run_for(50);
        }
    }
    world.register(3, "after", 1);
    assert!(world.run_until(5_000, World::is_converged), "{}", state(&world));
    assert_eq!(found(&world, "after"), [1; 8]);
    assert!((0..8).all(|number| found(&world, &format!("own-{number}")) == [1; 8]));
    assert_eq!(downs(&world), []);
    is_fine(&world);
    let blamed =
        |alarm: &Alarm| matches!(alarm, Alarm::Violation(peer, _) if world.number_of(peer) == Some(5));
    assert!(world.alarms().iter().any(|(_, _, alarm)| blamed(alarm)), "{:?}", world.alarms());
}

/// After hours of suspension, a daemon suspects no other and has lost nothing.
#[test]
fn machine_suspended_for_hours() {
    let mut world = cluster(180, 10);
    (0..10).for_each(|number| world.register(number, &format!("own-{number}"), 1));
    world.run_for(5_000);
    world.freeze(4);
    world.run_for(3 * 3_600_000);
    assert!(
        (0..10).filter(|number| *number != 4).all(|number| world.node(number).unwrap().member_count() == 8)
    );
    world.register(0, "meanwhile", 1);
    world.unregister(1, "own-1");
    world.thaw(4);
    let thawed = world.now_ms();
    assert!(world.run_until(30_000, World::is_converged), "{}", state(&world));
    assert!(world.now_ms() - thawed <= 2_000, "{} ms", world.now_ms() - thawed);
    assert_eq!(found(&world, "own-4"), [1; 10]);
    assert_eq!(found(&world, "meanwhile"), [1; 10]);
    assert_eq!(found(&world, "own-1"), [0; 10]);
    world.run_for(30_000);
    is_fine(&world);
    let mistakes: Vec<_> =
        downs(&world).into_iter().filter(|(observer, about)| *observer == 4 || *about != 4).collect();
    assert_eq!(mistakes, []);
}

/// Two machines share one key. Operators are alarmed, and the other daemons are not affected.
#[test]
fn image_cloned_with_its_key_is_noticed() {
    for seed in 190..195 {
        let mut world = cluster(seed, 10);
        world.register(3, "original", 1);
        world.run_for(5_000);
        let copy = world.start_copy_of(3).unwrap();
        world.join(copy, 0);
        world.register(copy, "copy", 1);
        let noticed = |world: &World| {
            world
                .alarms()
                .iter()
                .any(|(_, number, alarm)| [3, copy].contains(number) && matches!(alarm, Alarm::IdentityTaken))
        };
        assert!(world.run_until(120_000, noticed), "{seed}: {:?}", world.alarms());
        world.register(7, "other", 1);
        world.run_for(1_000);
        assert!(found(&world, "other").iter().filter(|found| **found == 1).count() >= 9);
        let honest = |number: &usize| ![3, copy].contains(number);
        assert!(downs(&world).iter().all(|(_, about)| !honest(about)), "{:?}", downs(&world));
        // Once one of the two is gone, the other works normally.
        world.kill(copy);
        assert!(world.run_until(90_000, World::is_converged), "{seed}: {}", state(&world));
        assert_eq!(world.audit(), [] as [String; 0]);
    }
}

/// All certificates expire at once and all links end, until an operator renews the certificates.
#[test]
fn certificates_expire_everywhere_and_all_reconnect_at_once() {
    for (seed, count) in [(200, 3), (201, 30), (202, 100)] {
        let mut world = cluster(seed, count);
        (0..count).for_each(|number| world.register(number, &format!("own-{number}"), 1));
        world.run_for(5_000);
        world.faults.no_handshakes = true;
        world.run_for(5_000);
        assert!(world.is_converged(), "existing links are not affected");
        (0..count).for_each(|number| world.reset(number));
        world.run_for(600_000);
        assert!(world.nodes().all(|(_, node)| node.member_count() == 0));
        let before = world.traffic();
        world.faults.no_handshakes = false;
        let renewed = world.now_ms();
        assert!(world.run_until(60_000, World::is_converged), "{count}: {}", state(&world));
        let took = world.now_ms() - renewed;
        let dials = world.traffic().since(&before).handshakes / 2 / u64::try_from(count).unwrap();
        println!("{count}: converged {took} ms after the renewal, {dials} dials each");
        assert!(took <= 5_000, "{count}: {took} ms");
        assert!(dials <= 30, "{count}: {dials} dials each");
        assert!((0..count).all(|number| found(&world, &format!("own-{number}")) == vec![1; count]));
        world.run_for(10_000);
        is_fine(&world);
    }
}
