//! Replays the committed fuzz corpora with the checks of the fuzz targets, on a stable compiler.

#![allow(clippy::panic, clippy::expect_used, reason = "a broken law has to fail the test")]

#[path = "../../fuzz/src/epmd.rs"]
pub mod epmd;
#[path = "../../fuzz/src/peer.rs"]
pub mod peer;

use std::fs;
use std::io;
use std::path::Path;

/// Calls `check` with each seed of `target`; how many there were.
fn replay(target: &str, check: fn(&[u8])) -> io::Result<usize> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target);
    let mut seeds = 0;
    for seed in fs::read_dir(folder)? {
        let seed = seed?.path();
        // Shown only if the check panics.
        println!("{}", seed.display());
        check(&fs::read(seed)?);
        seeds += 1;
    }
    Ok(seeds)
}

#[test]
fn epmd_request() -> io::Result<()> {
    assert!(replay("epmd_request", epmd::request)? >= 20);
    Ok(())
}

#[test]
fn epmd_reply() -> io::Result<()> {
    assert!(replay("epmd_reply", epmd::reply)? >= 20);
    Ok(())
}

#[test]
fn epmd_roundtrip() -> io::Result<()> {
    assert!(replay("epmd_roundtrip", epmd::roundtrip)? >= 15);
    Ok(())
}

#[test]
fn peer_frames() -> io::Result<()> {
    assert!(replay("peer_frames", peer::frames)? >= 12);
    Ok(())
}

#[test]
fn peer_body() -> io::Result<()> {
    assert!(replay("peer_body", peer::body)? >= 12);
    Ok(())
}
