//! Members whose entry in the registry carries the name of another host: they attract no tunnel, and no rule lets them
//! through under that name.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;

use pmd::config::types::IdentitySource;

use super::authority::{authority, identity};
use super::liar::{Liar, certified, own_key};
use crate::world::World;

/// Waits until the first host shows the node `rabbit` on the host of this name.
fn until_listed(world: &World, host: &str) {
    world.wait_on(&[0], "the entry of the other member", |first| {
        world.names(first).iter().any(|(name, at, _)| name == "rabbit" && at == host)
    });
}

/// Waits until a line in the log of the first host has all of these parts.
fn until_logged(world: &World, parts: &[&str]) {
    world.wait_on(&[0], parts[0], |first| {
        world[first].log().lines().any(|line| parts.iter().all(|part| line.contains(part)))
    });
}

/// Tunnels that the first host has refused because of the other's name.
fn wrong_hosts(world: &World) -> u64 {
    let status = world.block_on(world[0].api().status()).expect("a daemon");
    status.counters.others.tunnels_wrong_host
}

/// Connects a program on the first host to `rabbit@HOST`. Returns whether the other member was asked for a tunnel, as
/// it is once the entry trusts it.
fn attracts(world: &World, liar: &Liar, host: &str) -> bool {
    let before = (liar.asked(), wrong_hosts(world));
    let full = format!("rabbit@{host}");
    let entry = || world.block_on(world[0].api().lookup(&full)).ok()?.matches.first()?.entry;
    world.wait_on(&[0], "an entry", |_| entry().is_some());
    let entry = entry().expect("an entry");
    let mut near = world.site(0).cell.run(move || TcpStream::connect(entry)).expect("an entry");
    let reader = std::thread::spawn(move || near.read(&mut [0; 16]).unwrap_or_default());
    world.wait_on(&[0], "a verdict on the other member", |_| (liar.asked(), wrong_hosts(world)) != before);
    let attracted = liar.asked() > before.0;
    if !attracted {
        assert_eq!(reader.join().expect("a reader"), 0, "not a byte from an impostor");
    }
    attracted
}

fn check(world: &World, source: impl Fn(&str) -> IdentitySource) {
    // The port of a node on the first host, to which only web hosts may open tunnels.
    let listener = world.site(0).cell.run(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let _shell = world.register(0, "shell", port);

    // An honest member: what is refused below works for it.
    let honest = Liar::start(world, 1, "web1", "web1", &source("web1"));
    until_listed(world, "web1");
    assert!(attracts(world, &honest, "web1"), "tunnels to an honest member");
    drop(honest.open(world, 1, 0, "shell").expect("a tunnel of a web host"));
    drop(honest);
    assert_eq!(wrong_hosts(world), 0);

    // Its peers close its link as soon as its entry arrives, so nobody finds it under the other name.
    let liar = Liar::start(world, 2, "evil", "db5", &source("evil"));
    until_logged(world, &["protocol violation"]);
    until_gone(world, "db5");
    assert_ne!(world.run(0, &["ping", "rabbit@db5"]).code, 0);
    drop(liar);

    let liar = Liar::start(world, 2, "evil", "web7", &source("evil"));
    liar.open(world, 2, 0, "shell").expect_err("it is not a web host");
    until_gone(world, "web7");
    liar.open(world, 2, 0, "shell").expect_err("it is not a web host");
}

/// Waits until the first host shows no node on the host of this name.
fn until_gone(world: &World, host: &str) {
    world.wait_on(&[0], "the impostor to be gone", |first| {
        world.names(first).iter().all(|(_, at, _)| at != host)
    });
}

const RULE: &str = "[[allow]]\nhost = \"web*\"\nname = \"*\"\n";

#[test]
fn the_name_of_the_handshake_counts_and_not_that_of_the_entry() {
    let mut world = World::new(3);
    world[0].configure(RULE);
    world.start(0);
    let folder = world.shared("");
    let key = |host: &str| {
        let folder = folder.join(host);
        std::fs::create_dir_all(&folder).expect("a folder");
        own_key(&folder)
    };
    check(&world, key);
}

#[test]
fn a_certificate_for_one_name_is_of_no_use_for_another() {
    let mut world = World::new(3);
    let folder = authority(&world, "ca", &["h1", "web1", "evil"]);
    world[0].configure(&(identity(&folder, "h1") + RULE));
    world.start(0);
    check(&world, |host| certified(Path::new(&folder), host));
}
