//! A run of claims under faults, for the tests and for `make sim`.

use pmd_core::sim::{ClaimsWorld, Sabotage};

/// The duration of the faults.
const FAULTS_MS: u64 = 60_000;

/// The violations of a run with faults.
pub(crate) fn violations(seed: u64, voters: usize, sabotage: Sabotage) -> Vec<String> {
    let mut world = ClaimsWorld::new(seed, voters, 2, sabotage);
    world.run_for(3_000);
    world.run_with_faults(FAULTS_MS);
    world.history().violations().to_vec()
}

/// Runs with faults, then without, and panics if a rule was broken or nothing is granted after the faults.
pub(crate) fn run(seed: u64, voters: usize) {
    let mut world = ClaimsWorld::new(seed, voters, 2, Sabotage::None);
    world.run_for(3_000);
    world.run_with_faults(FAULTS_MS);
    world.heal();
    // All hosts are back after 30 s, and all leases are over after 12 s. A command runs for at most 20 s.
    world.run_for(45_000);
    let before = [world.history().grants(0), world.history().grants(1)];
    world.run_for(60_000);
    let after = [world.history().grants(0), world.history().grants(1)];
    assert!(world.history().violations().is_empty(), "seed {seed}: {:#?}", world.history().violations());
    let grants = before.iter().zip(after).all(|(before, after)| after > *before);
    assert!(grants, "seed {seed}: nothing is granted, voters {:?}", world.roles().collect::<Vec<_>>());
}
