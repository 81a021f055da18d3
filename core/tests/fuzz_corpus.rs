//! Replays the committed fuzz corpora with the checks of the fuzz targets, on a stable compiler.

#![allow(clippy::panic, clippy::expect_used, reason = "a violated property fails the test")]

#[path = "../../fuzz/src/node.rs"]
pub mod node;
#[path = "../../fuzz/src/signed.rs"]
pub mod signed;

use std::fs;
use std::io;
use std::path::Path;

use proptest::collection::vec;
use proptest::prelude::*;

/// Calls `check` with each seed of `target`, and returns the number of seeds.
fn replay(target: &str, check: fn(&[u8])) -> io::Result<usize> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut seeds = 0;
    for seed in fs::read_dir(folder)? {
        let seed = seed?.path();
        // The test harness prints this only if the check panics.
        println!("{}", seed.display());
        check(&fs::read(seed)?);
        seeds += 1;
    }
    Ok(seeds)
}

#[test]
fn node_frames() -> io::Result<()> {
    assert!(replay("node_frames", node::frames)? >= 6);
    Ok(())
}

#[test]
fn node_signed() -> io::Result<()> {
    let mut most = 0;
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/node_signed");
    for seed in fs::read_dir(folder)? {
        let seed = seed?.path();
        println!("{}", seed.display());
        most = most.max(signed::statements(&fs::read(seed)?));
    }
    assert_eq!(most, 3, "what is genuine reaches the receiver, or the property would hold of nothing");
    Ok(())
}

#[test]
fn node_delta() -> io::Result<()> {
    assert!(replay("node_delta", node::delta)? >= 4);
    Ok(())
}

proptest! {
    #[test]
    fn delta_of_any_history(data in vec(any::<u8>(), 0..120)) {
        node::delta(&data);
    }
}
