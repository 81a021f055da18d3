//! Strangers that hold connections without completing a handshake keep nobody out, and members do not take more than
//! their share of links.

use std::collections::VecDeque;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use pmd::auth::cookie::Cookies;
use pmd::auth::tls::ALPN_LINK;
use pmd::control::api::Join;

use super::newcomer::Newcomer;
use crate::fleet::cell::Working;
use crate::harness::wait_until;
use crate::machine::PORT;
use crate::world::{COOKIE, World};

/// New connections of each attacker per second: three of them make 150.
const RATE: u64 = 50;
/// Pause between the bytes on each connection.
const DRIP: Duration = Duration::from_millis(300);
/// Joins during an attack, and how many of them must succeed within the time that each has.
const JOINS: usize = 20;
const SUCCEED: usize = 19;
const IN_TIME: Duration = Duration::from_secs(3);
const PAUSE: Duration = Duration::from_millis(400);

/// Hosts that open connections and send the beginning of a TLS handshake byte by byte, until this is dropped.
struct Dripping {
    over: Arc<AtomicBool>,
    /// Connections opened so far.
    opened: Arc<AtomicUsize>,
    working: Vec<Working<()>>,
}

impl Dripping {
    fn begin(world: &World, hosts: &[usize], to: usize) -> Dripping {
        let (over, opened) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let to: SocketAddr = (world[to].ip, PORT).into();
        let drip = |host: &usize| {
            let (over, opened) = (Arc::clone(&over), Arc::clone(&opened));
            world.site(*host).cell.begin(move || drip(to, &over, &opened))
        };
        let working = hosts.iter().map(drip).collect();
        Dripping { over, opened, working }
    }
}

impl Drop for Dripping {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        self.working.drain(..).for_each(Working::end);
    }
}

fn drip(to: SocketAddr, over: &AtomicBool, opened: &AtomicUsize) {
    // The header of a record of 512 bytes, which is never completed.
    let hello = [&[0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3][..], &[0x42; 400]].concat();
    // In the order of their next byte.
    let mut lines: VecDeque<(Instant, TcpStream, usize)> = VecDeque::new();
    let begin = Instant::now();
    let mut count = 0;
    while !over.load(Ordering::Relaxed) {
        let due = u64::try_from(begin.elapsed().as_millis()).expect("a short test") * RATE / 1_000;
        while count < due {
            count += 1;
            if let Ok(stream) = TcpStream::connect_timeout(&to, Duration::from_millis(200)) {
                stream.set_nonblocking(true).expect("a socket");
                lines.push_front((Instant::now(), stream, 0));
                opened.fetch_add(1, Ordering::Relaxed);
            }
        }
        while lines.front().is_some_and(|(next, ..)| *next <= Instant::now()) {
            let Some((_, mut stream, sent)) = lines.pop_front() else { break };
            let is_open =
                stream.write(&hello[sent..=sent]).is_ok() && !matches!(stream.read(&mut [0; 64]), Ok(0));
            if is_open {
                lines.push_back((Instant::now() + DRIP, stream, (sent + 1).min(hello.len() - 1)));
            }
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Connections to the first host for which there was no room: they gave way, or were turned away.
fn crowded_out(world: &World) -> u64 {
    let counts = world.block_on(world[0].api().status()).expect("a daemon").counters.others;
    counts.handshakes_evicted + counts.handshakes_full
}

fn warning(world: &World) -> Option<String> {
    let warnings = world.block_on(world[0].api().status()).expect("a daemon").warnings;
    warnings.into_iter().find(|warning| warning.contains("do not complete their handshake"))
}

#[test]
fn twenty_daemons_join_while_three_addresses_drip_bytes() {
    let mut world = World::new(7);
    (0..2).for_each(|host| world.start(host));
    world.join_first(1..2);
    world.wait_until_agreed(&[0, 1]);
    assert_eq!(warning(&world), None);
    let watch = world.watch(1);

    let dripping = Dripping::begin(&world, &[2, 3, 4], 0);
    // They have as many connections as they get.
    wait_until("them to take all the room", || crowded_out(&world) > 100);
    let mut outcomes = Vec::new();
    let cookies = Arc::new(Cookies::of_text(COOKIE));
    for number in 0..JOINS {
        let newcomer = Newcomer::new(&world, &format!("newcomer{number}"), &cookies);
        let begin = Instant::now();
        let joined = newcomer.dial(&world, 5, ALPN_LINK);
        outcomes.push((begin.elapsed(), joined.err()));
        // All along the attack, not at one moment of it.
        world.let_pass(PAUSE);
    }
    let in_time = |(took, error): &&(Duration, Option<String>)| error.is_none() && *took <= IN_TIME;
    let succeeded = outcomes.iter().filter(in_time).count();
    let slowest = outcomes.iter().map(|(took, _)| *took).max();
    println!("{succeeded} of {JOINS} joined within {IN_TIME:?}, the slowest took {slowest:?}");
    assert!(succeeded >= SUCCEED, "{succeeded} of {JOINS}: {outcomes:?}");
    // So does a real one, and a member that has lost its link is back at once.
    world.start(6);
    let seed = Join { addresses: vec![world[0].ip.to_string()], timeout_ms: Some(5_000) };
    world.block_on(world[6].api().join(&seed)).expect("to join");
    wait_until("the new member", || world.members(1).contains(&"h7".to_owned()));

    let text = warning(&world).expect("a warning");
    assert!(["10.77.0.3", "10.77.0.4", "10.77.0.5"].iter().any(|attacker| text.contains(attacker)), "{text}");
    let opened = dripping.opened.load(Ordering::Relaxed);
    drop(dripping);
    let lines = world[0].log().lines().filter(|line| line.contains("rejected peer")).count();
    assert!(lines < 200 && opened > 10 * lines, "{lines} lines about {opened} connections");
    watch.never("node_down", "h1");
}

#[test]
fn one_member_cannot_open_any_number_of_links() {
    const TRIES: u64 = 20;
    const SHARE: u64 = 4;
    let mut world = World::new(2);
    world.start(0);
    let cookies = Arc::new(Cookies::of_text(COOKIE));
    let counts = || world.block_on(world[0].api().status()).expect("a daemon").counters.others;
    let greedy = Newcomer::new(&world, "greedy", &cookies);
    // The daemon keeps one link of a member, and waits for it to close its end of the others, which it does not.
    let held: Vec<_> = (0..TRIES).map(|_| greedy.dial(&world, 1, ALPN_LINK).expect("a handshake")).collect();
    wait_until("all but its share to be closed", || counts().links_over_share == TRIES - SHARE);
    // Another member has its own share.
    let modest = Newcomer::new(&world, "modest", &cookies);
    let link = modest.dial(&world, 1, ALPN_LINK).expect("a handshake");
    wait_until("its link", || world.status(0).is_some_and(|own| own.links == 2));
    assert_eq!((counts().links_over_share, counts().handshakes), (TRIES - SHARE, TRIES + 1));
    drop((held, link));
}
