//! Certificates that their authority has revoked.

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures_util::{SinkExt, StreamExt};
use pmd::auth::cookie::Cookies;
use pmd::auth::revocation::lists_of_pem;
use pmd::auth::tls::ALPN_LINK;
use pmd::link::handshake::ProvenPeer;
use pmd_protocol::peer::frame::{Reason, Summary, Tally};
use pmd_protocol::peer::{Decoded, Frame, RevocationList};

use super::authority::{authority, identity};
use super::liar::certified;
use super::newcomer::Newcomer;
use crate::harness::wait_until;
use crate::machine::Said;
use crate::world::{COOKIE, PATIENCE, World};

/// Hosts with certificates of an authority in the folder `ca`, and no daemons.
fn certified_world(hosts: usize, more: &[&str]) -> World {
    let world = World::new(hosts);
    let names: Vec<String> = world.all().into_iter().map(|host| world[host].name.clone()).collect();
    let all: Vec<&str> = names.iter().map(String::as_str).chain(more.iter().copied()).collect();
    let folder = authority(&world, "ca", &all);
    for (host, name) in names.iter().enumerate() {
        world[host].configure(&identity(&folder, name));
    }
    world
}

/// Runs `pmd ca ARGS` on a host with the authority's folder.
fn ca(world: &World, host: usize, args: &[&str]) -> Said {
    let folder = world.shared("ca").display().to_string();
    let args: Vec<&str> = ["ca"].iter().chain(args).copied().chain(["--dir", &folder]).collect();
    world.run(host, &args)
}

/// The number of the list that a host has, and how many certificates it revokes.
fn list_of(world: &World, host: usize) -> Option<(u64, usize)> {
    let lists = world.block_on(world[host].api().revocations()).ok()?.lists;
    lists.first().map(|list| (list.number, list.revoked.len()))
}

fn warnings(world: &World, host: usize) -> Vec<String> {
    world.block_on(world[host].api().status()).expect("a status").warnings
}

#[test]
fn a_revoked_host_is_out_everywhere_until_it_has_a_new_certificate() {
    const OUT: usize = 2;
    const AWAY: usize = 3;
    let mut world = certified_world(4, &[]);
    world.start_all();
    world.join_first(1..4);
    world.wait_until_agreed(&world.all());
    world[AWAY].terminate();
    world.wait_until_agreed(&[0, 1, OUT]);
    let listener = world.site(OUT).cell.run(|| TcpListener::bind("0.0.0.0:0")).expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let node = world.register(OUT, "stolen", port);
    world.wait_for_names(&[0, 1], [&node]);
    let entry = || world.block_on(world[0].api().lookup("stolen@h3")).ok()?.matches.first()?.entry;
    world.wait_on(&[0], "an entry", |_| entry().is_some());
    let entry = entry().expect("an entry");
    let mut near = world.site(0).cell.run(move || TcpStream::connect(entry)).expect("an entry");
    let (mut far, _) = listener.accept().expect("a tunnel");
    let id = world.status(OUT).expect("a status").id;

    // Not on the host that has the tunnel.
    let begin = Instant::now();
    let said = ca(&world, 1, &["revoke", "h3"]).ended_with(0);
    assert!(said.stdout.starts_with("revoked the certificate of h3 with serial number "), "{said:#?}");
    assert!(said.stderr.contains("passes it on to all members"), "{said:#?}");
    for end in [&mut near, &mut far] {
        end.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let read = end.read(&mut [0; 1]);
        let is_reset = |error: std::io::Error| error.kind() == std::io::ErrorKind::ConnectionReset;
        assert!(read.as_ref().is_ok_and(|read| *read == 0) || read.is_err_and(is_reset));
    }
    world.wait_until_agreed(&[0, 1]);
    world.wait_for_names(&[0, 1], []);
    println!("gone on all hosts after {:?}", begin.elapsed());
    world.wait_on(&[0, 1, OUT], "the list", |host| list_of(&world, host) == Some((1, 1)));
    // It has heard of it, from the authority's own words.
    let said = warnings(&world, OUT);
    assert!(said.iter().any(|text| text.contains("certificate of this host is revoked")), "{said:?}");
    wait_until("the log to say it", || world[OUT].log().contains("certificate of this host is revoked"));
    for (from, to) in [(OUT, "h1"), (OUT, "h2"), (0, "h3")] {
        let refused = world.run(from, &["join", to]);
        assert_eq!(refused.code, 5, "h{} joins {to}: {refused:#?}", from + 1);
        assert!(refused.stderr.contains("revoked"), "{refused:#?}");
        assert!(refused.stderr.contains("pmd ca issue"), "{refused:#?}");
    }
    let refusals = world.block_on(world[0].api().refusals()).expect("a list").refusals;
    assert!(refusals.iter().any(|refusal| refusal.reason == "revoked" && !refusal.dialled), "{refusals:?}");

    // A member that was not there may accept it, until it is told.
    world.start(AWAY);
    world.run(AWAY, &["join", "h3"]);
    world.run(AWAY, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&[0, 1, AWAY]);
    world.wait_on(&[AWAY], "the list", |host| list_of(&world, host) == Some((1, 1)));
    assert_eq!(world.run(OUT, &["join", "h4"]).code, 5);
    // A member that restarts remembers it.
    world[0].terminate();
    world.start(0);
    assert_eq!(list_of(&world, 0), Some((1, 1)));
    assert_eq!(world.run(OUT, &["join", "h1"]).code, 5);
    world.run(0, &["join", "h2"]).ended_with(0);
    world.wait_until_agreed(&[0, 1, AWAY]);

    let said = ca(&world, 1, &["issue", "h3"]).ended_with(0);
    assert!(said.stderr.contains("the daemon gets a new id"), "{said:#?}");
    world[OUT].terminate();
    world.start(OUT);
    world.run(OUT, &["join", "h2"]).ended_with(0);
    world.wait_until_agreed(&world.all());
    let said = warnings(&world, OUT);
    assert!(!said.iter().any(|text| text.contains("revoked")), "{said:?}");
    assert_ne!(world.status(OUT).expect("a status").id, id);
}

/// The authority is on a machine without a daemon.
#[test]
fn a_list_is_copied_to_one_member_and_reaches_all() {
    let mut world = certified_world(4, &["laptop"]);
    (0..3).for_each(|host| world.start(host));
    world.join_first(1..3);
    world.wait_until_agreed(&[0, 1, 2]);
    let said = ca(&world, 3, &["revoke", "laptop"]).ended_with(0);
    assert!(said.stderr.contains("run there: pmd ca revoked --install revoked.pem"), "{said:#?}");
    let list = world.shared("ca").join("revoked.pem");
    let first = world.shared("first.pem");
    fs::copy(&list, &first).expect("room");
    let serial = fs::read_to_string(world.shared("ca").join("issued")).expect("a record");
    let serial = serial.lines().find(|line| line.ends_with(" h3")).expect("h3").split(' ').next();
    ca(&world, 3, &["revoke", "--serial", serial.expect("a number")]).ended_with(0);
    world.wait_until_agreed(&[0, 1, 2]);

    let install = |path: &Path| world.run(0, &["ca", "revoked", "--install", path.to_str().expect("a path")]);
    let said = install(&list).ended_with(0);
    assert_eq!(said.stdout, "list number 2 is in force: 2 certificates are revoked\n");
    world.wait_until_agreed(&[0, 1]);
    world.wait_on(&[0, 1], "the list", |host| list_of(&world, host) == Some((2, 2)));
    assert!(install(&list).ended_with(0).stdout.contains("was in force before"));
    let older = install(&first);
    assert_eq!(older.code, 7, "{older:#?}");
    assert!(older.stderr.contains("has list number 2, which is newer than number 1"), "{older:#?}");
    // The list of another authority, and of one of the same name.
    let theirs = authority(&world, "theirs", &["h1"]);
    let dir = theirs.display().to_string();
    let said = world.run(3, &["ca", "revoke", "h1", "--dir", &dir]).ended_with(0);
    assert!(said.stdout.contains("revoked the certificate of h1"), "{said:#?}");
    let refused = install(&theirs.join("revoked.pem"));
    assert_eq!(refused.code, 5, "{refused:#?}");
    assert!(refused.stderr.contains("not one of this daemon's certificate authority"), "{refused:#?}");
    // On a host whose daemon has a newer list than the authority's folder, that one is continued.
    fs::copy(&first, &list).expect("room");
    let said = ca(&world, 1, &["revoke", "h1"]).ended_with(0);
    assert!(said.stdout.contains("list number 3"), "{said:#?}");
    world.wait_on(&[1], "the list", |host| list_of(&world, host) == Some((3, 3)));
}

/// Sends the first host a frame over a link, and returns its first answer for which there is a value.
fn answer<T>(world: &World, link: &mut ProvenPeer, frame: &Frame, wanted: impl Fn(&Frame) -> Option<T>) -> T {
    world.block_on(async {
        link.frames.send(frame).await.expect("a link");
        loop {
            match tokio::time::timeout(PATIENCE, link.frames.next()).await.expect("an answer") {
                Some(Ok(Decoded::Frame(frame))) => {
                    if let Some(found) = wanted(&frame) {
                        return found;
                    }
                }
                Some(Ok(Decoded::Skipped { .. })) => {}
                ended => panic!("{ended:?}"),
            }
        }
    })
}

fn list_frame(der: Vec<u8>) -> Frame {
    Frame::RevocationList(RevocationList { der })
}

#[test]
fn a_member_cannot_forge_or_roll_back_a_list() {
    let mut world = certified_world(2, &["evil", "kind", "gone", "lost"]);
    world.start_all();
    world.join_first(1..2);
    world.wait_until_agreed(&world.all());
    let folder = world.shared("ca");
    let der = |path: &Path| {
        let text = fs::read_to_string(path).expect("a list");
        lists_of_pem(&text).expect("a list").swap_remove(0)
    };
    ca(&world, 0, &["revoke", "gone"]).ended_with(0);
    let older = der(&folder.join("revoked.pem"));
    ca(&world, 0, &["revoke", "lost"]).ended_with(0);
    let latest = der(&folder.join("revoked.pem"));
    let theirs = authority(&world, "theirs", &["h1"]);
    let dir = theirs.display().to_string();
    world.run(1, &["ca", "revoke", "h1", "--dir", &dir]);
    let foreign = der(&theirs.join("revoked.pem"));
    world.wait_on(&[0, 1], "the list", |host| list_of(&world, host) == Some((2, 2)));

    let cookies = Arc::new(Cookies::of_text(COOKIE));
    let dial = |name| {
        let member = Newcomer::with(name, &certified(&folder, name), &cookies);
        member.dial(&world, 1, ALPN_LINK)
    };
    let mut patient = dial("kind").expect("a certificate that is not revoked");
    for harmless in [older, latest.clone(), foreign] {
        world.block_on(patient.frames.send(&list_frame(harmless))).expect("a link");
    }
    let mut forged = latest;
    let last = forged.len() - 1;
    forged[last] ^= 1;
    for wrong in [forged, vec![0x30, 0], vec![]] {
        let mut link = dial("evil").expect("a certificate that is not revoked");
        let reason = answer(&world, &mut link, &list_frame(wrong), |frame| match frame {
            Frame::Close(close) => Some(close.reason),
            _ => None,
        });
        assert_eq!(reason, Reason::Violation);
    }
    // Lists are judged in turn, so those of this link were as well. It is still open.
    let summary = Summary { fingerprint: [0; 8], members: 1 };
    let tally = Frame::Tally(Tally { summary, asks: true });
    let is_open = answer(&world, &mut patient, &tally, |frame| match frame {
        Frame::Tally(_) => Some(true),
        Frame::Close(_) => Some(false),
        _ => None,
    });
    assert!(is_open);
    assert_eq!(list_of(&world, 0), Some((2, 2)));
    let said = warnings(&world, 0);
    assert!(said.iter().any(|text| text.contains("violated the protocol")), "{said:?}");
    assert!(world[0].log().contains("no valid signature"), "{}", world[0].log());
    // Whoever is revoked hears it from the side that it dials, after the proof.
    let refused = dial("gone");
    assert!(refused.is_err(), "{refused:?}");
}
