//! Frames that no honest daemon sends, before and after the proof.

use pmd_protocol::limits::{MAX_FRAME, MAX_HANDSHAKE_FRAME};
use pmd_protocol::peer::frame::Heartbeat;
use pmd_protocol::peer::{Frame, Phase};

use super::intruder::{Card, Talk};
use crate::world::{COOKIE, World};

/// A frame of this type and so many bytes after its length, all of them the same.
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

/// A link to the daemon as an honest one would have it: proven.
fn proven(world: &World) -> Talk {
    let card = Card::fresh();
    let mut talk = Talk::dial(world, 1, 0, Some(&card)).expect("TLS");
    talk.greet(card.hello(), COOKIE).expect("a greeting");
    talk.hear_proof();
    talk.phase = Phase::Proven;
    talk
}

#[test]
fn strangers_may_send_little_and_only_greetings() {
    let world = world();
    let node = world.register(0, "alice", 41_001);
    let heartbeat = some_heartbeat();
    let mut early = Vec::new();
    pmd_protocol::peer::codec::encode(&Frame::Heartbeat(heartbeat), &mut early).expect("a frame that fits");
    let unknown = frame(200, 1, 20).repeat(1_000);
    for (what, bytes) in [
        ("one byte too many", frame(1, 1, MAX_HANDSHAKE_FRAME + 1)),
        ("four gigabytes, announced", vec![0xff; 8]),
        ("no type", vec![0, 0, 0, 1, 1]),
        ("a Hello of nothing", frame(1, 1, 2)),
        ("a Hello of rubbish", frame(1, 1, 600)),
        ("a proof before the greeting", frame(2, 1, 35)),
        ("a heartbeat", early),
        ("a thousand of an unknown type", unknown),
        ("HTTP", b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n".to_vec()),
    ] {
        let mut talk = Talk::dial(&world, 1, 0, Some(&Card::fresh())).expect("TLS");
        // It may be refused before all of it is sent.
        let _ = talk.say_bytes(&bytes);
        let ending = talk.hear_out().without_proof();
        assert!(ending.frames.iter().all(|frame| matches!(frame, Frame::Close(_))), "{what}: {ending:?}");
    }
    world.wait_for_names(&[0], [&node]);
    assert!(node.is_open());
    assert_eq!(world.members(0), ["h1"]);
}

fn some_heartbeat() -> Heartbeat {
    Heartbeat { sequence: 0, next_ds: 10, summary: None, echo: None }
}

#[test]
fn a_member_may_send_what_this_version_does_not_know() {
    let world = world();
    let mut talk = proven(&world);
    // A newer version's, in type and in layout; and bodies that are none.
    for bytes in [frame(200, 1, 1_000), frame(16, 9, 100), frame(18, 1, MAX_FRAME), frame(19, 1, 2)] {
        talk.say_bytes(&bytes).expect("the link stands");
    }
    // It still does, and the daemon still talks: it has to, to find out whether this one lives.
    talk.say(&Frame::Heartbeat(some_heartbeat())).expect("the link stands");
    let mut heartbeats = 0;
    while heartbeats < 2 {
        match talk.hear().expect("the link stands") {
            Frame::Heartbeat(_) => heartbeats += 1,
            Frame::Close(bye) => panic!("{bye:?}"),
            _ => {}
        }
    }
}

#[test]
fn a_member_that_sends_too_long_a_frame_is_cut_off_and_no_more() {
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
