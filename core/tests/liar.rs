//! A member that lies: it knows the cluster secret and has a key of its own, and sends whatever it likes about others.
//!
//! `PMD_SEEDS`, when the tests are built, sets the number of seeds: `PMD_SEEDS=1000 cargo test -p pmd-core --features sim
//! --test liar`.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

#[path = "support/cluster.rs"]
mod cluster;
#[path = "support/lies.rs"]
mod lies;

use cluster::is_fine;
use lies::{LIAR, endure, honest, membership};
use pmd_core::id::Generation;
use pmd_core::membership::record::State;
use pmd_core::node::Alarm;
use pmd_protocol::peer::frame::{Have, Lost, Prune, Pull};
use pmd_protocol::peer::{Attestation, Base, Digest, Frame, NodeId, Stamp, Update, Updates, Version};
use rand::rngs::ChaCha8Rng;
use rand::{RngExt, SeedableRng};

fn seeds() -> u64 {
    option_env!("PMD_SEEDS").and_then(|count| count.parse().ok()).unwrap_or(20)
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
