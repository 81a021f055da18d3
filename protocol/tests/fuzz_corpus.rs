//! Replays the committed fuzz corpora with the checks of the fuzz targets, on a stable compiler.

#![allow(clippy::panic, clippy::expect_used, reason = "a violated property fails the test")]

#[path = "../../fuzz/src/epmd.rs"]
pub mod epmd;
#[path = "../../fuzz/src/peer.rs"]
pub mod peer;

use std::fs;
use std::io;
use std::path::Path;

use pmd_protocol::peer::codec::{Decoded, Phase, Skip, decode};

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

/// Without a seed, a fuzzer takes a long time to discover the format of a message.
#[test]
fn every_kind_of_message_has_seeds() -> io::Result<()> {
    let known: Vec<u8> = (0..=u8::MAX)
        .filter(|kind| {
            let empty = decode(&[0, 0, 0, 2, *kind, 1], Phase::Proven);
            !matches!(empty, Ok(Some((Decoded::Skipped { why: Skip::Unknown, .. }, _))))
        })
        .collect();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/peer_frames");
    let mut seeded = Vec::new();
    for seed in fs::read_dir(folder)? {
        if let Ok(Some((Decoded::Frame(frame), _))) = decode(&fs::read(seed?.path())?, Phase::Proven) {
            seeded.push(frame.kind());
        }
    }
    let without: Vec<u8> = known.into_iter().filter(|kind| !seeded.contains(kind)).collect();
    assert!(without.is_empty(), "kinds without seeds: {without:?}");
    let bodies = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/peer_body");
    let mut kinds = Vec::new();
    for seed in fs::read_dir(bodies)? {
        kinds.extend(fs::read(seed?.path())?.first().copied());
    }
    seeded.retain(|kind| !kinds.contains(kind));
    assert!(seeded.is_empty(), "kinds without seeds in peer_body: {seeded:?}");
    Ok(())
}
