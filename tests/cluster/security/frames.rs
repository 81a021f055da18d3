//! Frames that no honest daemon sends, before and after the proof.

use pmd_protocol::limits::{MAX_FRAME, MAX_HANDSHAKE_FRAME};
use pmd_protocol::peer::Frame;
use pmd_protocol::peer::frame::Heartbeat;

use super::intruder::{Card, Talk};
use crate::world::{COOKIE, World};

/// A frame of this type with `length` bytes after its length field, all of them equal.
fn frame(kind: u8, layout: u8, length: usize) -> Vec<u8> {
    let mut bytes = u32::try_from(length).expect("a length").to_be_bytes().to_vec();
    bytes.extend([kind, layout]);
    bytes.resize(4 + length, 0xa5);
    bytes
}

/// A daemon with a node, and a host without a daemon.
fn world() -> World {
    let mut world = World::new(2);
    world.start(0);
    world
}

/// An authenticated link to the daemon, as an honest peer would have.
fn proven(world: &World) -> Talk {
    let card = Card::fresh();
    let mut talk = Talk::dial(world, 1, 0, Some(&card)).expect("TLS");
    talk.handshake(card.hello(), COOKIE).expect("a handshake");
    talk
}

#[test]
fn only_short_handshake_frames_are_accepted_before_the_proof() {
    let world = world();
    let node = world.register(0, "alice", 41_001);
    let heartbeat = some_heartbeat();
    let mut early = Vec::new();
    pmd_protocol::peer::codec::encode(&Frame::Heartbeat(heartbeat), &mut early).expect("a frame that fits");
    let unknown = frame(200, 1, 20).repeat(1_000);
    for (what, bytes) in [
        ("one byte too many", frame(4, 1, MAX_HANDSHAKE_FRAME + 1)),
        ("four gigabytes, announced", vec![0xff; 8]),
        ("no type", vec![0, 0, 0, 1, 1]),
        ("a Preface of nothing", frame(1, 1, 2)),
        ("a Preface of rubbish", frame(1, 1, 600)),
        ("a Hello of rubbish", frame(4, 1, 600)),
        ("a proof of rubbish", frame(2, 1, 35)),
        ("a heartbeat", early),
        ("a thousand of an unknown type", unknown),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
    ] {
        let mut talk = Talk::dial(&world, 1, 0, Some(&Card::fresh())).expect("TLS");
        // The daemon may close before everything is sent.
        let _ = talk.say_bytes(&bytes);
        println!("{what}");
        talk.hear_out().told_nothing();
    }
    world.wait_for_names(&[0], [&node]);
    assert!(node.is_open());
    assert_eq!(world.members(0), ["h1"]);
}

fn some_heartbeat() -> Heartbeat {
    Heartbeat { sequence: 0, next_ds: 10, summary: None, echo: None }
}

#[test]
fn unknown_frames_of_a_member_are_skipped() {
    let world = world();
    let mut talk = proven(&world);
    // Unknown types and layouts, as of a newer version, and malformed bodies.
    for bytes in [frame(200, 1, 1_000), frame(16, 9, 100), frame(18, 1, MAX_FRAME), frame(19, 1, 2)] {
        talk.say_bytes(&bytes).expect("the link is up");
    }
    // The link is still up, and the daemon sends heartbeats to check whether this peer is alive.
    talk.say(&Frame::Heartbeat(some_heartbeat())).expect("the link is up");
    let mut heartbeats = 0;
    while heartbeats < 2 {
        match talk.hear().expect("the link is up") {
            Frame::Heartbeat(_) => heartbeats += 1,
            Frame::Close(bye) => panic!("{bye:?}"),
            _ => {}
        }
    }
}

#[test]
fn an_oversized_frame_closes_only_its_own_link() {
    let world = world();
    let node = world.register(0, "alice", 41_001);
    for bytes in [frame(18, 1, MAX_FRAME + 1), vec![0xff; 8], vec![0, 0, 0, 1, 1]] {
        let mut talk = proven(&world);
        let _ = talk.say_bytes(&bytes);
        talk.hear_out();
    }
    world.wait_for_names(&[0], [&node]);
    assert!(node.is_open());
}
