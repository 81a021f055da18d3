//! Floods by unauthenticated peers use bounded resources.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pmd::auth::cookie::Cookies;
use pmd::auth::tls::ALPN_LINK;
use pmd_protocol::peer::frame::DialBack;
use pmd_protocol::peer::{Frame, NodeId};

use super::intruder::{Card, Talk};
use super::newcomer::Newcomer;
use crate::fleet::cell::Working;
use crate::harness::daemon::alive2;
use crate::harness::{wait_until, wait_within};
use crate::lookups::port_please;
use crate::machine::PORT;
use crate::world::{COOKIE, OTHER_COOKIE, PATIENCE, World};

/// Connections of a flood: more than stock epmd's `select` could handle.
const FLOOD: usize = 3_000;
/// The memory that unauthenticated peers may cost, in KiB.
const MAX_GROWTH: usize = 4 * 1024;

/// A flood that continues until it is dropped.
struct Flood {
    over: Arc<AtomicBool>,
    /// Bytes sent so far.
    sent: Arc<AtomicUsize>,
    working: Option<Working<()>>,
}

impl Flood {
    /// Keeps many connections open from `host`, each sending the beginning of a TLS handshake byte by byte.
    fn begin(world: &World, host: usize, to: SocketAddr) -> Flood {
        let over = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicUsize::new(0));
        let (end, count) = (Arc::clone(&over), Arc::clone(&sent));
        let working = world.site(host).cell.begin(move || {
            // The header of a record of 512 bytes, which is never completed.
            let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x42; 400]].concat();
            let mut lines: Vec<(TcpStream, usize)> = Vec::new();
            while !end.load(Ordering::Relaxed) {
                while lines.len() < FLOOD && !end.load(Ordering::Relaxed) {
                    // The accept queue may be full for a moment.
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
                    // A closed connection is replaced.
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
fn thousands_of_half_open_handshakes_do_not_affect_others() {
    let mut world = World::new(4);
    for host in [0, 1, 2] {
        world.start(host);
    }
    world.join_first(1..2);
    world.wait_until_agreed(&[0, 1]);
    let watch = world.watch(1);
    let resident = world.register(0, "resident", 41_000);
    world.wait_for_names(&[0, 1], [&resident]);
    // A daemon keeps the memory of its first hundred connections, which is not caused by the flood.
    let before = after_some_use(&world);

    let flood = Flood::begin(&world, 3, (world[0].ip, PORT).into());
    wait_until("the flood to rise", || flood.sent.load(Ordering::Relaxed) > 3 * FLOOD);
    // The link stays up and carries updates in both directions; lookups are answered.
    for round in 0..20 {
        let here = world.register(0, &format!("here{round}"), 42_000);
        let there = world.register(1, &format!("there{round}"), 42_000);
        world.wait_for_names(&[0, 1], [&resident, &here, &there]);
        let answer = port_please(&world, 1, world[0].ip, "resident");
        assert!(answer.starts_with(&[119, 0]), "{answer:?}");
    }
    // Another host can still join.
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
fn unauthenticated_peers_after_tls_cost_little_memory() {
    let mut world = World::new(4);
    world.start(0);
    world.start(1);
    let before = after_some_use(&world);
    // As many handshakes as are allowed at once, from one address; each sends as much as is allowed, and waits.
    let mut most = 0;
    for _ in 0..5 {
        let card = Card::fresh();
        let mut talks = Vec::new();
        // Connections of the previous round hold their slots until the daemon has noticed their end.
        wait_within(PATIENCE, "room for more than 20 strangers", || {
            talks.extend((talks.len()..60).map_while(|_| Talk::dial(&world, 2, 0, Some(&card)).ok()));
            talks.len() > 20
        });
        for talk in &mut talks {
            // All but the last byte of the longest Hello.
            let length = pmd_protocol::limits::MAX_HANDSHAKE_FRAME;
            let mut bytes = u32::try_from(length).expect("a length").to_be_bytes().to_vec();
            bytes.extend([4, 1]);
            bytes.resize(3 + length, 0);
            let _ = talk.say_bytes(&bytes);
        }
        most = most.max(world[0].resident_memory());
    }
    assert!(most <= before + MAX_GROWTH, "{before} KiB before, {most} KiB during the flood");
    world.run(1, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&[0, 1]);
}

#[test]
fn thousands_of_dial_back_requests_are_rate_limited() {
    const REQUESTS: u64 = 20_000;
    let world = World::joined(4);
    let id = |host: usize| -> NodeId { world.status(host).expect("a daemon").id.parse().expect("an id") };
    let (asker, target) = (id(1), id(2));
    // An authenticated member.
    let card = Card::fresh();
    let mut talk = Talk::dial(&world, 3, 0, Some(&card)).expect("TLS");
    talk.handshake(card.hello(), COOKIE).expect("a handshake");
    let begin = Instant::now();
    for number in 0..REQUESTS {
        let mut token = [7; 16];
        token[..8].copy_from_slice(&number.to_be_bytes());
        talk.say(&Frame::DialBack(DialBack { asker, target, at: asker, token })).expect("a link");
    }
    let counts = |host: usize| world.block_on(world[host].api().status()).expect("a daemon").counters;
    wait_until("all of them to be looked at", || counts(0).others.frames_received >= REQUESTS);
    // The burst allowed for one peer, plus its rate for each second it took.
    let (passed, seconds) = (counts(0).others.dial_requests_passed, begin.elapsed().as_secs() + 1);
    let most = 512 + 128 * seconds;
    assert!((1..=most).contains(&passed), "{passed} passed on in {seconds} s");
    assert!(counts(0).others.dial_requests_refused >= REQUESTS - most);
    // The receiver at most carried the requests out and forwarded none.
    assert_eq!((counts(1).others.dial_requests_passed, counts(2).others.dial_requests_passed), (0, 0));
    for host in [0, 1, 2, 3] {
        assert_eq!(counts(host).others.violations, 0);
    }
    let node = world.register(2, "after", 42_000);
    world.wait_for_names(&[0, 1, 2, 3], [&node]);
}

#[test]
fn repeated_rejections_of_a_peer_are_logged_in_few_lines() {
    const TIMES: usize = 40;
    let mut world = World::new(2);
    world.start(0);
    for _ in 0..TIMES {
        let card = Card::fresh();
        let mut talk = Talk::dial(&world, 1, 0, Some(&card)).expect("TLS");
        talk.prove(OTHER_COOKIE).expect("a proof");
        talk.hear_out().told_nothing();
    }
    let lines = || {
        let log = world[0].log();
        log.lines().filter(|line| line.contains("rejected peer")).map(str::to_owned).collect::<Vec<_>>()
    };
    // However long it took, each rejection is logged or counted.
    let told = |line: &String| {
        let count = line.split_once(" (").and_then(|(_, rest)| rest.split_once(" more like this"));
        count.map_or(1, |(count, _)| count.parse::<usize>().expect("a number"))
    };
    wait_until("the log to tell of all of them", || lines().iter().map(told).sum::<usize>() == TIMES);
    assert!(lines().len() <= TIMES / 4, "{:#?}", lines());
}

#[test]
fn a_member_that_flaps_is_logged_in_few_lines() {
    const TIMES: usize = 60;
    let mut world = World::new(2);
    world.start(0);
    let newcomer = Newcomer::new(&world, "flapping", &Arc::new(Cookies::of_text(COOKIE)));
    for _ in 0..TIMES {
        newcomer.dial(&world, 1, ALPN_LINK).expect("a handshake");
    }
    let status = || world.block_on(world[0].api().status()).expect("a daemon");
    wait_until("all links to end", || {
        status().counters.others.handshakes == TIMES as u64
            && status().cluster.is_some_and(|own| own.links == 0)
    });
    let log = world[0].log();
    let lines: Vec<_> = log.lines().filter(|line| line.contains("host=flapping")).collect();
    assert!((1..=12).contains(&lines.len()), "{lines:#?}");
}
