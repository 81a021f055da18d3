//! Lookups of nodes on other hosts.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::harness::program::Program;
use crate::machine::PORT;
use crate::world::{OTHER_COOKIE, World};

/// The hosts found by a lookup with `--all`, in order.
fn hosts(world: &World, from: usize, query: &str) -> Vec<String> {
    let said = world.run(from, &["lookup", query, "--all", "--json"]).ended_with(0);
    let matches = said.json()["matches"].as_array().expect("matches").clone();
    matches.iter().map(|found| found["host"].as_str().expect("a host").to_owned()).collect()
}

#[test]
fn a_node_is_found_from_any_host() {
    let world = World::joined(3);
    let node = world.register(1, "rabbit", 25_672);
    world.wait_for_names(&world.all(), [&node]);
    for host in world.all() {
        for query in ["rabbit", "rabbit@h2"] {
            let said = world.run(host, &["lookup", query]).ended_with(0);
            assert!(said.stdout.contains("h2:25672"), "{query}: {said:#?}");
        }
        world.run(host, &["lookup", "rabbit@h1"]).ended_with(4);
        world.run(host, &["lookup", "hare"]).ended_with(4);
    }
}

#[test]
fn a_name_on_three_hosts_is_three_matches_with_the_local_one_first() {
    let world = World::joined(4);
    let nodes = [0, 1, 2].map(|host| world.register(host, "rabbit", 25_672));
    world.wait_for_names(&world.all(), &nodes);
    for host in world.all() {
        let mut found = hosts(&world, host, "rabbit");
        if host < 3 {
            assert_eq!(found[0], world[host].name, "{found:?}");
        }
        found.sort();
        assert_eq!(found, ["h1", "h2", "h3"]);
    }
    // One of them goes; the others are not affected.
    let [first, second, third] = nodes;
    drop(second);
    world.wait_for_names(&world.all(), [&first, &third]);
    assert!(first.is_open() && third.is_open());
}

#[test]
fn a_lookup_can_wait_for_a_registration_on_another_host() {
    let world = World::joined(2);
    let command = world[0].command(&["lookup", "late@h2", "--wait", "60s"]);
    let mut waiting = world.site(0).cell.run(move || Program::spawn(command));
    // The lookup must succeed either way; this only makes it likely that it has to wait.
    world.let_pass(std::time::Duration::from_millis(300));
    assert!(waiting.is_running(), "{}{}", waiting.stdout(), waiting.stderr());
    let _node = world.register(1, "late", 41_000);
    assert!(waiting.wait(crate::world::PATIENCE).success(), "{}", waiting.stderr());
    assert!(waiting.stdout().contains("h2:41000"), "{}", waiting.stdout());
}

/// Sends PORT_PLEASE2_REQ for `name` to the daemon at `address` and returns the response.
pub(crate) fn port_please(world: &World, from: usize, address: Ipv4Addr, name: &str) -> Vec<u8> {
    let mut request = u16::try_from(name.len() + 1).expect("a short name").to_be_bytes().to_vec();
    request.push(122);
    request.extend(name.as_bytes());
    world.site(from).cell.run(move || {
        let mut stream = TcpStream::connect((address, PORT)).expect("a daemon");
        stream.write_all(&request).expect("writing the request");
        let mut answer = Vec::new();
        // A connection without a response is closed, possibly with a reset.
        let _ = stream.read_to_end(&mut answer);
        answer
    })
}

#[test]
fn epmd_lookups_answer_for_the_local_host_only() {
    let world = World::joined(2);
    let node = world.register(0, "alice", 41_001);
    world.wait_for_names(&world.all(), [&node]);
    let found = |answer: &[u8]| {
        answer.len() > 4 && answer[..2] == [119, 0] && answer[2..4] == 41_001u16.to_be_bytes()
    };
    let of_first = port_please(&world, 1, world[0].ip, "alice");
    assert!(found(&of_first), "{of_first:?}");
    // The client would dial the host that it asked.
    let of_second = port_please(&world, 1, Ipv4Addr::LOCALHOST, "alice");
    assert!(of_second.len() == 2 && of_second[0] == 119 && of_second[1] != 0, "{of_second:?}");
}

#[test]
fn epmd_access_decides_about_lookups_from_other_hosts() {
    let mut world = World::new(4);
    for (host, policy) in [(0, "members"), (1, "local")] {
        world[host].configure(&format!("epmd_access = \"{policy}\"\n"));
    }
    world[3].set_cookies(&[OTHER_COOKIE]);
    world.start_all();
    world.join_first(1..3);
    world.wait_until_agreed(&[0, 1, 2]);
    let _nodes = [0, 1, 2].map(|host| world.register(host, "node", 41_001));
    let answered = |from: usize, to: usize| !port_please(&world, from, world[to].ip, "node").is_empty();
    // Only the first policy distinguishes members from others; the third behaves like stock epmd.
    let expected = [(2, 0, true), (3, 0, false), (0, 1, false), (3, 1, false), (1, 2, true), (3, 2, true)];
    for (from, to, answer) in expected {
        assert_eq!(answered(from, to), answer, "h{} asks h{}", from + 1, to + 1);
    }
    for host in [0, 1, 2] {
        assert!(answered(host, host), "h{} looks up at its own address", host + 1);
    }
}

#[test]
fn subscribers_get_events_of_other_hosts() {
    let world = World::joined(2);
    let command = world[0].command(&["subscribe", "--since", "0"]);
    let told = world.site(0).cell.run(move || Program::spawn(command));
    told.wait_for_text("node_up");
    let _node = world.register(1, "alice", 41_001);
    told.wait_for_text("alice");
    assert!(told.stdout().contains("h2"), "{}", told.stdout());
}
