//! The cluster metrics match what has happened.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use crate::world::{OTHER_COOKIE, World};

/// A value from a host's metrics; none if there is no such series.
fn number(world: &World, host: usize, series: &str) -> Option<f64> {
    let page = world.block_on(world[host].api().metrics()).expect("metrics");
    let line = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    line.map(|value| value.parse().expect("a number"))
}

#[test]
fn members_links_refusals_and_tunnels_are_counted() {
    let mut world = World::new(3);
    world[2].set_cookies(&[OTHER_COOKIE]);
    world.start_all();
    world.join_first(1..2);
    world.wait_until_agreed(&[0, 1]);
    // By address, because a name has several addresses and each is tried.
    let first = world[0].ip.to_string();
    world.run(2, &["join", &first]).ended_with(5);
    let alice = world.register(0, "alice", 41_001);
    world.wait_for_names(&[0, 1], [&alice]);
    world.wait_until_agreed(&[0, 1]);
    for (series, value) in [
        ("pmd_cluster_members{state=\"alive\"}", 2.0),
        ("pmd_cluster_members{state=\"suspect\"}", 0.0),
        ("pmd_cluster_links{path=\"direct\"}", 1.0),
        ("pmd_cluster_names", 1.0),
        ("pmd_names", 1.0),
        ("pmd_handshake_failures_total{reason=\"cookie\"}", 1.0),
        ("pmd_handshake_failures_total{reason=\"tls\"}", 0.0),
    ] {
        assert_eq!(number(&world, 0, series), Some(value), "{series}");
    }
    world.wait_on(&[0, 1], "agreement", |host| {
        number(&world, host, "pmd_cluster_fingerprint_agreement") == Some(1.0)
    });
    let peer = world.status(1).expect("a status").id;
    let link = format!("{{peer=\"{}\",host=\"h2\"}}", &peer[..16]);
    for metric in ["pmd_link_rtt_seconds", "pmd_link_received_bytes_total", "pmd_link_sent_bytes_total"] {
        assert!(
            number(&world, 0, &format!("{metric}{link}")).is_some_and(|value| value > 0.0),
            "{metric}{link}"
        );
    }
    assert!(number(&world, 0, "pmd_delta_sent_bytes_total").is_some_and(|value| value > 0.0));
    drop(alice);
    world.wait_for_names(&[0, 1], []);
    world.wait_on(&[0, 1], "the tombstone", |host| {
        number(&world, host, "pmd_registry_tombstones") >= Some(1.0)
    });

    // A service on the second host, reached through a tunnel from the first.
    let listener = world.site(1).cell.run(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
    let port = listener.local_addr().expect("its address").port();
    world.run(1, &["register", "echo", "-P", &port.to_string()]).ended_with(0);
    let entry = || world.block_on(world[0].api().lookup("echo")).ok()?.matches.first()?.entry;
    world.wait_on(&[0], "a way to the service", |_| entry().is_some());
    let entry = entry().expect("an entry");
    let mut near = world.site(0).cell.run(move || TcpStream::connect(entry)).expect("a tunnel");
    near.write_all(&[7; 1_000]).expect("writing");
    let (mut far, _) = listener.accept().expect("the tunnel");
    far.read_exact(&mut [0; 1_000]).expect("the sent bytes");
    far.write_all(&[8; 500]).expect("writing");
    near.read_exact(&mut [0; 500]).expect("the echoed bytes");
    for (host, side, result) in [(0, "entry", "opened"), (1, "exit", "accepted")] {
        world.wait_on(&[host], "the bytes", |host| {
            number(&world, host, "pmd_tunnel_bytes_total") == Some(1_500.0)
        });
        let open = format!("pmd_tunnels_open{{side=\"{side}\",path=\"direct\"}}");
        assert_eq!(number(&world, host, &open), Some(1.0));
        assert_eq!(number(&world, host, &format!("pmd_tunnels_total{{result=\"{result}\"}}")), Some(1.0));
    }
    drop((near, far));
    world.wait_on(&[0, 1], "the end of the tunnel, with its bytes", |host| {
        number(&world, host, "pmd_tunnel_bytes_total") == Some(1_500.0)
            && ["entry", "exit"].iter().all(|side| {
                number(&world, host, &format!("pmd_tunnels_open{{side=\"{side}\",path=\"direct\"}}"))
                    == Some(0.0)
            })
    });

    world[1].kill();
    world.wait_on(&[0], "a line in the log that says why", |host| {
        world[host].log().lines().any(|line| line.contains("member down host=h2") && line.contains("reason="))
    });
    world.wait_on(&[0], "one member", |host| {
        number(&world, host, "pmd_cluster_members{state=\"alive\"}") == Some(1.0)
    });
}
