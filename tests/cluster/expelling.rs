//! Members that are put out of the cluster, and the replacement of the cluster secret over the links.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::wait_until;
use crate::world::{COOKIE, PATIENCE, World};

/// The secrets in a host's file, the current one first.
fn secrets(world: &World, host: usize) -> Vec<String> {
    let text = fs::read_to_string(world[host].file("cookie")).expect("a cookie file");
    text.lines().map(str::to_owned).collect()
}

/// The lines of a host's log that say that a link has ended, unless it was one that the overlay did not need.
fn lost_links(world: &World, host: usize) -> Vec<String> {
    let is_lost = |line: &&str| {
        (line.contains("link down") || line.contains("link closed"))
            && !["NotNeeded", "Duplicate"].iter().any(|reason| line.contains(reason))
    };
    world[host].log().lines().filter(is_lost).map(str::to_owned).collect()
}

/// Waits until none of `members` is new any more to the one on `host`: when another one is expelled, newcomers do not get
/// the new secret.
fn wait_until_known(world: &World, host: usize, members: &[usize]) {
    /// How long somebody is new, see `NEWCOMER` in `src/cluster/rotate.rs`, and time to notice a member.
    const NEW: jiff::SignedDuration = jiff::SignedDuration::from_millis(3_200);
    let watch = world.watch(host);
    let others = members.iter().filter(|member| **member != host);
    let ids: Vec<_> = others.map(|member| world.status(*member).expect("a status").id).collect();
    world.wait_on(&[host], "all members to be known for a while", |_| {
        let known_before = jiff::Timestamp::now() - NEW;
        let events = watch.events();
        ids.iter().all(|id| {
            let mut ups = events.iter().rev().filter(|event| event.kind == "node_up");
            ups.find(|event| event.node_id.as_ref() == Some(id)).is_some_and(|event| event.at < known_before)
        })
    });
}

fn warnings(world: &World, host: usize) -> Vec<String> {
    world.block_on(world[host].api().status()).expect("a status").warnings
}

#[test]
fn an_expelled_host_is_out_everywhere_and_stays_out_until_it_is_readmitted() {
    const HOSTS: usize = 30;
    const OUT: usize = HOSTS - 1;
    let mut world = World::joined(HOSTS);
    let others = world.all_but(&[OUT]);
    let node = world.register(OUT, "stolen", 41_001);
    world.wait_for_names(&others, [&node]);
    let watch = world.watch(5);
    let name = world[OUT].name.clone();
    wait_until_known(&world, 0, &world.all());
    let begin = Instant::now();
    let said = world.run(0, &["expel", &name]).ended_with(0);
    assert!(said.stdout.starts_with(&format!("expelled {name} (")), "{said:#?}");
    assert!(said.stderr.contains("29 of 29 hosts have it"), "{said:#?}");
    println!("expelled, and the secret replaced on {} hosts, after {:?}", others.len(), begin.elapsed());
    watch.wait_for("node_left", &name);
    assert_eq!(watch.reasons("node_left", &name), [Some("expelled".to_owned())]);
    world.wait_until_agreed(&others);
    world.wait_for_names(&others, []);
    for host in [0, 7, 28] {
        let listed = world.run(host, &["expelled", "--json"]).ended_with(0).json();
        assert_eq!(
            (listed["expelled"][0]["host"].as_str(), listed["expelled"][0]["by"].as_str()),
            (Some(name.as_str()), Some("h1")),
            "{listed:#}"
        );
        assert_eq!(secrets(&world, host).len(), 1, "only the new secret");
        assert_ne!(secrets(&world, host)[0], COOKIE);
    }
    assert_eq!(secrets(&world, OUT), [COOKIE], "the expelled host did not get the new secret");

    // Under its old key it is refused, whatever secret it proves, and it says so.
    let fresh = secrets(&world, 0);
    for secret in [COOKIE, &fresh[0]] {
        world[OUT].set_cookies(&[secret]);
        world.run(OUT, &["reload"]).ended_with(0);
        let refused = world.run(OUT, &["join", "h3"]);
        assert_eq!(refused.code, 5, "{refused:#?}");
    }
    let refused = world.run(OUT, &["join", "h3"]);
    assert!(refused.stderr.contains("expelled from the cluster on host"), "{refused:#?}");
    assert!(warnings(&world, OUT).iter().any(|warning| warning.contains("expelled")));
    // The members see that it tries, by its key, whichever secret it proves.
    let returning = |host| {
        let found = warnings(&world, host).into_iter().find(|warning| warning.contains("tries to come back"));
        found.filter(|warning| warning.starts_with(&format!("expelled \"{name}\" (")))
    };
    let warned = returning(2).expect("a warning");
    assert!(warned.contains(" times since ") && warned.contains("pmd readmit"), "{warned}");
    let found = world.run(2, &["doctor", "--json"]).json().to_string();
    assert!(
        found.contains("tries to come back") && !found.contains("copy the cluster secret to that host"),
        "{found}"
    );
    // Under a new key it needs the new secret.
    world[OUT].terminate();
    world[OUT].set_cookies(&[COOKIE]);
    let key = fs::read(world[OUT].file("node-4369.key")).expect("a key");
    fs::remove_file(world[OUT].file("node-4369.key")).expect("a key");
    world.start(OUT);
    let refused = world.run(OUT, &["join", "h3"]);
    assert_eq!(refused.code, 5, "{refused:#?}");
    assert!(refused.stderr.contains("cookie mismatch"), "{refused:#?}");
    assert_eq!(world.status(3).expect("a status").members, others.len());

    // A member that restarts remembers it, and one that was not there learns it.
    world[3].terminate();
    world.start(3);
    world.run(3, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&others);
    world[OUT].terminate();
    fs::write(world[OUT].file("node-4369.key"), key).expect("room");
    world[OUT].set_cookies(&[&fresh[0]]);
    world.start(OUT);
    assert_eq!(world.run(OUT, &["join", "h4"]).code, 5);

    // Any member may readmit it.
    let said = world.run(12, &["readmit", &name]).ended_with(0);
    assert!(said.stdout.contains("may join again"), "{said:#?}");
    wait_until("the readmission to be known", || {
        world.run(3, &["expelled", "--json"]).ended_with(0).json()["expelled"]
            .as_array()
            .is_some_and(Vec::is_empty)
    });
    world.run(OUT, &["join", "h4"]).ended_with(0);
    world.wait_until_agreed(&world.all());
    for host in [OUT, 2] {
        assert!(!warnings(&world, host).iter().any(|warning| warning.contains("expelled")));
    }
}

#[test]
fn an_expelled_host_loses_its_tunnels() {
    let world = World::joined(2);
    let listener = world.site(1).cell.run(|| TcpListener::bind("0.0.0.0:0")).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let node = world.register(1, "bar", port);
    world.wait_for_names(&[0], [&node]);
    let entry = || world.block_on(world[0].api().lookup("bar@h2")).ok()?.matches.first()?.entry;
    world.wait_on(&[0], "an entry", |_| entry().is_some());
    let entry = entry().expect("an entry");
    let mut near = world.site(0).cell.run(move || TcpStream::connect(entry)).expect("an entry");
    let (mut far, _) = listener.accept().expect("a tunnel");
    far.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    near.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    wait_until_known(&world, 1, &world.all());
    world.run(1, &["expel", "h1"]).ended_with(0);
    // The bytes of the program behind it end at once.
    for end in [&mut far, &mut near] {
        let read = end.read(&mut [0; 1]);
        assert!(
            read.as_ref().is_ok_and(|read| *read == 0)
                || read.is_err_and(|error| { error.kind() == std::io::ErrorKind::ConnectionReset })
        );
    }
}

#[test]
fn of_two_hosts_with_one_name_one_is_named_by_its_id() {
    let mut world = World::new(3);
    for host in [1, 2] {
        world[host].configure("host_name = \"twin\"\n");
    }
    world.start_all();
    world.join_first(1..3);
    world.wait_on(&[0], "both", |host| world.members(host).len() == 3);
    for command in [&["leave", "twin"][..], &["expel", "twin"]] {
        let refused = world.run(0, command);
        assert_eq!(refused.code, 7, "{refused:#?}");
        assert!(refused.stderr.contains("2 daemons have the name or address \"twin\""), "{refused:#?}");
    }
    let id = world.status(2).expect("a status").id;
    wait_until_known(&world, 0, &world.all());
    world.run(0, &["expel", &id[..8]]).ended_with(0);
    world
        .wait_on(&[0, 1], "two members", |host| world.status(host).is_some_and(|status| status.members == 2));
    assert_eq!(world.run(0, &["expel", "h1"]).code, 2, "itself");
    assert_eq!(world.run(0, &["expel", "nobody"]).code, 4);
    assert_eq!(world.run(0, &["readmit", "nobody"]).code, 4);
    // Expelling again changes nothing.
    world.run(1, &["expel", &id, "--keep-secret"]).ended_with(0);
}

#[test]
fn only_administrators_expel_and_rotate_where_they_are_named() {
    let mut world = World::new(3);
    world.start(0);
    let admin = world.status(0).expect("a status").id;
    world[0].terminate();
    for host in world.all() {
        world[host].configure(&format!("administrators = [\"{admin}\"]\n"));
    }
    world.start_all();
    world.join_first(1..3);
    world.wait_until_agreed(&world.all());
    for command in
        [&["expel", "h2"][..], &["expel", "h2", "--keep-secret"], &["readmit", "h2"], &["cookie", "rotate"]]
    {
        let refused = world.run(2, command);
        assert_eq!(refused.code, 5, "{refused:#?}");
        assert!(refused.stderr.contains("not among the administrators"), "{refused:#?}");
    }
    world.wait_until_agreed(&world.all());
    world.run(0, &["expel", "h3", "--keep-secret"]).ended_with(0);
    world.wait_on(&[1], "the expulsion", |host| !world.members(host).contains(&"h3".to_owned()));
}

#[test]
fn a_new_secret_reaches_all_members_without_the_loss_of_a_link() {
    const HOSTS: usize = 30;
    let mut world = World::joined(HOSTS);
    let away = HOSTS - 1;
    world[away].terminate();
    let present = world.all_but(&[away]);
    world.wait_until_agreed(&present);
    let watch = world.watch(0);
    let before: Vec<_> = present.iter().map(|host| lost_links(&world, *host)).collect();
    let begin = Instant::now();
    let said = world.run(2, &["cookie", "rotate"]).ended_with(0);
    let took = begin.elapsed();
    assert!(said.stdout.contains("29 of 29 hosts have it"), "{said:#?}");
    println!("rotated on {} hosts in {took:?}", present.len());
    let new = secrets(&world, 2);
    world.wait_on(&present, "only the new secret", |host| secrets(&world, host) == new);
    assert_eq!((new.len(), new[0].len()), (1, 64));
    world.wait_until_agreed(&present);
    // The time after which links that were not proven again are closed.
    wait_until("the links to be checked", || begin.elapsed() > took + Duration::from_secs(4));
    let after: Vec<_> = present.iter().map(|host| lost_links(&world, *host)).collect();
    assert_eq!(before, after);
    present[1..].iter().for_each(|host| watch.never("node_down", &world[*host].name));

    // A stranger that knows the old secret is refused, and one that was away gets the new one, once.
    let key = fs::read(world[away].file("node-4369.key")).expect("a key");
    fs::remove_file(world[away].file("node-4369.key")).expect("a key");
    world.start(away);
    assert_eq!(world.run(away, &["join", "h1"]).code, 5, "a stranger");
    world[away].terminate();
    fs::write(world[away].file("node-4369.key"), key).expect("room");
    world.start(away);
    world.run(away, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&world.all());
    world.wait_on(&[away], "the new secret", |host| secrets(&world, host) == new);
    world.wait_on(&[0], "the proof of the new secret", |host| {
        let rotation = world.block_on(world[host].api().rotation()).expect("a rotation");
        rotation.finished && rotation.have == HOSTS && rotation.late == 0
    });
    world[away].terminate();
    world[away].set_cookies(&[COOKIE]);
    fs::remove_file(world[away].file("rotation-4369")).expect("a rotation");
    world.start(away);
    let refused = world.run(away, &["join", "h1"]);
    assert_eq!(refused.code, 5, "it has proven the new secret before: {refused:#?}");
}

#[test]
fn a_member_that_was_away_for_two_rotations_returns() {
    let mut world = World::joined(4);
    let present = [0, 1, 2];
    world[3].terminate();
    world.wait_until_agreed(&present);
    for by in [0, 1] {
        world.run(by, &["cookie", "rotate"]).ended_with(0);
    }
    // Those that would let it in remember that across a restart.
    let late = |host: usize| world.block_on(world[host].api().rotation()).expect("a rotation").late;
    world.wait_on(&[2], "the end of the second rotation", |host| late(host) == 1);
    world[2].terminate();
    world.start(2);
    world.run(2, &["join", "h1"]).ended_with(0);
    world.start(3);
    assert_eq!(secrets(&world, 3), [COOKIE]);
    world.run(3, &["join", "h3"]).ended_with(0);
    world.wait_until_agreed(&world.all());
    let new = secrets(&world, 0);
    world.wait_on(&[3], "the latest secret", |host| secrets(&world, host) == new);
    // Once: it has proven the new secret.
    world.wait_on(&[2], "the proof of the new secret", |host| {
        world.block_on(world[host].api().rotation()).expect("a rotation").late == 0
    });
}

#[test]
fn a_rotation_that_does_not_finish_is_a_warning_until_it_is_finished() {
    let mut world = World::new(3);
    // It does not take the new secret.
    world[2].configure(&format!("administrators = [\"{}\"]\n", "ab".repeat(32)));
    world.start_all();
    world.join_first(1..3);
    world.wait_until_agreed(&world.all());
    assert_eq!(world.run(0, &["cookie", "rotate", "--timeout", "1s"]).code, 6);
    let is_warned = |host| {
        let says =
            |warning: &String| warning.contains("h3") && warning.contains("pmd cookie rotate --finish");
        warnings(&world, host).iter().any(says)
    };
    world.wait_on(&[0, 1], "a warning", is_warned);
    assert!(world.run(1, &["metrics"]).ended_with(0).stdout.contains("\npmd_cluster_secrets 2\n"));
    world.run(1, &["cookie", "rotate", "--finish"]).ended_with(0);
    world.wait_on(&[0, 1], "no warning", |host| !is_warned(host));
    assert!(world.run(1, &["metrics"]).ended_with(0).stdout.contains("\npmd_cluster_secrets 1\n"));
}

/// A daemon that restarts in the middle of a rotation goes on with it.
#[test]
fn a_rotation_survives_restarts() {
    let mut world = World::joined(3);
    // A frozen member is alive for a while and does not get the secret.
    world[2].freeze();
    let refused = world.run(0, &["cookie", "rotate", "--timeout", "1s"]);
    assert_eq!(refused.code, 6, "{refused:#?}");
    assert!(refused.stderr.contains("2 of 3 hosts have the new secret, but not h3"), "{refused:#?}");
    assert_eq!(secrets(&world, 1).len(), 2, "both are accepted");
    assert_eq!(world.run(1, &["cookie", "rotate"]).code, 7, "one at a time");
    for host in [0, 1] {
        world[host].terminate();
        world.start(host);
    }
    world[2].thaw();
    world.run(1, &["join", "h1"]).ended_with(0);
    world.run(2, &["join", "h1"]).ended_with(0);
    let new = secrets(&world, 0)[0].clone();
    world.wait_on(&world.all(), "the end of the rotation", |host| secrets(&world, host) == [new.clone()]);
    world.wait_until_agreed(&world.all());
}

/// A host that is expelled tries at once to come back under other keys, with the secret that it knows.
#[test]
fn whoever_is_expelled_does_not_get_the_new_secret_under_other_keys() {
    const HOSTS: usize = 6;
    const THIEVES: usize = 3;
    let mut world = World::new(HOSTS + THIEVES);
    (0..HOSTS).for_each(|host| world.start(host));
    world.join_first(1..HOSTS);
    let members: Vec<usize> = (0..HOSTS).collect();
    world.wait_until_agreed(&members);
    wait_until_known(&world, 0, &members);
    // Each of the thief's other keys joins through another member, again and again, from before the expulsion on.
    for thief in HOSTS..HOSTS + THIEVES {
        world.start(thief);
    }
    let out = world[HOSTS - 1].name.clone();
    let stop = AtomicBool::new(false);
    let world = &world;
    std::thread::scope(|scope| {
        for thief in HOSTS..HOSTS + THIEVES {
            let through = world[thief - HOSTS + 1].name.clone();
            let stop = &stop;
            scope.spawn(move || {
                while !stop.load(Ordering::Relaxed) {
                    world.run(thief, &["join", &through]);
                    world.run(thief, &["leave"]);
                }
            });
        }
        let said = world.run(0, &["expel", &out]);
        stop.store(true, Ordering::Relaxed);
        assert_eq!(said.code, 0, "{said:#?}");
    });
    let new = secrets(world, 0)[0].clone();
    for host in 1..HOSTS - 1 {
        world.wait_on(&[host], "the new secret", |host| secrets(world, host)[0] == new);
    }
    for thief in HOSTS - 1..HOSTS + THIEVES {
        assert!(!secrets(world, thief).contains(&new), "h{} has got the new secret", thief + 1);
    }
    // Their links end as well.
    world.wait_until_agreed(&members[..HOSTS - 1]);
}
