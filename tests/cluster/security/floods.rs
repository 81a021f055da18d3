//! Strangers in numbers: they get their share of attention, and no more.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pmd_protocol::peer::frame::DialBack;
use pmd_protocol::peer::{Frame, NodeId, Phase};

use super::intruder::{Card, Talk};
use crate::fleet::cell::Working;
use crate::harness::daemon::alive2;
use crate::harness::{wait_until, wait_within};
use crate::lookups::port_please;
use crate::machine::PORT;
use crate::world::{COOKIE, PATIENCE, World};

/// Connections of a flood: more than a daemon with stock epmd's way to wait could have at all.
const FLOOD: usize = 3_000;
/// What strangers may cost in memory, in KiB.
const MAX_GROWTH: usize = 4 * 1024;

/// A flood that goes on until it is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    /// Bytes that were sent, bit by bit.
    sent: Arc<AtomicUsize>,
    working: Option<Working<()>>,
}

impl Flood {
    /// Keeps many connections open from `host`, each with the beginning of a TLS handshake that comes byte by byte.
    fn begin(world: &World, host: usize, to: SocketAddr) -> Flood {
        let over = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let (end, count) = (Arc::clone(&over), Arc::clone(&sent));
        let working = world.site(host).cell.begin(move || {
            // A record of 512 bytes, announced; its content never comes to an end.
            let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x42; 400]].concat();
            let mut lines: Vec<(TcpStream, usize)> = Vec::new();
            while !end.load(Ordering::Relaxed) {
                while lines.len() < FLOOD && !end.load(Ordering::Relaxed) {
                    // The kernel's queue may be full for a moment.
                    let Ok(stream) = TcpStream::connect_timeout(&to, Duration::from_millis(200)) else {
                        break;
                    };
                    stream.set_nonblocking(true).expect("a socket");
                    lines.push((stream, 0));
                }
                lines.retain_mut(|(stream, done)| {
                    let sent = stream.write(&hello[*done..=*done]).is_ok();
                    *done = (*done + 1).min(hello.len() - 1);
                    count.fetch_add(usize::from(sent), Ordering::Relaxed);
                    // One that was closed makes room for the next.
                    sent && !matches!(stream.read(&mut [0; 64]), Ok(0))
                });
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        Flood { over, sent, working: Some(working) }
    }
}

impl Drop for Flood {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(working) = self.working.take() {
            working.end();
        }
    }
}

#[test]
fn half_open_handshakes_in_thousands_disturb_nobody() {
    let mut world = World::new(4);
    for host in [0, 1, 2] {
        world.start(host);
    }
    world.join_first(1..2);
    world.wait_until_agreed(&[0, 1]);
    let watch = world.watch(1);
    let resident = world.register(0, "resident", 41_000);
    world.wait_for_names(&[0, 1], [&resident]);
    // What a daemon needs for its first hundred connections it keeps; it is not the strangers' doing.
    let before = after_some_use(&world);

    let flood = Flood::begin(&world, 3, (world[0].ip, PORT).into());
    wait_until("the flood to rise", || flood.sent.load(Ordering::Relaxed) > 3 * FLOOD);
    // The link stands, and news go both ways over it; look-ups are answered.
    for round in 0..20 {
        let here = world.register(0, &format!("here{round}"), 42_000);
        let there = world.register(1, &format!("there{round}"), 42_000);
        world.wait_for_names(&[0, 1], [&resident, &here, &there]);
        let answer = port_please(&world, 1, world[0].ip, "resident");
        assert!(answer.starts_with(&[119, 0]), "{answer:?}");
    }
    // Somebody else can still join.
    world.run(2, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&[0, 1, 2]);
    let during = world[0].resident_memory();
    drop(flood);

    watch.never("node_down", "h1");
    assert!(resident.is_open());
    assert!(during <= before + MAX_GROWTH, "{before} KiB before the flood, {during} KiB in it");
    wait_within(PATIENCE, "the memory to be as before", || world[0].resident_memory() <= before + MAX_GROWTH);
}

/// The daemon's memory after connections of all kinds have come and gone.
fn after_some_use(world: &World) -> usize {
    for _ in 0..100 {
        Talk::dial(world, 3, 0, Some(&Card::fresh())).expect("TLS");
    }
    let request = alive2("refused", 41_000);
    let first: SocketAddr = (world[0].ip, PORT).into();
    world.site(3).cell.run(move || {
        for _ in 0..100 {
            let mut stream = TcpStream::connect(first).expect("a daemon");
            let _ = stream.write_all(&request);
        }
    });
    world[0].resident_memory()
}

#[test]
fn strangers_who_are_through_with_tls_cost_little_too() {
    let mut world = World::new(4);
    world.start(0);
    world.start(1);
    let before = after_some_use(&world);
    // As many as are let through at once, from an address of their own; each sends all that it may, and waits.
    let mut most = 0;
    for _ in 0..5 {
        let card = Card::fresh();
        let mut talks = Vec::new();
        // Those of the round before have their places until the daemon has seen them go.
        wait_within(PATIENCE, "room for more than 20 strangers", || {
            talks.extend((talks.len()..60).map_while(|_| Talk::dial(&world, 2, 0, Some(&card)).ok()));
            talks.len() > 20
        });
        for talk in &mut talks {
            // All but the last byte of the longest greeting.
            let length = pmd_protocol::limits::MAX_HANDSHAKE_FRAME;
            let mut bytes = u32::try_from(length).expect("a length").to_be_bytes().to_vec();
            bytes.extend([1, 1]);
            bytes.resize(3 + length, 0);
            let _ = talk.say_bytes(&bytes);
        }
        most = most.max(world[0].resident_memory());
    }
    assert!(most <= before + MAX_GROWTH, "{before} KiB before, {most} KiB with strangers");
    world.run(1, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&[0, 1]);
}

#[test]
fn requests_to_dial_in_thousands_are_few_for_those_who_get_them() {
    const REQUESTS: u64 = 20_000;
    let world = World::joined(4);
    let id = |host: usize| -> NodeId { world.status(host).expect("a daemon").id.parse().expect("an id") };
    let (asker, target) = (id(1), id(2));
    // One that has the cookie, which is more than a stranger has.
    let card = Card::fresh();
    let mut talk = Talk::dial(&world, 3, 0, Some(&card)).expect("TLS");
    talk.greet(card.hello(), COOKIE).expect("a greeting");
    talk.hear_proof();
    talk.phase = Phase::Proven;
    let begin = Instant::now();
    for number in 0..REQUESTS {
        let mut token = [7; 16];
        token[..8].copy_from_slice(&number.to_be_bytes());
        talk.say(&Frame::DialBack(DialBack { asker, target, at: asker, token })).expect("a link");
    }
    let counts = |host: usize| world.block_on(world[host].api().status()).expect("a daemon").counters;
    wait_until("all of them to be looked at", || counts(0).others.frames_received >= REQUESTS);
    // What one peer may cause at once, and in each second that it took.
    let (passed, seconds) = (counts(0).others.dial_requests_passed, begin.elapsed().as_secs() + 1);
    let most = 512 + 128 * seconds;
    assert!((1..=most).contains(&passed), "{passed} passed on in {seconds} s");
    assert!(counts(0).others.dial_requests_refused >= REQUESTS - most);
    // And what came from there was at most carried out: it went no further.
    assert_eq!((counts(1).others.dial_requests_passed, counts(2).others.dial_requests_passed), (0, 0));
    for host in [0, 1, 2, 3] {
        assert_eq!(counts(host).others.violations, 0);
    }
    let node = world.register(2, "after", 42_000);
    world.wait_for_names(&[0, 1, 2, 3], [&node]);
}

#[test]
fn a_peer_that_is_refused_again_and_again_is_told_of_in_few_lines() {
    const TIMES: usize = 40;
    let mut world = World::new(2);
    world.start(0);
    for _ in 0..TIMES {
        let card = Card::fresh();
        let mut talk = Talk::dial(&world, 1, 0, Some(&card)).expect("TLS");
        talk.greet(card.hello(), "a cookie of no cluster").expect("a greeting");
        talk.hear_out().without_proof();
    }
    let lines = || {
        let log = world[0].log();
        log.lines().filter(|line| line.contains("rejected peer")).map(str::to_owned).collect::<Vec<_>>()
    };
    // However long they have taken, each is written or counted.
    let told = |line: &String| {
        let count = line.split_once(" (").and_then(|(_, rest)| rest.split_once(" more like this"));
        count.map_or(1, |(count, _)| count.parse::<usize>().expect("a number"))
    };
    wait_until("the log to tell of all of them", || lines().iter().map(told).sum::<usize>() == TIMES);
    assert!(lines().len() <= TIMES / 4, "{:#?}", lines());
}
