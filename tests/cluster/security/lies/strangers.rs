//! What a member says when it ends a link, how many connections it holds, and what it learns without the cluster secret
//! although it has a certificate.

use std::net::TcpListener;

use futures_util::{SinkExt, StreamExt};
use pmd::auth::tls::{ALPN_LINK, ALPN_TUNNEL};
use pmd_protocol::peer::frame::{Close, Hello, Open, PROTOCOL, Preface, Proof, Reason};
use pmd_protocol::peer::{Decoded, Frame, Kind};

use super::attacker::Attacker;
use super::stage::{Admits, HONEST, LIAR, LIAR_NAME, Outcome, Stage};
use super::with_and_without_an_authority;
use crate::security::intruder::Talk;
use crate::world::{COOKIE, PATIENCE};

with_and_without_an_authority! {
    text_that_breaks_the_line
    a_certificate_without_the_secret
    any_number_of_links
    any_number_of_tunnels
}

/// TRUST 13: text of others is quoted and stays in its line.
fn text_that_breaks_the_line(admits: Admits) {
    const FORGED: &str = "FORGED";
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let text = format!("\r\n\u{1b}[2J2026-01-01T00:00:00Z  INFO {FORGED}\" ");
    let mut rounds = 0;
    stage.endure(&mut liar, Outcome::Bounded, |world, liar| {
        liar.redial(world);
        liar.say_to_all(&Frame::Close(Close { reason: Reason::Refused, text: text.clone() }));
        world.wait_on(&HONEST, "the links to be closed", |host| liar.is_closed(host));
        // In the handshake, as the side that dials.
        for to in HONEST {
            let card = stage.card();
            let mut talk = Talk::dial(world, LIAR, to, Some(&card)).expect("TLS");
            talk.prove(COOKIE).expect("a proof");
            talk.say(&Frame::Close(Close { reason: Reason::Refused, text: text.clone() })).expect("a Close");
            let hello = Hello { cluster: text.clone(), host: text.clone(), ..card.hello() };
            let mut talk = Talk::dial(world, LIAR, to, Some(&card)).expect("TLS");
            let _ = talk.handshake(hello, COOKIE);
            talk.hear_out();
        }
        rounds += 1;
        rounds >= 3
    });
    for host in HONEST {
        for line in stage.world[host].log().lines().filter(|line| line.contains(FORGED)) {
            assert!(!line.contains(char::is_control), "{line}");
            let (before, _) = line.split_once(FORGED).expect("it is there");
            assert!(before.contains(r"\r\n") && before.contains('"'), "{line}");
        }
    }
}

/// TRUST 15: a certificate does not replace the secret, and whoever does not know it learns nothing.
fn a_certificate_without_the_secret(admits: Admits) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let mut rounds = 0;
    stage.endure(&mut liar, Outcome::Bounded, |world, _| {
        for to in HONEST {
            for proof in [None, Some(Proof { mac: [7; 32], other: Some([8; 32]) })] {
                let mut talk = Talk::dial(world, LIAR, to, Some(&stage.card())).expect("TLS");
                talk.say(&Frame::Preface(Preface { protocol: PROTOCOL })).expect("a Preface");
                if let Some(proof) = proof {
                    let _ = talk.say(&Frame::Proof(proof));
                }
                talk.hear_out().told_nothing();
            }
        }
        rounds += 1;
        rounds >= 1
    });
}

/// TRUST 16: a member has its share of links and no more.
fn any_number_of_links(admits: Admits) {
    const TRIES: usize = 20;
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let mut held = Vec::new();
    let mut rounds = 0;
    stage.endure(&mut liar, Outcome::Refused("wants more connections than it may have"), |world, liar| {
        for to in HONEST {
            let dial = |_| liar.newcomer().dial_to(world, (LIAR, to), ALPN_LINK).expect("a handshake");
            held.extend((0..TRIES).map(dial));
        }
        rounds += 1;
        rounds >= 3
    });
    let status = |host: usize| stage.world.block_on(stage.world[host].api().status()).expect("a daemon");
    for host in HONEST {
        // One of each honest daemon and one of the liar, at most.
        let links = status(host).cluster.expect("a member").links;
        assert!(links <= 4, "{links} links of h{}", host + 1);
        assert!(status(host).counters.others.links_over_share > 0, "{LIAR_NAME} on h{}", host + 1);
    }
}

/// TRUST 16: a member has its share of tunnels and no more.
fn any_number_of_tunnels(admits: Admits) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let [first, ..] = HONEST;
    let listener = stage.world.site(first).cell.run(|| TcpListener::bind("127.0.0.1:0")).expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let port = listener.local_addr().expect("bound").port();
    let mut accepted = Vec::new();
    let _node = stage.world.register(first, "target", port);
    let limit = || {
        let status = stage.world.block_on(stage.world[first].api().status()).expect("a daemon");
        status.tunnels.expect("a member").limit
    };
    let share = limit() / 4;
    let mut held = Vec::new();
    let mut refused = None;
    stage.endure(&mut liar, Outcome::Bounded, |world, liar| {
        if refused.is_some() {
            return true;
        }
        let open = Open { kind: Kind::NAME, name: "target".to_owned(), creation: 0 };
        let mut peer = liar.newcomer().dial_to(world, (LIAR, first), ALPN_TUNNEL).expect("a handshake");
        let answer = world.block_on(async {
            peer.frames.send(&Frame::Open(open)).await.expect("a connection");
            tokio::time::timeout(PATIENCE, peer.frames.next()).await.expect("an answer")
        });
        match answer {
            Some(Ok(Decoded::Frame(Frame::Opened(_)))) => {
                held.push(peer);
                // The kernel queues few connections that nobody accepts.
                accepted.extend(std::iter::from_fn(|| listener.accept().ok()));
            }
            Some(Ok(Decoded::Frame(Frame::Close(close)))) => refused = Some(close.text),
            other => panic!("an answer to a request for a tunnel: {other:?}"),
        }
        false
    });
    println!("{} tunnels of at most {share}: {refused:?}", held.len());
    assert!(held.len() <= share && refused.is_some_and(|text| text.contains("which is its share")));
    let told = stage.world.block_on(stage.world[first].api().refusals()).expect("a daemon").refusals;
    assert!(told.iter().any(|refusal| refusal.what.contains("which is its share")), "{told:?}");
    let log = stage.world[first].log();
    assert!(log.lines().any(|line| line.contains("which is its share") && line.contains(LIAR_NAME)), "{log}");
}
