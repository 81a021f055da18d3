//! Claims under faults, in simulated worlds: never two holders, never a number that falls.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a violated property fails the test")]

#[path = "support/claims.rs"]
mod claims;

use claims::{run, violations};
use pmd_core::sim::{ClaimsWorld, Sabotage};
use pmd_protocol::peer::claims::Role;

/// Seeds in each of the worlds. `make sim SIM='claims 10000'` runs more.
const SEEDS: u64 = 250;

#[test]
fn three_voters_grant_to_one_at_a_time() {
    (0..SEEDS).for_each(|seed| run(seed, 3));
}

#[test]
fn five_voters_grant_to_one_at_a_time() {
    (0..SEEDS).for_each(|seed| run(seed, 5));
}

/// The check would find a broken rule: each of these breaks one.
#[test]
fn planted_faults_are_found() {
    for sabotage in [Sabotage::ForgetfulStores, Sabotage::SlowClocks, Sabotage::NoGuardians] {
        let found = (0..40).any(|seed| !violations(seed, 3, sabotage).is_empty());
        assert!(found, "{sabotage:?} is not found");
    }
}

#[test]
fn a_quiet_world_has_one_leader_and_grants() {
    for voters in [1, 2, 3, 5, 7] {
        let mut world = ClaimsWorld::new(7, voters, 2, Sabotage::None);
        world.run_for(120_000);
        assert_eq!(world.history().violations(), [] as [String; 0]);
        assert!(world.history().grants(0) > 5 && world.history().grants(1) > 5, "{voters} voters");
        assert_eq!(world.roles().filter(|role| *role == Role::Leader).count(), 1);
        assert_eq!(world.roles().filter(|role| *role == Role::Follower).count(), voters - 1);
    }
}
