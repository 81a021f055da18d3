//! A lying member among honest ones, for the tests and for `make sim`.

#![allow(dead_code, reason = "shared by a test and an example, each of which uses only a part")]
#![allow(unreachable_pub, clippy::unwrap_used, reason = "a violated property fails the test")]

use pmd_core::id::Generation;
use pmd_core::membership::record::{Record, State, encode};
use pmd_core::node::Alarm;
use pmd_core::sim::World;
use pmd_protocol::peer::frame::{Have, Lost, Membership};
use pmd_protocol::peer::{
    Attestation, Base, Digest, Frame, Key, Kind, Op, Signature, Stamp, Update, Value, Version,
};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

use super::cluster::{cluster, downs, found, state};

/// The host of the liar.
pub const LIAR: usize = 1;

pub fn membership(record: &Record) -> Frame {
    let (records, _) = encode([record], usize::MAX);
    Frame::Membership(Membership { records })
}

/// A cluster in which each host has a service of its own.
pub fn honest(seed: u64, count: usize) -> World {
    let mut world = cluster(seed, count);
    (0..count).for_each(|number| world.register(number, &format!("own-{number}"), 1));
    world.run_for(3_000);
    world
}

/// A lie about `victim`, as a member can make it up from what it knows.
pub fn lie(world: &World, victim: usize, rng: &mut ChaCha8Rng) -> Frame {
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
pub fn endure(seed: u64, count: usize, lies: usize) {
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
            Alarm::Violation(id, _) => world.number_of(id),
            _ => None,
        };
        // The liar's own daemon is honest, and whoever answers a lie is blamed by nobody.
        assert_eq!(blamed, Some(LIAR), "seed {seed}: {by} {alarm:?}");
    }
    assert!(!world.alarms().is_empty(), "seed {seed}: nobody has noticed");
}
