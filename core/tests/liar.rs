//! A member that lies: it knows the cluster secret and has a key of its own, and sends whatever it likes about others.
//!
//! `PMD_SEEDS`, when the tests are built, sets the number of seeds: `PMD_SEEDS=1000 cargo test -p pmd-core --features sim
//! --test liar`.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

#[path = "support/cluster.rs"]
mod cluster;

use cluster::{cluster, downs, found, is_fine, state};
use pmd_core::id::Generation;
use pmd_core::membership::record::{Record, State, encode};
use pmd_core::node::Alarm;
use pmd_core::sim::World;
use pmd_protocol::peer::frame::{Have, Lost, Membership, Prune, Pull};
use pmd_protocol::peer::{
    Attestation, Base, Digest, Frame, Key, Kind, NodeId, Op, Signature, Stamp, Update, Updates, Value,
    Version,
};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

/// The host of the liar.
const LIAR: usize = 1;

fn seeds() -> u64 {
    option_env!("PMD_SEEDS").and_then(|count| count.parse().ok()).unwrap_or(20)
}

fn membership(record: &Record) -> Frame {
    let (records, _) = encode([record], usize::MAX);
    Frame::Membership(Membership { records })
}

/// A cluster in which each host has a service of its own.
fn honest(seed: u64, count: usize) -> World {
    let mut world = cluster(seed, count);
    (0..count).for_each(|number| world.register(number, &format!("own-{number}"), 1));
    world.run_for(3_000);
    world
}

/// A lie about `victim`, as a member can make it up from what it knows.
fn lie(world: &World, victim: usize, rng: &mut ChaCha8Rng) -> Frame {
    let liar = world.node(LIAR).unwrap();
    let id = world.node(victim).unwrap().identity().id;
    let content = liar.replica().store().content(&id).unwrap();
    let (stamp, attestation) = (content.stamp(), content.attestation().clone());
    let record = liar.record(&id).unwrap().clone();
    let key = Key::new(Kind::SERVICE, format!("own-{victim}").as_bytes(), 0).unwrap();
    let forged = Attestation { signature: Signature::new(&[7; 66]).unwrap(), other: attestation.other };
    let next = Stamp { version: stamp.version.next(), ..stamp };
    let update = |stamp: Stamp, attestation: &Attestation, base, op| {
        let ops = vec![(stamp.version, op)];
        let attestation = attestation.clone();
        Frame::Update(Update { origin: id, stamp, attestation, base, after: base.start(), last: true, ops })
    };
    let delete = Op::Delete(key.clone());
    let put = Op::Put(key, Value::new(&[0xff; 20]).unwrap());
    let later = Generation { boot_ms: record.identity.generation.boot_ms + 1, nonce: 0 };
    match rng.random_range(0..13) {
        // The victim's entries are deleted, changed or replaced.
        0 => update(next, &attestation, Base::After(stamp.version), delete),
        1 => update(next, &forged, Base::After(stamp.version), put),
        2 => update(Stamp { digest: Digest::of([9; 32]), ..next }, &forged, Base::Nothing, put),
        // The operations do not lead to what the victim has signed.
        3 => update(stamp, &attestation, Base::Nothing, put),
        4 => update(Stamp { generation: later, ..next }, &attestation, Base::Nothing, put),
        // The victim's counters are raised, so that it could never raise them itself.
        5 => {
            let mut record = record;
            record.identity.renewal = u32::MAX;
            membership(&record)
        }
        6 => {
            let mut record = record;
            record.identity.generation = Generation { boot_ms: u64::MAX, nonce: u64::MAX };
            membership(&record)
        }
        7 => membership(&Record { incarnation: u32::MAX, state: State::Down, ..record }),
        // The victim has left, is dead or suspected.
        8 => membership(&Record { state: State::Left, ..record }),
        9 => membership(&Record { state: State::Down, ..record }),
        10 => membership(&Record { state: State::Suspect, ..record }),
        11 => Frame::Lost(Lost { members: vec![id] }),
        // The victim has said more than it knows.
        _ => {
            let stamp = Stamp { version: Version(u64::MAX), ..stamp };
            Frame::Have(Have { stamps: vec![(id, stamp)], complete: Vec::new() })
        }
    }
}

/// Lets the liar lie about everybody for a while, and checks the honest all along.
fn endure(seed: u64, count: usize, lies: usize) {
    let mut world = honest(seed, count);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    for _ in 0..lies {
        let victim = rng.random_range(2..count);
        let frame = lie(&world, victim, &mut rng);
        world.inject(LIAR, &frame);
        world.run_for(rng.random_range(5..100));
        assert_eq!(found(&world, &format!("own-{victim}")), vec![1; count], "seed {seed}: {frame:?}");
    }
    world.run_for(10_000);
    // No honest daemon takes another for dead. The liar's links are closed again and again, so it may be.
    let dead: Vec<_> = downs(&world).into_iter().filter(|(by, of)| *by != LIAR && *of != LIAR).collect();
    assert_eq!(dead, [], "seed {seed}");
    assert!(world.run_until(30_000, World::is_converged), "seed {seed}: {}", state(&world));
    for number in 0..count {
        assert_eq!(found(&world, &format!("own-{number}")), vec![1; count], "seed {seed}: {number}");
    }
    assert_eq!(world.audit(), [] as [String; 0], "seed {seed}");
    // Nobody but the liar is blamed.
    for (_, by, alarm) in world.alarms() {
        let blamed = match alarm {
            Alarm::Violation(id, _) | Alarm::Future(id) => world.number_of(id),
            _ => None,
        };
        // The liar's own daemon is honest, and whoever answers a lie is blamed by nobody.
        assert!(blamed == Some(LIAR) || matches!(alarm, Alarm::Future(_)), "seed {seed}: {by} {alarm:?}");
    }
    assert!(!world.alarms().is_empty(), "seed {seed}: nobody has noticed");
}

#[test]
fn a_liar_among_thirty_changes_nothing_and_kills_nobody() {
    (0..seeds()).for_each(|seed| endure(seed, 31, 60));
}

#[test]
fn a_liar_among_three_hundred_changes_nothing_and_kills_nobody() {
    (0..seeds().div_ceil(20)).for_each(|seed| endure(1_000 + seed, 301, 40));
}

/// Whatever a peer says about daemons that nobody knows takes no memory.
#[test]
fn daemons_that_nobody_knows_are_not_remembered() {
    let mut world = honest(7, 8);
    let stamp =
        Stamp { generation: Generation { boot_ms: 1, nonce: 1 }, version: Version(1), digest: Digest::EMPTY };
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    for _ in 0..50 {
        let ids: Vec<NodeId> = (0..400).map(|_| NodeId::new(rng.random())).collect();
        let updates = ids.iter().take(50).map(|origin| Update {
            origin: *origin,
            stamp,
            attestation: Attestation::default(),
            base: Base::Nothing,
            after: Version::ZERO,
            last: false,
            ops: Vec::new(),
        });
        let stamps: Vec<_> = ids.iter().map(|id| (*id, stamp)).collect();
        let wants = ids.iter().map(|id| (*id, Some(stamp))).collect();
        for frame in [
            Frame::Updates(Updates { updates: updates.collect() }),
            Frame::Have(Have { stamps, complete: Vec::new() }),
            Frame::Pull(Pull { wants, graft: true }),
            Frame::Prune(Prune { origins: ids.clone() }),
            Frame::Lost(Lost { members: ids }),
        ] {
            world.inject(LIAR, &frame);
        }
        world.run_for(50);
    }
    assert!(world.nodes().all(|(_, node)| node.replica().store().iter().count() == 8));
    assert!(world.nodes().all(|(_, node)| node.links().all(|(_, link)| link.remembered() <= 5 * 8)));
    is_fine(&world);
    assert_eq!(world.alarms(), []);
}

/// Whoever is dialled is dialled at the addresses that it has signed itself: dials come from the member table, and its
/// records are verified before they get there.
#[test]
fn nobody_is_dialled_at_addresses_that_others_have_made_up() {
    for seed in 0..seeds() {
        let mut world = honest(seed, 12);
        let true_addresses: Vec<_> =
            world.nodes().map(|(_, node)| (node.identity().id, node.identity().addresses.clone())).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for _ in 0..20 {
            let (id, _) = true_addresses[rng.random_range(2..12)].clone();
            let mut record = world.node(LIAR).unwrap().record(&id).unwrap().clone();
            record.identity.addresses = vec![([127, 0, 0, 1], 22).into()];
            record.identity.renewal += rng.random_range(0..2);
            record.incarnation += rng.random_range(0..2);
            record.state = State::Suspect;
            world.inject(LIAR, &membership(&record));
            world.run_for(rng.random_range(5..200));
            for (number, node) in world.nodes() {
                for (member, _) in node.members() {
                    let known = (member.id, member.addresses.clone());
                    assert!(true_addresses.contains(&known), "seed {seed}: {number} would dial {member:?}");
                }
            }
        }
    }
}

/// A member cannot be one host for its peers and another in the registry, whose names tunnels and rules go by.
#[test]
fn a_member_that_takes_another_name_in_the_registry_is_not_linked() {
    let mut world = honest(11, 8);
    let liar = world.start();
    world.introduce_as(liar, "evil");
    world.join(liar, 0);
    world.run_for(20_000);
    let id = world.node(liar).unwrap().identity().id;
    for number in 0..8 {
        let node = world.node(number).unwrap();
        assert!(node.links().all(|(_, link)| link.peer.id != id), "{number}");
    }
    let blamed = |alarm: &Alarm| matches!(alarm, Alarm::Violation(peer, _) if *peer == id);
    assert!(world.alarms().iter().any(|(_, by, alarm)| *by == 0 && blamed(alarm)), "{:?}", world.alarms());
}
