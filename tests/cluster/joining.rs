//! How daemons join, and why joining fails.

use std::fs;

use futures_util::future::join_all;
use pmd::control::api::Join;

use crate::world::{OTHER_COOKIE, World};

#[test]
fn two_daemons_that_join_each_other_at_once_always_end_up_with_one_link() {
    const PAIRS: usize = 5;
    const ROUNDS: usize = 10;
    let mut world = World::new(2 * PAIRS);
    for round in 0..ROUNDS {
        world.start_all();
        let watches: Vec<_> = world.all().into_iter().map(|host| world.watch(host)).collect();
        let joining = world.all().into_iter().map(|host| {
            let (api, other) = (world[host].api(), world[host ^ 1].ip.to_string());
            async move { api.join(&Join { addresses: vec![other], timeout_ms: Some(30_000) }).await }
        });
        for (host, joined) in world.block_on(join_all(joining)).into_iter().enumerate() {
            assert!(joined.is_ok(), "round {round}, h{}: {joined:?}", host + 1);
        }
        for pair in 0..PAIRS {
            let pair = [2 * pair, 2 * pair + 1];
            world.wait_until_agreed(&pair);
            world.wait_on(&pair, "one link", |host| {
                world.status(host).is_some_and(|status| status.links == 1)
            });
        }
        for (host, watch) in watches.iter().enumerate() {
            watch.never("node_down", &world[host ^ 1].name);
            watch.never("node_left", &world[host ^ 1].name);
        }
        world.all().into_iter().for_each(|host| world[host].kill());
    }
}

#[test]
fn a_host_can_be_joined_by_any_address_and_by_name() {
    let world = World::started(6);
    for (host, address) in
        [(1, "10.77.0.1"), (2, "10.77.0.1:4369"), (3, "[fd77::1]:4369"), (4, "h1"), (5, "h1:4369")]
    {
        let said = world.run(host, &["join", address]).ended_with(0);
        assert!(said.stdout.contains("h1"), "{said:#?}");
    }
    world.wait_until_agreed(&world.all());
}

#[test]
fn one_reachable_address_is_enough() {
    let world = World::started(2);
    let said = world.run(1, &["join", "10.77.0.200:1", "h1", "--json"]).ended_with(0);
    let joined = said.json();
    assert_eq!(joined["peers"][0]["host"], "h1", "{said:#?}");
    world.wait_until_agreed(&world.all());
}

#[test]
fn join_failures_are_explained() {
    let mut world = World::new(4);
    world[1].set_cookies(&[OTHER_COOKIE]);
    world[2].configure("cluster = \"other\"\n");
    for host in [0, 1, 2] {
        world.start(host);
    }
    // The fourth host has no daemon.
    for (from, address, code, word) in [
        (0, "h2", 5, "cookie"),
        (1, "h1", 5, "cookie"),
        (0, "h3", 5, "cluster"),
        (2, "h1", 5, "cluster"),
        (0, "10.77.0.4", 3, "10.77.0.4"),
        (0, "no-such-host", 4, "no-such-host"),
        (0, "10.77.0.1", 2, "itself"),
        (0, "127.0.0.1", 2, "itself"),
        (0, "h1", 2, "itself"),
    ] {
        let said = world.run(from, &["join", address]);
        assert_eq!((said.code, said.stdout.as_str()), (code, ""), "join {address}: {said:#?}");
        assert!(said.stderr.contains(word), "join {address}: {said:#?}");
        let json = world.run(from, &["join", address, "--json"]).ended_with(code);
        let error = serde_json::from_str::<serde_json::Value>(json.stdout.trim())
            .or_else(|_| serde_json::from_str(json.stderr.trim()));
        let error = error.unwrap_or_else(|error| panic!("join {address}: {error}: {json:#?}"));
        assert!(error["error"]["code"].is_string() && error["error"]["hint"].is_string(), "{json:#?}");
    }
    for host in [0, 1, 2] {
        assert_eq!(world.members(host), [world[host].name.clone()]);
    }
}

#[test]
fn an_unresponsive_address_times_out_without_affecting_others() {
    let world = World::joined(3);
    let node = world.register(1, "alice", 41_001);
    world.wait_for_names(&world.all(), [&node]);
    let watches = [world.watch(1), world.watch(2)];
    // The kernel has a neighbour entry for it, but packets sent to it get no answer.
    world.site(0).cell.ip("neigh add 10.77.0.4 lladdr 02:77:00:00:00:99 nud permanent dev eth0\n");
    for json in [false, true] {
        let mut args = vec!["join", "10.77.0.4", "--timeout", "1s"];
        args.extend(json.then_some("--json"));
        let said = world.run(0, &args).ended_with(6);
        if json {
            let error = &said.json()["error"];
            assert_eq!(error["code"], "timeout", "{said:#?}");
            assert!(error["hint"].as_str().is_some_and(|hint| hint.contains("firewall")), "{said:#?}");
        } else {
            let lines: Vec<&str> = said.stderr.lines().filter(|line| !line.is_empty()).collect();
            assert_eq!(said.stdout, "", "{said:#?}");
            assert!(
                matches!(lines.as_slice(), [.., error, hint]
                    if error.starts_with("error: 10.77.0.4 did not answer in time") && hint.starts_with("hint: ")),
                "{said:#?}"
            );
        }
    }
    // Another address that answers is enough.
    let said = world.run(0, &["join", "10.77.0.4", "h2", "--timeout", "1s"]).ended_with(0);
    assert!(said.stderr.contains("joining through 10.77.0.4 failed"), "{said:#?}");
    world.wait_until_agreed(&world.all());
    world.wait_for_names(&world.all(), [&node]);
    for watch in &watches {
        ["node_down", "node_left", "node_suspect"].iter().for_each(|kind| watch.never(kind, "h1"));
    }
}

#[test]
fn a_seed_may_start_after_the_daemons_that_name_it() {
    let mut world = World::new(3);
    world[1].configure("join = [\"10.77.0.1\"]\n");
    world[2].configure("[[peer]]\naddress = \"h1\"\n");
    world.start(1);
    world.start(2);
    world.start(0);
    world.wait_until_agreed(&world.all());
}

#[test]
fn daemons_on_one_network_discover_each_other_by_broadcast() {
    let mut world = World::new(4);
    for host in 0..4 {
        world[host].configure("discovery = [\"broadcast\"]\n");
    }
    // A daemon of another cluster receives the same beacons.
    world[3].set_cookies(&[OTHER_COOKIE]);
    world.start_all();
    world.wait_until_agreed(&[0, 1, 2]);
    assert_eq!(world.members(3), ["h4"]);
}

#[test]
fn rotating_the_cookie_never_splits_the_cluster() {
    const OLD: &str = crate::world::COOKIE;
    const NEW: &str = "c1a57e5700000000000000000000000000000000000000000000000000000003";
    let mut world = World::new(4);
    for host in 0..3 {
        world[host].configure("join = [\"10.77.0.1\", \"10.77.0.2\"]\n");
        world.start(host);
    }
    world.wait_until_agreed(&[0, 1, 2]);
    let watch = world.watch(0);
    let reload = |world: &World, host: usize, cookies: &[&str]| {
        world[host].set_cookies(cookies);
        world.run(host, &["reload"]).ended_with(0);
    };
    // The first host knows both and uses the new one; the others know only the old one. All of them can restart.
    reload(&world, 0, &[NEW, OLD]);
    world[2].terminate();
    world.start(2);
    world.wait_until_agreed(&[0, 1, 2]);
    reload(&world, 1, &[NEW, OLD]);
    reload(&world, 2, &[NEW, OLD]);
    // Now the old cookie is removed, host by host.
    reload(&world, 0, &[NEW]);
    reload(&world, 1, &[NEW]);
    world[2].terminate();
    world.start(2);
    world.wait_until_agreed(&[0, 1, 2]);
    reload(&world, 2, &[NEW]);
    watch.never("node_down", "h2");
    // A host that missed the rotation is rejected.
    world.start(3);
    world.run(3, &["join", "h1"]).ended_with(5);
    reload(&world, 3, &[NEW]);
    world.run(3, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&world.all());
}

#[test]
fn a_program_started_after_join_finds_the_hosts_in_the_hosts_file() {
    const HOSTS: usize = 6;
    let mut world = World::new(HOSTS);
    // The system's resolver knows h1 to h6, so the file would not list them.
    for host in 0..HOSTS {
        world[host].configure(&format!("host_name = \"x{}\"\n", host + 1));
    }
    world.start_all();
    let file = world[1].file("hosts-4369");
    let file = file.to_str().expect("a path");
    // In quick succession: changes are batched, and a node that reads the file reads it only once.
    for host in (0..HOSTS).filter(|host| *host != 1) {
        let name = format!("x{}", host + 1);
        world.run(1, &["join", &world[host].name.clone()]).ended_with(0);
        world.wait_on(&[1], "the host", |place| world.members(place).contains(&name));
        let said = world.run(1, &["run", "--", "cat", file]).ended_with(0);
        assert!(said.stdout.lines().any(|line| line.split(' ').nth(1) == Some(&*name)), "{said:#?}");
    }
}

#[test]
fn a_host_name_that_two_daemons_claim_is_warned_of_on_every_host() {
    let mut world = World::new(4);
    world[2].configure("host_name = \"h2\"\n");
    world.start_all();
    for host in 1..4 {
        world.run(host, &["join", "h1"]).ended_with(0);
    }
    let warns = |world: &World, host: usize, of: &str| {
        let status = world.block_on(world[host].api().status());
        status.is_ok_and(|status| status.warnings.iter().any(|warning| warning.contains(of)))
    };
    world.wait_on(&[0, 3], "the warning", |host| warns(&world, host, "both claim the host name h2"));
    world.wait_on(&[1, 2], "the warning", |host| warns(&world, host, "claims the name of this host, h2"));
    world[2].terminate();
    world.wait_on(&[0, 1, 3], "no warning", |host| {
        !warns(&world, host, "the name of this host") && !warns(&world, host, "the host name")
    });
}

#[test]
fn a_host_name_belongs_to_whoever_had_it_first_until_it_leaves_or_is_expelled() {
    let mut world = World::new(4);
    world[2].configure("host_name = \"h2\"\n");
    world.start_all();
    world.join_first(1..2);
    world.join_first(3..4);
    world.wait_on(&[0, 3], "the first", |host| world.members(host).contains(&"h2".to_owned()));
    let first = world.register(1, "bar", 41_001);
    world.join_first(2..3);
    let second = world.register(2, "bar", 41_002);
    world.register(2, "baz", 41_003);
    let port = |world: &World, host: usize, name: &str| {
        let found = world.block_on(world[host].api().lookup(name)).ok()?;
        assert!(found.matches.len() <= 1, "{found:?}");
        found.matches.first().map(|found| found.port)
    };
    let claims = |world: &World, host: usize| {
        let status = world.block_on(world[host].api().status()).expect("a status");
        status.warnings.iter().any(|warning| warning.contains("the host name h2"))
    };
    world.wait_on(&[0, 3], "the claim", |host| claims(&world, host));
    world.wait_on(&[0, 3], "the first one's node", |host| port(&world, host, "bar@h2") == Some(41_001));
    for host in [0, 3] {
        assert_eq!(port(&world, host, "baz@h2"), None, "nothing of the second one is used");
    }
    // It is remembered by a daemon that restarts, and while the first one is gone.
    world.wait_on(&[3], "the file", |host| world[host].file("names-4369").exists());
    drop(first);
    world[1].kill();
    world.wait_on(&[0], "its failure", |host| {
        !world.members(host).is_empty() && world.members(host).len() == 3
    });
    world[3].terminate();
    world.start(3);
    world.run(3, &["join", "h3"]).ended_with(0);
    world.wait_on(&[0, 3], "the claim", |host| claims(&world, host));
    for host in [0, 3] {
        assert_eq!(port(&world, host, "bar@h2"), None);
    }
    // An administrator gives the name to the second one.
    let warning = world.block_on(world[0].api().status()).expect("a status").warnings.join("; ");
    let holder = warning.split("pmd expel ").nth(1).and_then(|rest| rest.get(..8)).expect("an id").to_owned();
    let all = fs::read_to_string(world[3].file("names-4369")).expect("a file");
    let id = all.lines().find_map(|line| line.strip_prefix("h2 ")).expect("a holder");
    assert!(id.starts_with(&holder), "{warning}: {all}");
    world.run(0, &["expel", id, "--keep-secret"]).ended_with(0);
    world.wait_on(&[0, 3], "the second one's node", |host| port(&world, host, "bar@h2") == Some(41_002));
    drop(second);
}
