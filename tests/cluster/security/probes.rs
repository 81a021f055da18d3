//! A member that advertises addresses that are not its own, and has others dial them.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::{SinkExt, StreamExt};
use pmd::auth::cookie::Cookies;
use pmd::auth::tls::ALPN_LINK;
use pmd::base::clock::now_ms;
use pmd_core::membership::Identity;
use pmd_core::node::{LinkEvent, LinkId, Node, Now, Settings};
use pmd_core::tuning::{MembershipTuning, Tuning};
use pmd_protocol::peer::frame::{Observation, Probe};
use pmd_protocol::peer::{Decoded, Frame, Generation, Host, Metadata, NodeId};

use super::authority::{authority, identity};
use super::liar::certified;
use super::newcomer::Newcomer;
use crate::harness::wait_until;
use crate::world::{COOKIE, PATIENCE, World};

/// The identity of a member that advertises these addresses, and the frames with which it introduces itself.
fn introduction(newcomer: &Newcomer, addresses: &[SocketAddr]) -> (Identity, Vec<Frame>) {
    let host = Host {
        host: "elsewhere".parse().expect("a host name"),
        version: "1".into(),
        metadata: Metadata::default(),
        leaving: false,
        relay: false,
        secret_ms: 0,
        alias: None,
    };
    let (keys, addresses) = (newcomer.tls.keys(), addresses.to_vec());
    let now = Now { mono_ms: 0, wall_ms: now_ms() };
    let tuning = Tuning::default();
    let (administrators, decisions) = Default::default();
    let settings = Settings { keys, seed: [7; 32], addresses, host, tuning, administrators, decisions };
    let mut node = Node::new(settings, now).expect("a node");
    let (link, other) = (LinkId(1), Generation { boot_ms: 1, nonce: 1 });
    let peer = Identity::new(NodeId::MIN, other, &[]);
    let host = "asker".parse().expect("a host name");
    node.handle_link(now, LinkEvent::Up { link, peer, initiated: true, host });
    let frames = std::iter::from_fn(|| node.poll_transmit(link, 32 * 1024));
    let records = frames.filter(|frame| matches!(frame, Frame::Membership(_))).collect();
    (node.identity().clone(), records)
}

/// What the first host tells a member that asks it to probe another one, and how long it takes.
fn probe(world: &World, asker: &Newcomer, target: &Identity, records: &[Frame]) -> (Observation, Duration) {
    let mut link = asker.dial(world, 1, ALPN_LINK).expect("a handshake");
    world.block_on(async {
        for record in records {
            link.frames.send(record).await.expect("a link");
        }
        let (token, begin) = (42, Instant::now());
        let probe = Probe { token, target: target.id, generation: target.generation };
        link.frames.send(&Frame::Probe(probe)).await.expect("a link");
        loop {
            let frame = tokio::time::timeout(PATIENCE, link.frames.next()).await.expect("an answer");
            match frame {
                Some(Ok(Decoded::Frame(Frame::Probed(probed)))) if probed.token == token => {
                    return (probed.observation, begin.elapsed());
                }
                Some(Ok(_)) => {}
                other => panic!("the link has ended: {other:?}"),
            }
        }
    })
}

#[test]
fn a_member_cannot_have_ports_of_loopback_and_of_third_hosts_probed() {
    let mut world = World::new(3);
    world.start(0);
    let cookies = Arc::new(Cookies::of_text(COOKIE));
    check(&world, |name| Newcomer::new(&world, name, &cookies));
}

#[test]
fn nor_can_a_member_with_a_certificate() {
    let mut world = World::new(3);
    let names = ["asker", "elsewhere0", "elsewhere1", "elsewhere2", "elsewhere3"];
    let folder = authority(&world, "ca", &[&["h1"], names.as_slice()].concat());
    world[0].configure(&identity(&folder, "h1"));
    world.start(0);
    let cookies = Arc::new(Cookies::of_text(COOKIE));
    check(&world, |name| Newcomer::with(name, &certified(&folder, name), &cookies));
}

fn check(world: &World, newcomer: impl Fn(&str) -> Newcomer) {
    let listen = |host: usize, ip: std::net::Ipv4Addr| {
        let listener = world.site(host).cell.run(move || TcpListener::bind((ip, 0))).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        (listener.local_addr().expect("bound"), listener)
    };
    let (loopback, trap) = listen(0, std::net::Ipv4Addr::LOCALHOST);
    let (open, listener) = listen(2, world[2].ip);
    let (closed, _) = listen(2, world[2].ip);
    let asker = newcomer("asker");
    let timeout = Duration::from_millis(MembershipTuning::DEFAULT.probe_rtt_ms);
    for (number, addresses) in
        [vec![loopback, open], vec![loopback, closed], vec![loopback], vec![loopback, open]]
            .iter()
            .enumerate()
    {
        let elsewhere = newcomer(&format!("elsewhere{number}"));
        let (target, records) = introduction(&elsewhere, addresses);
        assert_eq!(target.addresses, *addresses);
        let (observation, took) = probe(world, &asker, &target, &records);
        // A daemon that doubts its own speed says that it does not know, whatever it has seen.
        let is_same = matches!(observation, Observation::Silent | Observation::Unknown);
        assert!(is_same && took >= timeout, "{addresses:?}: {observation:?} after {took:?}");
    }
    // It was dialled where that is allowed, and only there.
    wait_until("a connection to the other host", || listener.accept().is_ok());
    let arrived = trap.accept().expect_err("nobody may connect to loopback");
    assert_eq!(arrived.kind(), ErrorKind::WouldBlock);
}
