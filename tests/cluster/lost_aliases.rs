//! Aliases whose port another program has taken before the daemon.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};

use crate::machine::PORT;
use crate::world::{PATIENCE, World};

/// NAMES_REQ.
const NAMES: &[u8] = &[0, 1, 110];

/// The alias of a host on the first host.
fn alias(world: &World, host: &str) -> Option<Ipv4Addr> {
    let list = world.block_on(world[0].api().tunnels()).ok()?;
    list.aliases.iter().find(|alias| alias.host == host).map(|alias| alias.address)
}

fn is_listed(world: &World, host: &str) -> bool {
    let file = std::fs::read_to_string(world[0].file(&format!("hosts-{PORT}"))).unwrap_or_default();
    file.lines().any(|line| line.split(' ').skip(1).any(|name| name == host))
}

fn warnings(world: &World) -> Vec<String> {
    world.block_on(world[0].api().status()).map(|status| status.warnings).unwrap_or_default()
}

/// What the port mapper at an address of the first host answers.
fn names_at(world: &World, ip: Ipv4Addr) -> Option<Vec<u8>> {
    world.site(0).cell.run(move || {
        let mut stream = TcpStream::connect((ip, PORT)).ok()?;
        stream.set_read_timeout(Some(PATIENCE)).ok()?;
        stream.write_all(NAMES).ok()?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).ok()?;
        Some(answer)
    })
}

#[test]
fn a_stolen_alias_is_reported_and_not_used_and_the_others_work() {
    let mut world = World::new(4);
    world[0].configure(&format!("bind = [\"127.0.0.1\", \"{}\"]\n", world[0].ip));
    // The system's resolver knows h2 to h4, so the hosts file would not list them.
    for host in 1..4 {
        world[host].configure(&format!("host_name = \"x{}\"\n", host + 1));
    }
    world.start_all();
    world.run(0, &["env"]).ended_with(0);
    world.join_first(1..4);
    world.wait_on(&[0], "the aliases", |_| ["x2", "x3", "x4"].iter().all(|host| is_listed(&world, host)));
    let stolen = alias(&world, "x3").expect("an alias");
    let _node = world.register(3, "alice", 41_001);

    // The aliases are the same after a restart, and a local user is faster. The first in order was stolen, too, if
    // that is this one: none of the others may depend on it.
    world[0].terminate();
    let thief = world.site(0).cell.run(move || TcpListener::bind((stolen, PORT))).expect("a port");
    world.start(0);
    world.join_first(1..4);
    world.wait_on(&[0], "the other aliases", |_| {
        ["x2", "x4"].iter().all(|host| is_listed(&world, host))
            && warnings(&world).iter().any(|line| line.contains(&format!("listens on {stolen}:{PORT}")))
    });
    assert!(!is_listed(&world, "x3"), "nodes must not be sent to the thief");
    let warning =
        warnings(&world).into_iter().find(|line| line.contains("in place of pmd")).expect("a warning");
    assert!(warning.contains("cannot reach x3") && warning.contains("user 0"), "{warning}");
    assert!(world[0].log().contains(&format!("listens on {stolen}:{PORT}")), "{}", world[0].log());
    for host in ["x2", "x4"] {
        let at = alias(&world, host).expect("an alias");
        world.wait_on(&[0], "an answer at the alias", |_| names_at(&world, at).is_some());
    }
    let at = alias(&world, "x4").expect("an alias");
    world.wait_on(&[0], "the node at the alias of its host", |_| {
        names_at(&world, at).is_some_and(|text| String::from_utf8_lossy(&text).contains("alice"))
    });

    // Once the thief is gone, the next change of the cluster brings the alias back.
    drop(thief);
    world[1].terminate();
    world.wait_on(&[0], "the alias", |_| is_listed(&world, "x3") && !is_listed(&world, "x2"));
    assert!(warnings(&world).iter().all(|line| !line.contains("in place of pmd")), "{:?}", warnings(&world));
}
