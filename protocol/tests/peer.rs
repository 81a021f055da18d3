//! Frames between daemons: properties of all messages and all bytes, and the exact limits.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

use std::net::{IpAddr, SocketAddr};

use bytes::BytesMut;
use pmd_protocol::limits::{
    FRAME_FIXED, FRAME_LENGTH, MAX_ADDRESSES, MAX_ANSWERED, MAX_CLUSTER_NAME, MAX_EXPULSIONS, MAX_FRAME,
    MAX_HANDSHAKE_FRAME, MAX_HOST_NAME, MAX_KEY_NAME, MAX_LOST, MAX_PUBLIC_KEY, MAX_RANGES, MAX_REASON,
    MAX_SIGNATURE, MAX_STAMPS, MAX_UPDATES, MAX_VALUE, MAX_VERSION_TEXT,
};
use pmd_protocol::peer::codec::{Decoded, FrameError, PeerCodec, Phase, Skip, decode, encode};
use pmd_protocol::peer::frame::{
    Answer, Ask, Back, Clock, Close, Depart, DialBack, Echo, Frame, Have, Heartbeat, Hello, Lost, Membership,
    Observation, Open, Opened, Preface, Probe, Probed, Proof, Prune, Pull, Range, Ranges, Reason, Relay,
    Summary, Tally,
};
use pmd_protocol::peer::{
    Attestation, Base, Digest, Expulsion, Expulsions, Generation, Key, Kind, NodeId, Op, PublicKey,
    RevocationList, Rotation, Signature, Stamp, StatementHash, Update, Updates, Value, Version,
};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use tokio_util::codec::{Decoder, Encoder};

fn id() -> impl Strategy<Value = NodeId> {
    any::<[u8; 32]>().prop_map(NodeId::new)
}

fn digest() -> impl Strategy<Value = Digest> {
    any::<[u8; 32]>().prop_map(Digest::of)
}

fn generation() -> impl Strategy<Value = Generation> {
    any::<(u64, u64)>().prop_map(|(boot_ms, nonce)| Generation { boot_ms, nonce })
}

fn stamp() -> impl Strategy<Value = Stamp> {
    (generation(), any::<u64>(), digest()).prop_map(|(generation, version, digest)| Stamp {
        generation,
        version: Version(version),
        digest,
    })
}

fn key() -> impl Strategy<Value = Key> {
    (
        any::<u8>(),
        prop_oneof![vec(any::<u8>(), 0..20), vec(any::<u8>(), MAX_KEY_NAME..=MAX_KEY_NAME)],
        any::<u64>(),
    )
        .prop_map(|(kind, name, instance)| Key::new(Kind(kind), &name, instance).unwrap())
}

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![vec(any::<u8>(), 0..40), vec(any::<u8>(), MAX_VALUE..=MAX_VALUE)]
        .prop_map(|bytes| Value::new(&bytes).unwrap())
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![(key(), value()).prop_map(|(key, value)| Op::Put(key, value)), key().prop_map(Op::Delete)]
}

fn attestation() -> impl Strategy<Value = Attestation> {
    let signature =
        prop_oneof![Just(vec![]), vec(any::<u8>(), 66..=66), vec(any::<u8>(), MAX_SIGNATURE..=MAX_SIGNATURE)];
    (any::<[u8; 32]>(), signature).prop_map(|(other, signature)| Attestation {
        other: StatementHash(other),
        signature: Signature::new(&signature).unwrap(),
    })
}

fn update() -> impl Strategy<Value = Update> {
    let base =
        prop_oneof![Just(Base::Nothing), any::<u64>().prop_map(|version| Base::After(Version(version)))];
    let ops = vec((any::<u64>().prop_map(Version), op()), 0..6);
    (id(), (stamp(), attestation()), base, any::<(u64, bool)>(), ops).prop_map(
        |(origin, (stamp, attestation), base, (after, last), ops)| Update {
            origin,
            stamp,
            attestation,
            base,
            after: Version(after),
            last,
            ops,
        },
    )
}

fn handshake() -> impl Strategy<Value = Frame> {
    let preface = any::<u16>().prop_map(|protocol| Frame::Preface(Preface { protocol }));
    let hello = (
        id(),
        (generation(), any::<u32>(), "[a-z.]{0,253}"),
        "[a-z]{0,64}",
        vec(any::<(IpAddr, u16)>().prop_map(SocketAddr::from), 0..=MAX_ADDRESSES),
        "[0-9a-z.-]{0,64}",
    )
        .prop_map(|(id, (generation, renewal, host), cluster, addresses, software)| {
            Frame::Hello(Hello { id, generation, renewal, host, cluster, addresses, software })
        });
    let proof = any::<[u8; 32]>().prop_map(|mac| Frame::Proof(Proof { mac, other: Some(mac) }));
    let reasons = vec![
        Reason::Leaving,
        Reason::Duplicate,
        Reason::NotNeeded,
        Reason::Refused,
        Reason::Busy,
        Reason::Violation,
        Reason::Silent,
        Reason::Cookie,
    ];
    let close =
        (select(reasons), "[ -~]{0,256}").prop_map(|(reason, text)| Frame::Close(Close { reason, text }));
    prop_oneof![preface, hello, proof, close]
}

fn frame() -> impl Strategy<Value = Frame> {
    let echo = any::<(u8, u16)>().prop_map(|(sequence, held_ms)| Echo { sequence, held_ms });
    let summary = any::<([u8; 8], u32)>().prop_map(|(fingerprint, members)| Summary { fingerprint, members });
    let heartbeat = (any::<u8>(), any::<u16>(), prop::option::of(summary), prop::option::of(echo)).prop_map(
        |(sequence, next_ds, summary, echo)| Frame::Heartbeat(Heartbeat { sequence, next_ds, summary, echo }),
    );
    let membership = vec(any::<u8>(), 0..200).prop_map(|records| Frame::Membership(Membership { records }));
    let have = (vec((id(), stamp()), 0..8), vec((id(), id()), 0..4))
        .prop_map(|(stamps, complete)| Frame::Have(Have { stamps, complete }));
    let pull = (vec((id(), prop::option::of(stamp())), 0..8), any::<bool>())
        .prop_map(|(wants, graft)| Frame::Pull(Pull { wants, graft }));
    let prune = vec(id(), 0..8).prop_map(|origins| Frame::Prune(Prune { origins }));
    let range = (id(), id(), digest(), any::<u32>()).prop_map(|(first, last, digest, count)| Range {
        first,
        last,
        digest,
        count,
    });
    let ranges = vec(range, 0..8).prop_map(|ranges| Frame::Ranges(Ranges { ranges }));
    let probe = (any::<u64>(), id(), generation())
        .prop_map(|(token, target, generation)| Frame::Probe(Probe { token, target, generation }));
    let probed = (
        any::<u64>(),
        select(vec![Observation::Reached, Observation::Silent, Observation::Refused, Observation::Unknown]),
    )
        .prop_map(|(token, observation)| Frame::Probed(Probed { token, observation }));
    let tally = (any::<[u8; 8]>(), any::<u32>(), any::<bool>()).prop_map(|(fingerprint, members, asks)| {
        Frame::Tally(Tally { summary: Summary { fingerprint, members }, asks })
    });
    let lost = vec(id(), 0..8).prop_map(|members| Frame::Lost(Lost { members }));
    let clock = any::<u64>().prop_map(|wall_ms| Frame::Clock(Clock { wall_ms }));
    let open = (any::<u8>(), "[^\0]{0,20}", any::<u32>())
        .prop_map(|(kind, name, creation)| Frame::Open(Open { kind: Kind(kind), name, creation }));
    let opened = any::<(u16, u32)>().prop_map(|(port, took_us)| Frame::Opened(Opened { port, took_us }));
    let dial_back = (id(), id(), id(), any::<[u8; 16]>())
        .prop_map(|(asker, target, at, token)| Frame::DialBack(DialBack { asker, target, at, token }));
    let back = any::<[u8; 16]>().prop_map(|token| Frame::Back(Back { token }));
    let relay = id().prop_map(|target| Frame::Relay(Relay { target }));
    let depart =
        (id(), generation()).prop_map(|(target, generation)| Frame::Depart(Depart { target, generation }));
    let ask = (any::<u64>(), "[^\0]{0,20}").prop_map(|(number, name)| Frame::Ask(Ask { number, name }));
    let answered =
        (key(), vec(any::<u8>(), 0..40)).prop_map(|(key, value)| (key, Value::new(&value).unwrap()));
    let answer = (any::<u64>(), vec(answered, 0..=MAX_ANSWERED))
        .prop_map(|(number, entries)| Frame::Answer(Answer { number, entries }));
    let keys = (vec(any::<u8>(), 0..100), vec(any::<u8>(), 0..100))
        .prop_map(|(key, signature)| (PublicKey::new(&key).unwrap(), Signature::new(&signature).unwrap()));
    let expulsion = (id(), any::<u64>(), any::<bool>(), "[a-z]{0,20}", "[a-z]{0,20}", keys.clone()).prop_map(
        |(member, decided_ms, expelled, host, by, (author, signature))| Expulsion {
            member,
            decided_ms,
            expelled,
            host,
            by,
            author,
            signature,
        },
    );
    let expulsions = vec(expulsion, 0..4).prop_map(|list| Frame::Expulsions(Expulsions { list }));
    let rotation = (any::<u64>(), any::<bool>(), prop::option::of(id()), "[a-f0-9]{0,64}", keys).prop_map(
        |(begun_ms, finished, without, secret, (author, signature))| {
            Frame::Rotation(Rotation { begun_ms, finished, without, secret, author, signature })
        },
    );
    let revocations = vec(any::<u8>(), 0..100).prop_map(|der| Frame::RevocationList(RevocationList { der }));
    let decisions = prop_oneof![expulsions, rotation, revocations];
    let tunnels = prop_oneof![open, opened, dial_back, back, relay, depart, ask, answer];
    prop_oneof![
        lost,
        clock,
        tally,
        tunnels,
        decisions,
        handshake(),
        heartbeat,
        membership,
        update().prop_map(Frame::Update),
        vec(update(), 0..3).prop_map(|updates| Frame::Updates(Updates { updates })),
        have,
        pull,
        prune,
        ranges,
        probe,
        probed,
    ]
}

fn bytes_of(frame: &Frame) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode(frame, &mut bytes).unwrap();
    bytes
}

proptest! {
    #[test]
    fn what_is_sent_is_received(frames in vec(frame(), 0..6), width in 1..200_usize) {
        let mut codec = PeerCodec::default();
        let mut wire = BytesMut::new();
        for frame in &frames {
            codec.encode(frame, &mut wire).unwrap();
        }
        codec.proven();
        let (mut buffer, mut received) = (BytesMut::new(), Vec::new());
        for chunk in wire.chunks(width) {
            buffer.extend_from_slice(chunk);
            while let Some(decoded) = codec.decode(&mut buffer).unwrap() {
                received.push(decoded);
            }
        }
        prop_assert_eq!(received, frames.into_iter().map(Decoded::Frame).collect::<Vec<_>>());
        prop_assert!(buffer.is_empty());
    }

    #[test]
    fn a_handshake_fits_into_its_frame(frame in handshake()) {
        let bytes = bytes_of(&frame);
        prop_assert_eq!(decode(&bytes, Phase::Handshake), Ok(Some((Decoded::Frame(frame), bytes.len()))));
    }

    #[test]
    fn only_handshake_frames_are_read_in_the_handshake(frame in frame()) {
        let is_handshake =
            matches!(frame, Frame::Preface(_) | Frame::Proof(_) | Frame::Hello(_) | Frame::Close(_));
        prop_assert_eq!(decode(&bytes_of(&frame), Phase::Handshake).is_ok(), is_handshake);
    }

    /// A newer version may append fields; an older one reads the fields it knows.
    #[test]
    fn additional_fields_are_ignored(frame in frame(), more in vec(any::<u8>(), 1..20)) {
        let mut bytes = bytes_of(&frame);
        bytes.extend_from_slice(&more);
        let length = u32::try_from(bytes.len() - FRAME_LENGTH).unwrap();
        bytes[..FRAME_LENGTH].copy_from_slice(&length.to_be_bytes());
        if bytes.len() <= MAX_FRAME {
            prop_assert_eq!(decode(&bytes, Phase::Proven), Ok(Some((Decoded::Frame(frame), bytes.len()))));
        }
    }

    #[test]
    fn unknown_messages_are_skipped_by_their_length(
        kind in prop_oneof![40..48_u8, 64..=255_u8],
        layout in any::<u8>(),
        body in vec(any::<u8>(), 0..300),
        next in frame(),
    ) {
        let length = u32::try_from(FRAME_FIXED + body.len()).unwrap();
        let mut bytes = [&length.to_be_bytes()[..], &[kind, layout], &body].concat();
        let unknown = bytes.len();
        bytes.extend_from_slice(&bytes_of(&next));
        let skipped = Decoded::Skipped { kind, why: Skip::Unknown };
        prop_assert_eq!(decode(&bytes, Phase::Proven), Ok(Some((skipped, unknown))));
        let rest = &bytes[unknown..];
        prop_assert_eq!(decode(rest, Phase::Proven), Ok(Some((Decoded::Frame(next), rest.len()))));
    }

    #[test]
    fn a_known_message_of_an_unknown_layout_is_skipped(frame in frame(), layout in 2..=255_u8) {
        let mut bytes = bytes_of(&frame);
        bytes[FRAME_LENGTH + 1] = layout;
        let skipped = Decoded::Skipped { kind: frame.kind(), why: Skip::Unknown };
        prop_assert_eq!(decode(&bytes, Phase::Proven), Ok(Some((skipped, bytes.len()))));
    }
}

#[test]
fn a_length_is_refused_before_its_bytes_arrive() {
    for (phase, limit) in [(Phase::Handshake, MAX_HANDSHAKE_FRAME), (Phase::Proven, MAX_FRAME)] {
        let most = u32::try_from(limit).unwrap();
        assert_eq!(decode(&most.to_be_bytes(), phase), Ok(None));
        let error = FrameError::TooLong { length: most + 1, limit };
        assert_eq!(decode(&(most + 1).to_be_bytes(), phase), Err(error));
        assert!(decode(&u32::MAX.to_be_bytes(), phase).is_err());
        for short in [0_u32, 1] {
            assert_eq!(decode(&short.to_be_bytes(), phase), Err(FrameError::TooShort(short)));
        }
    }
}

#[test]
fn malformed_bodies_are_skipped_after_the_handshake_and_end_the_connection_in_it() {
    let bytes = [0, 0, 0, 3, 4, 1, 0x80];
    let skipped = Decoded::Skipped { kind: 4, why: Skip::Malformed };
    assert_eq!(decode(&bytes, Phase::Proven), Ok(Some((skipped, bytes.len()))));
    assert_eq!(decode(&bytes, Phase::Handshake), Err(FrameError::InHandshake(4)));
}

/// A daemon of version 1 can be told why it is rejected.
#[test]
fn a_hello_of_version_1_is_read_as_a_preface() {
    // Protocol version, id, generation, renewal, host, cluster, no addresses, program version.
    let body = [&[1][..], &[2; 32], &[1, 7, 0], b"\x03db1", b"\x03pmd", &[0], b"\x050.1.0"].concat();
    let length = u32::try_from(FRAME_FIXED + body.len()).unwrap();
    let bytes = [&length.to_be_bytes()[..], &[1, 1], &body].concat();
    let preface = Decoded::Frame(Frame::Preface(Preface { protocol: 1 }));
    assert_eq!(decode(&bytes, Phase::Handshake), Ok(Some((preface, bytes.len()))));
}

#[test]
fn an_idle_heartbeat_is_small() {
    let heartbeat = Heartbeat { sequence: 200, next_ds: 10, summary: None, echo: None };
    assert_eq!(bytes_of(&Frame::Heartbeat(heartbeat)).len(), 10);
}

#[test]
fn the_largest_lists_fit_into_a_frame() {
    let stamp = Stamp {
        generation: Generation { boot_ms: u64::MAX, nonce: u64::MAX },
        version: Version(u64::MAX),
        digest: Digest::EMPTY,
    };
    let range = Range { first: NodeId::MIN, last: NodeId::MAX, digest: Digest::EMPTY, count: u32::MAX };
    let stamps = vec![(NodeId::MAX, stamp); MAX_STAMPS];
    for frame in [
        Frame::Have(Have { stamps: stamps.clone(), complete: vec![] }),
        Frame::Have(Have { stamps: vec![], complete: vec![(NodeId::MIN, NodeId::MAX); MAX_RANGES] }),
        Frame::Pull(Pull {
            wants: stamps.iter().map(|(id, stamp)| (*id, Some(*stamp))).collect(),
            graft: true,
        }),
        Frame::Prune(Prune { origins: vec![NodeId::MAX; MAX_STAMPS] }),
        Frame::Ranges(Ranges { ranges: vec![range; MAX_RANGES] }),
        Frame::Lost(Lost { members: vec![NodeId::MAX; MAX_LOST] }),
    ] {
        let bytes = bytes_of(&frame);
        assert_eq!(decode(&bytes, Phase::Proven), Ok(Some((Decoded::Frame(frame), bytes.len()))));
    }
}

/// Each has one element, or one byte, more than allowed.
#[test]
fn lists_and_texts_beyond_their_limits_are_malformed() {
    let hello = Hello {
        id: NodeId::MIN,
        generation: Generation::default(),
        renewal: u32::MAX,
        host: "a".repeat(MAX_HOST_NAME),
        cluster: "a".repeat(MAX_CLUSTER_NAME),
        addresses: vec!["[::1]:4369".parse().unwrap(); MAX_ADDRESSES],
        software: "a".repeat(MAX_VERSION_TEXT),
    };
    assert!(bytes_of(&Frame::Hello(hello.clone())).len() <= MAX_HANDSHAKE_FRAME);
    let more = |text: &str| format!("{text}a");
    let empty = Update {
        origin: NodeId::MIN,
        stamp: Stamp::default(),
        attestation: Attestation::default(),
        base: Base::Nothing,
        after: Version::ZERO,
        last: true,
        ops: vec![],
    };
    let answered = (Key::new(Kind::NAME, b"a", 0).unwrap(), Value::new(&[1]).unwrap());
    let mut addresses = hello.addresses.clone();
    addresses.push(addresses[0]);
    for frame in [
        Frame::Hello(Hello { cluster: more(&hello.cluster), ..hello.clone() }),
        Frame::Hello(Hello { host: more(&hello.host), ..hello.clone() }),
        Frame::Hello(Hello { software: more(&hello.software), ..hello.clone() }),
        Frame::Hello(Hello { addresses, ..hello }),
        Frame::Close(Close { reason: Reason::Busy, text: "a".repeat(MAX_REASON + 1) }),
        Frame::Prune(Prune { origins: vec![NodeId::MIN; MAX_STAMPS + 1] }),
        Frame::Updates(Updates { updates: vec![empty; MAX_UPDATES + 1] }),
        Frame::Ask(Ask { number: 0, name: "a".repeat(MAX_KEY_NAME + 1) }),
        Frame::Answer(Answer { number: 0, entries: vec![answered; MAX_ANSWERED + 1] }),
    ] {
        let skipped = Decoded::Skipped { kind: frame.kind(), why: Skip::Malformed };
        let bytes = bytes_of(&frame);
        assert_eq!(decode(&bytes, Phase::Proven), Ok(Some((skipped, bytes.len()))));
    }
}

#[test]
fn a_message_that_does_not_fit_is_not_encoded() {
    let mut out = vec![7];
    let ops = (1..=9).map(|number| {
        let key = Key::new(Kind::NAME, &[number], 0).unwrap();
        (Version(number.into()), Op::Put(key, Value::new(&[0; MAX_VALUE]).unwrap()))
    });
    let update = Update {
        origin: NodeId::MIN,
        stamp: Stamp::default(),
        attestation: Attestation::default(),
        base: Base::Nothing,
        after: Version::ZERO,
        last: true,
        ops: ops.collect(),
    };
    assert!(encode(&Frame::Update(update), &mut out).is_err());
    assert_eq!(out, [7]);
}

#[test]
fn the_longest_list_of_decisions_fits_into_a_frame() {
    let host = "h".repeat(MAX_HOST_NAME);
    let longest = Expulsion {
        member: NodeId::new([0xff; 32]),
        decided_ms: u64::MAX,
        expelled: true,
        host: host.clone(),
        by: host,
        author: PublicKey::new(&[0xff; MAX_PUBLIC_KEY]).unwrap(),
        signature: Signature::new(&[0xff; MAX_SIGNATURE]).unwrap(),
    };
    let frame = Frame::Expulsions(Expulsions { list: vec![longest; MAX_EXPULSIONS] });
    let bytes = bytes_of(&frame);
    assert_eq!(decode(&bytes, Phase::Proven), Ok(Some((Decoded::Frame(frame), bytes.len()))));
}
