//! Clusters with a certificate authority, where neither a self-signed key nor the cookie is enough.

use std::path::{Path, PathBuf};

use pmd_protocol::peer::Frame;
use pmd_protocol::peer::frame::Hello;

use super::intruder::{Card, Talk};
use crate::world::{COOKIE, World};

/// Creates an authority and certificates for these hosts.
pub(super) fn authority(world: &World, name: &str, hosts: &[&str]) -> PathBuf {
    let folder = world.shared(name);
    let path = folder.display().to_string();
    world.run(0, &["ca", "init", "--dir", &path]).ended_with(0);
    for host in hosts {
        world.run(0, &["ca", "issue", host, "--dir", &path, "--out", &path]).ended_with(0);
    }
    folder
}

/// The configuration that makes a daemon use the certificate for `host`.
pub(super) fn identity(folder: &Path, host: &str) -> String {
    let folder = folder.display();
    format!(
        "ca_cert_path = \"{folder}/ca.pem\"\ncert_path = \"{folder}/{host}.pem\"\nkey_path = \"{folder}/{host}.key\"\n"
    )
}

#[test]
fn only_certificates_of_the_authority_are_accepted() {
    let mut world = World::new(4);
    let ours = authority(&world, "ours", &["h1", "h2", "intruder"]);
    let theirs = authority(&world, "theirs", &["h3", "intruder"]);
    for (host, folder) in [(0, &ours), (1, &ours), (2, &theirs)] {
        let name = world[host].name.clone();
        world[host].configure(&identity(folder, &name));
        world.start(host);
    }
    world.start(3);
    world.run(1, &["join", "h1"]).ended_with(0);
    world.wait_until_agreed(&[0, 1]);
    // Another authority, and no authority; in both directions.
    for (from, to) in [(2, "h1"), (3, "h1"), (0, "h3"), (0, "h4")] {
        let said = world.run(from, &["join", to]);
        assert_eq!(said.code, 5, "h{} joins {to}: {said:#?}", from + 1);
    }

    let dial =
        |card: &Card| Talk::dial(&world, 3, 0, Some(card)).expect("a client may speak before it is refused");
    // The intruder speaks the protocol correctly: with valid credentials it is admitted.
    let card = Card::issued(&ours, "intruder");
    let mut talk = dial(&card);
    talk.handshake(card.hello(), COOKIE).expect("a handshake");
    let first = talk.hear().expect("a link");
    assert!(!matches!(first, Frame::Close(_)), "{first:?}");
    drop(talk);
    // The host name must match the certificate.
    for host in ["h1", "h2", "h4", "", "*"] {
        let mut talk = dial(&card);
        talk.handshake(Hello { host: host.into(), ..card.hello() }, COOKIE).expect("a handshake");
        talk.hear_out().closed_because("Refused");
    }
    for card in [Card::issued(&theirs, "intruder"), Card::fresh()] {
        let mut talk = dial(&card);
        // The daemon may already have closed the connection.
        let _ = talk.prove(COOKIE);
        let ending = talk.hear_out();
        assert!(ending.frames.is_empty(), "{ending:?}");
    }
    world.wait_until_agreed(&[0, 1]);
}

#[test]
fn a_daemon_does_not_start_with_another_hosts_certificate() {
    let world = World::new(1);
    let folder = authority(&world, "ours", &["h2"]);
    world[0].configure(&identity(&folder, "h2"));
    let said = world.run(0, &["start", "--foreground"]);
    assert!(said.code != 0 && said.stderr.contains("h1"), "{said:#?}");
    assert!(!world[0].has_daemon());
}
