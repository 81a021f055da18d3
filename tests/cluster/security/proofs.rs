//! The proof of the cookie is valid only for its sender and its session.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::Duration;

use pmd::control::api::Join;
use pmd::control::client::ClientError;
use pmd_protocol::limits::MAX_REASON;
use pmd_protocol::peer::Frame;
use pmd_protocol::peer::frame::{Close, Hello, PROTOCOL, Preface, Proof, Reason};

use super::intruder::{Card, Talk, connect};
use crate::harness::daemon::register;
use crate::harness::wait_within;
use crate::machine::PORT;
use crate::world::{COOKIE, OTHER_COOKIE, PATIENCE, World};

/// The host of the intruder in all of these: it has no daemon.
const INTRUDER: usize = 2;

/// Two daemons in a cluster, and a host without one.
fn world() -> World {
    let mut world = World::new(3);
    world.start(0);
    world.start(1);
    world.join_first(1..2);
    world.wait_until_agreed(&[0, 1]);
    world
}

/// Checks that no intruder was admitted.
fn nobody_has_got_in(world: &World) {
    world.wait_until_agreed(&[0, 1]);
}

/// Makes the first host dial the intruder, and returns the connection and the future result of the join.
fn lured(world: &World) -> (TcpStream, impl FnOnce() -> Result<(), ClientError>) {
    let listener = world.site(INTRUDER).cell.run(|| TcpListener::bind(("0.0.0.0", PORT))).expect("its port");
    let join = Join { addresses: vec![world[INTRUDER].ip.to_string()], timeout_ms: Some(30_000) };
    let api = world[0].api();
    let (result, outcome) = channel();
    let joining = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let joined = runtime.block_on(api.join(&join)).map(drop);
        result.send(joined).expect("the test waits");
    });
    let (stream, _) = listener.accept().expect("a daemon that dials");
    let wait = move || {
        joining.join().expect("an answer of the API");
        outcome.recv().expect("an answer of the API")
    };
    (stream, wait)
}

/// Fails the test unless a join was rejected because of the peer's identity.
fn assert_refused(outcome: Result<(), ClientError>) {
    match outcome {
        Err(ClientError::Api { info, .. }) if info.code == "refused" => {}
        other => panic!("a join that is refused was expected: {other:?}"),
    }
}

#[test]
fn a_daemon_needs_only_the_cookie_and_its_own_key() {
    let world = world();
    let card = Card::fresh();
    let mut talk = Talk::dial(&world, INTRUDER, 0, Some(&card)).expect("TLS");
    let (proof, theirs) = talk.handshake(card.hello(), COOKIE).expect("a handshake");
    assert_eq!((theirs.host.as_str(), theirs.id), ("h1", talk.peer));
    assert_ne!(proof.mac, talk.proof(COOKIE).mac, "both sides' proofs are equal");
    talk.say(&Frame::Close(Close { reason: Reason::Leaving, text: String::new() })).expect("a Close");
    nobody_has_got_in(&world);
}

#[test]
fn a_daemon_without_the_cookie_is_rejected() {
    let world = world();
    let card = Card::fresh();
    // The last one is empty: no cookie at all.
    for cookie in [OTHER_COOKIE, &COOKIE[1..], "\n"] {
        let mut talk = Talk::dial(&world, INTRUDER, 0, Some(&card)).expect("TLS");
        talk.prove(cookie).expect("a proof");
        let ending = talk.hear_out().told_nothing();
        assert!(ending.close_reason().starts_with("Cookie"), "{ending:?}");
    }
    let counts = world.block_on(world[0].api().status()).expect("a status").counters;
    assert_eq!(counts.others.handshakes_cookie, 3, "{counts:?}");
    nobody_has_got_in(&world);
}

#[test]
fn a_client_without_a_certificate_is_rejected() {
    let world = world();
    let mut talk = Talk::dial(&world, INTRUDER, 0, None).expect("a client may speak before it is refused");
    // The daemon may already have closed the connection.
    let _ = talk.prove(COOKIE);
    let ending = talk.hear_out();
    assert!(ending.frames.is_empty(), "{ending:?}");
    let alert = ending.error.map(|error| error.to_string()).unwrap_or_default();
    assert!(alert.contains("CertificateRequired"), "{alert}");
    nobody_has_got_in(&world);
}

#[test]
fn tls_1_2_is_rejected() {
    let world = world();
    let mut stream = connect(&world, INTRUDER, world[0].ip);
    std::io::Write::write_all(&mut stream, &client_hello_of_tls12()).expect("sending the Hello");
    let mut answer = Vec::new();
    // The daemon may close with a reset, after its alert.
    let _ = stream.read_to_end(&mut answer);
    // RFC 8446, section 6: a fatal protocol_version alert, unless the connection is closed before it arrives.
    let alert = answer.first() == Some(&0x15) && answer.ends_with(&[2, 70]);
    assert!(alert || answer.is_empty(), "{answer:02x?}");
    // The daemon counts after it has sent its alert.
    wait_within(Duration::from_secs(10), "the rejection to be counted", || {
        let counts = world.block_on(world[0].api().status()).expect("a status").counters;
        counts.others.handshakes_tls == 1
    });
    nobody_has_got_in(&world);
}

/// RFC 5246, section 7.4.1.2, with two suites of TLS 1.2 and what they need.
fn client_hello_of_tls12() -> Vec<u8> {
    let mut hello = vec![3, 3];
    hello.extend([0x42; 32]);
    // No session; ECDHE with AES-GCM, for both kinds of keys; no compression.
    hello.extend([0, 0, 4, 0xc0, 0x2b, 0xc0, 0x2f, 1, 0]);
    let extensions = [
        // supported_groups: x25519, secp256r1
        &[0, 10, 0, 6, 0, 4, 0, 29, 0, 23][..],
        // ec_point_formats: uncompressed
        &[0, 11, 0, 2, 1, 0],
        // signature_algorithms: ECDSA and RSA-PSS with SHA-256
        &[0, 13, 0, 6, 0, 4, 4, 3, 8, 4],
    ]
    .concat();
    let length = |length: usize| u16::try_from(length).expect("a short Hello").to_be_bytes();
    hello.extend(length(extensions.len()));
    hello.extend(extensions);
    let mut message = vec![1, 0];
    message.extend(length(hello.len()));
    message.extend(hello);
    let mut record = vec![0x16, 3, 1];
    record.extend(length(message.len()));
    record.extend(message);
    record
}

#[test]
fn a_stranger_learns_nothing() {
    let world = world();
    let card = Card::fresh();
    let preface = |protocol| Frame::Preface(Preface { protocol });
    let proof = || Frame::Proof(Proof { mac: [7; 32], other: Some([8; 32]) });
    let cases = [
        (vec![], ""),
        (vec![preface(PROTOCOL)], ""),
        (vec![preface(PROTOCOL), proof()], "Cookie: cookie mismatch"),
        (vec![preface(1)], "Refused: only protocol version 2 is supported"),
        (vec![preface(PROTOCOL + 1), proof()], "Refused: only protocol version 2 is supported"),
        (vec![proof()], "Violation: "),
        (vec![Frame::Hello(card.hello())], "Violation: "),
        (vec![preface(PROTOCOL), Frame::Hello(card.hello())], "Violation: "),
    ];
    for (frames, reason) in cases {
        let mut talk = Talk::dial(&world, INTRUDER, 0, Some(&card)).expect("TLS");
        for frame in &frames {
            // The daemon may close after the first.
            let _ = talk.say(frame);
        }
        let ending = talk.hear_out().told_nothing();
        assert!(ending.close_reason().starts_with(reason), "{frames:?}: {ending:?}");
        assert_eq!(ending.frames.is_empty(), reason.is_empty(), "{frames:?}: {ending:?}");
    }
    nobody_has_got_in(&world);
}

#[test]
fn a_forged_id_is_rejected() {
    let world = world();
    let card = Card::fresh();
    let victim = world.status(1).expect("a status").id.parse().expect("an id");
    let forged = || Hello { id: victim, ..card.hello() };
    // As a daemon that dials, and as one that is dialled.
    let mut talk = Talk::dial(&world, INTRUDER, 0, Some(&card)).expect("TLS");
    talk.handshake(forged(), COOKIE).expect("a handshake");
    talk.hear_out().closed_because("Violation");
    let (stream, outcome) = lured(&world);
    let mut talk = Talk::answer(stream, &card).expect("TLS");
    let _proof = talk.hear_first_proof();
    let proof = talk.proof(COOKIE);
    talk.say(&Frame::Proof(proof)).expect("a proof");
    talk.say(&Frame::Hello(forged())).expect("a handshake");
    let _hello = talk.hear_hello();
    talk.hear_out().closed_because("Violation");
    assert_refused(outcome());
    nobody_has_got_in(&world);
}

#[test]
fn a_reflected_proof_is_rejected() {
    let world = world();
    let card = Card::fresh();
    let (stream, outcome) = lured(&world);
    let mut talk = Talk::answer(stream, &card).expect("TLS");
    let proof = talk.hear_first_proof();
    talk.say(&Frame::Proof(proof)).expect("sending the reflected proof");
    // A daemon that is lured to a stranger does not introduce itself either.
    let ending = talk.hear_out().told_nothing();
    assert!(ending.close_reason().starts_with("Cookie"), "{ending:?}");
    assert_refused(outcome());
    nobody_has_got_in(&world);
}

#[test]
fn a_replayed_proof_is_rejected() {
    let world = world();
    let card = Card::fresh();
    let (stream, outcome) = lured(&world);
    let mut talk = Talk::answer(stream, &card).expect("TLS");
    let recorded = talk.hear_first_proof();
    drop(talk);
    outcome().expect_err("a join that led nowhere");
    for to in [0, 1] {
        let mut talk = Talk::dial(&world, INTRUDER, to, Some(&card)).expect("TLS");
        talk.prove_with(recorded).expect("sending the replayed proof");
        let ending = talk.hear_out().told_nothing();
        assert!(ending.close_reason().starts_with("Cookie"), "{ending:?}");
    }
    nobody_has_got_in(&world);
}

#[test]
fn a_man_in_the_middle_is_rejected() {
    let world = world();
    let card = Card::fresh();
    // The attacker has only its own key, and forwards the proof of one daemon, while it waits for the answer, to another.
    let (stream, outcome) = lured(&world);
    let mut first = Talk::answer(stream, &card).expect("TLS");
    let proof = first.hear_first_proof();
    let mut second = Talk::dial(&world, INTRUDER, 1, Some(&card)).expect("TLS");
    second.prove_with(proof).expect("a forwarded proof");
    let ending = second.hear_out().told_nothing();
    assert!(ending.close_reason().starts_with("Cookie"), "{ending:?}");
    drop(first);
    outcome().expect_err("a join that led nowhere");
    nobody_has_got_in(&world);
}

#[test]
fn what_a_stranger_says_is_one_quoted_and_short_line_of_the_log() {
    const FORGED: &str = "FORGED";
    let world = world();
    let card = Card::fresh();
    let lines = |world: &World| {
        let log = world[0].log();
        log.lines().filter(|line| line.contains(FORGED)).map(str::to_owned).collect::<Vec<_>>()
    };
    let text = format!("\r\n\u{1b}[2J2026-01-01T00:00:00Z  INFO {FORGED}\" ");
    let text = format!("{text}{}", "x".repeat(MAX_REASON - text.len()));
    // The second is longer than a closing frame may be, so nothing of it is shown.
    for (text, shown) in [(text.clone(), true), (format!("{text}{}", "y".repeat(300)), false)] {
        let before = lines(&world).len();
        let (stream, outcome) = lured(&world);
        let mut talk = Talk::answer(stream, &card).expect("TLS");
        let _proof = talk.hear_first_proof();
        talk.say(&Frame::Close(Close { reason: Reason::Refused, text })).expect("a Close");
        let Err(ClientError::Api { info, .. }) = outcome() else {
            panic!("a join that is refused was expected")
        };
        // The daemon answers before its log is written.
        if shown {
            wait_within(PATIENCE, "the line of the log", || lines(&world).len() > before);
        }
        let logged = lines(&world).split_off(before);
        assert_eq!(logged.len(), usize::from(shown), "{logged:#?}");
        assert_eq!(info.message.contains(FORGED), shown, "{info:?}");
        for line in logged.iter().chain(shown.then_some(&info.message)) {
            let quoted = line.split_once("the peer says \"").and_then(|(_, quoted)| quoted.split_once("…\""));
            let (quoted, _) = quoted.unwrap_or_else(|| panic!("a quotation was expected: {line}"));
            assert!(quoted.starts_with(r"\r\n\u{1b}[2J2026") && quoted.ends_with('x'), "{line}");
            assert!(quoted.chars().count() < 200 && !line.contains(char::is_control), "{line}");
        }
    }
    // What others are told about it is the same line.
    let refusals = world.block_on(world[0].api().refusals()).expect("a response").refusals;
    let told: Vec<_> = refusals.iter().filter(|refusal| refusal.what.contains(FORGED)).collect();
    assert!(told.len() == 1 && told[0].what.ends_with("x…\"") && told[0].reason == "refused", "{refusals:?}");
    nobody_has_got_in(&world);
}

#[test]
fn registrations_from_other_hosts_are_refused() {
    let world = world();
    let first = (world[0].ip, PORT).into();
    for from in [1, INTRUDER] {
        let taken = world.site(from).cell.run(move || register(first, "intruder", 41_000).is_some());
        assert!(!taken, "h{} has registered on h1", from + 1);
    }
    world.wait_for_names(&[0, 1], []);
}
