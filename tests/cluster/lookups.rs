//! Look-ups of what runs elsewhere.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};

use crate::harness::program::Program;
use crate::machine::PORT;
use crate::world::World;

/// The hosts of a look-up with `--all`, in the order of the answer.
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
fn the_same_name_on_three_hosts_is_three_nodes_and_the_local_one_comes_first() {
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
    // One of them goes; the others are not touched.
    let [first, second, third] = nodes;
    drop(second);
    world.wait_for_names(&world.all(), [&first, &third]);
    assert!(first.is_open() && third.is_open());
}

#[test]
fn a_lookup_can_wait_for_what_another_host_registers() {
    let world = World::joined(2);
    let command = world[0].command(&["lookup", "late@h2", "--wait", "60s"]);
    let mut waiting = world.site(0).cell.run(move || Program::spawn(command));
    // It waits, whenever the registration comes; this only makes it likely that it waits at all.
    world.let_pass(std::time::Duration::from_millis(300));
    assert!(waiting.is_running(), "{}{}", waiting.stdout(), waiting.stderr());
    let _node = world.register(1, "late", 41_000);
    assert!(waiting.wait(crate::world::PATIENCE).success(), "{}", waiting.stderr());
    assert!(waiting.stdout().contains("h2:41000"), "{}", waiting.stdout());
}

/// PORT_PLEASE2_REQ of `name` to the daemon at `address`: everything that comes back.
pub(crate) fn port_please(world: &World, from: usize, address: Ipv4Addr, name: &str) -> Vec<u8> {
    let mut request = u16::try_from(name.len() + 1).expect("a short name").to_be_bytes().to_vec();
    request.push(122);
    request.extend(name.as_bytes());
    world.site(from).cell.run(move || {
        let mut stream = TcpStream::connect((address, PORT)).expect("a daemon");
        stream.write_all(&request).expect("room for a request");
        let mut answer = Vec::new();
        // One that is not answered is closed, and that may be with a reset.
        let _ = stream.read_to_end(&mut answer);
        answer
    })
}

#[test]
fn epmd_answers_for_its_own_host_only() {
    let world = World::joined(2);
    let node = world.register(0, "alice", 41_001);
    world.wait_for_names(&world.all(), [&node]);
    let found = |answer: &[u8]| {
        answer.len() > 4 && answer[..2] == [119, 0] && answer[2..4] == 41_001u16.to_be_bytes()
    };
    let of_first = port_please(&world, 1, world[0].ip, "alice");
    assert!(found(&of_first), "{of_first:?}");
    // The caller would dial the host that it has asked.
    let of_second = port_please(&world, 1, Ipv4Addr::LOCALHOST, "alice");
    assert!(of_second.len() == 2 && of_second[0] == 119 && of_second[1] != 0, "{of_second:?}");
}

#[test]
fn lookups_from_other_hosts_are_a_matter_of_policy() {
    let mut world = World::new(4);
    for (host, policy) in [(0, "members"), (1, "local")] {
        world[host].configure(&format!("epmd_access = \"{policy}\"\n"));
    }
    world[3].set_cookies(&["a-cookie-of-another-cluster"]);
    world.start_all();
    world.join_first(1..3);
    world.wait_until_agreed(&[0, 1, 2]);
    let _nodes = [0, 1, 2].map(|host| world.register(host, "node", 41_001));
    let answered = |from: usize, to: usize| !port_please(&world, from, world[to].ip, "node").is_empty();
    // Only the first makes a difference between members and strangers; the third is as stock epmd is.
    let expected = [(2, 0, true), (3, 0, false), (0, 1, false), (3, 1, false), (1, 2, true), (3, 2, true)];
    for (from, to, answer) in expected {
        assert_eq!(answered(from, to), answer, "h{} asks h{}", from + 1, to + 1);
    }
    for host in [0, 1, 2] {
        assert!(answered(host, host), "h{} asks itself by its own address", host + 1);
    }
}

#[test]
fn subscribers_are_told_of_other_hosts() {
    let world = World::joined(2);
    let command = world[0].command(&["subscribe", "--since", "0"]);
    let told = world.site(0).cell.run(move || Program::spawn(command));
    told.wait_for_text("node_up");
    let _node = world.register(1, "alice", 41_001);
    told.wait_for_text("alice");
    assert!(told.stdout().contains("h2"), "{}", told.stdout());
}
