//! Dial-back by a host that cannot be dialled and is several links away.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::harness::wait_until;
use crate::world::{PATIENCE, World};

/// Enough hosts for links to be rare: each host has about ten.
const HOSTS: usize = 40;
const PORT: u16 = 41_000;
const GREETING: &[u8] = b"what came through";

/// The hosts to which a host has links.
fn linked(world: &World, host: usize) -> BTreeSet<String> {
    let list = world.block_on(world[host].api().peers());
    list.map(|list| list.peers.into_iter().map(|peer| peer.host).collect()).unwrap_or_default()
}

/// Two hosts with no link to each other and no common neighbour: forwarded requests cross at least three links.
fn strangers(world: &World) -> Option<(usize, usize)> {
    let links: Vec<BTreeSet<String>> = world.all().into_iter().map(|host| linked(world, host)).collect();
    let apart = |one: usize, other: usize| {
        !links[one].contains(&world[other].name)
            && !links[other].contains(&world[one].name)
            && links[one].is_disjoint(&links[other])
    };
    let pairs = (0..HOSTS).flat_map(|one| (0..HOSTS).map(move |other| (one, other)));
    pairs.filter(|(one, other)| one != other).find(|(one, other)| apart(*one, *other))
}

/// Attempts: links change, and an attempt proves nothing if the two hosts have come closer meanwhile.
const TRIES: u16 = 5;

#[test]
fn a_host_three_links_away_that_cannot_be_dialled_dials_back() {
    let world = World::joined(HOSTS);
    assert!((0..TRIES).any(|number| dials_back_from_afar(&world, number)), "the hosts came closer each time");
}

/// Returns whether the two stayed at least three links apart.
fn dials_back_from_afar(world: &World, number: u16) -> bool {
    let mut found = None;
    wait_until("two hosts that are far from each other", || {
        found = strangers(world);
        found.is_some()
    });
    let (asker, target) = found.expect("two hosts");
    let port = PORT + number;
    let name = format!("node{number}");
    let node = world.register(target, &name, port);
    world.wait_for_names(&[asker], [&node]);
    // A question for which there is no link takes a connection of its own.
    let answered = || {
        world.block_on(world[target].api().status()).map(|status| status.counters.others.questions_answered)
    };
    let absent = format!("absent@{}", world[target].name);
    let before = answered().expect("a status");
    wait_until("a question to be answered", || {
        world.run(asker, &["lookup", &absent]).ended_with(4);
        answered().is_ok_and(|now| now > before)
    });
    let passed_before = passed_on_by_all(world);
    let listener =
        world.site(target).cell.run(move || TcpListener::bind((Ipv4Addr::LOCALHOST, port))).expect("a port");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let _ = stream.and_then(|mut stream| stream.write_all(GREETING));
        }
    });
    // As a NAT router without a mapping does.
    let chain = |name: &str, family: &str, from: &str| {
        let hook = "type filter hook input priority -10;";
        format!("chain {name} {{\n{hook}\n{family} saddr {from} ct state new drop\n}}\n")
    };
    let (ip, ip6) = (world[asker].ip.to_string(), world.site(asker).ip6.to_string());
    let chains = chain("input", "ip", &ip) + &chain("input6", "ip6", &ip6);
    world.site(target).cell.nft(&format!("table inet nat{number} {{\n{chains}}}\n"));

    let found = world.block_on(world[asker].api().lookup(&format!("{name}@{}", world[target].name)));
    let entry = found.expect("a node").matches[0].entry.expect("an entry");
    let stream = world.site(asker).cell.run(move || {
        let mut stream = TcpStream::connect(entry)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut heard = [0; GREETING.len()];
        stream.read_exact(&mut heard)?;
        assert_eq!(heard, GREETING);
        Ok::<_, std::io::Error>(stream)
    });
    let log = || format!("{}\n{}", world[asker].log(), world[target].log());
    let _stream = stream.unwrap_or_else(|error| panic!("{error}\n{}", log()));
    // No nearer host has had a link to it meanwhile.
    if !linked(world, asker).is_disjoint(&linked(world, target)) {
        return false;
    }
    // It cost a few frames per host, most of which recognise a repeated request.
    let passed = passed_on_by_all(world) - passed_before;
    assert!((2..=2 * 16 * 16).contains(&passed), "{passed} requests passed on");
    true
}

fn passed_on_by_all(world: &World) -> u64 {
    world.all().into_iter().map(|host| passed_on(world, host)).sum()
}

/// Dial-back requests that a host has forwarded.
fn passed_on(world: &World, host: usize) -> u64 {
    let status = world.block_on(world[host].api().status());
    status.expect("a daemon").counters.others.dial_requests_passed
}
