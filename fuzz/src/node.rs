//! Properties of the cluster node for arbitrary bytes. Each function panics if one is violated.

use std::sync::Arc;

use pmd_core::attest::{Keys, id_of};
use pmd_core::membership::Identity;
use pmd_core::node::{Command, LinkEvent, LinkId, Node, Now, Output, Settings};
use pmd_core::replica::content::Content;
use pmd_core::replica::store::{Effect, Need, Source, Store};
use pmd_core::tuning::{ReplicaTuning, Tuning};
use pmd_protocol::HostName;
use pmd_protocol::limits::{FRAME_FIXED, MAX_FRAME};
use pmd_protocol::peer::codec::{Decoded, Phase, decode, encode};
use pmd_protocol::peer::frame::{Observation, Reason};
use pmd_protocol::peer::{Entry, Generation, Host, Key, Kind, NodeId, PublicKey, Service, Signature, Value};

/// Whatever proven peers send, in any order, while time passes and links come and go, the node must not panic, only
/// show entries of live members, and only send messages that can be encoded.
///
/// A step is one byte, followed by kind, length and body for a message.
pub fn frames(mut data: &[u8]) {
    let Some(mut node) = node() else { return };
    let mut now = Now { mono_ms: 10, wall_ms: 1_000 };
    for (link, peer) in [(1, 2), (2, 3)] {
        node.handle_link(
            now,
            LinkEvent::Up {
                link: LinkId(link),
                peer: identity(peer),
                initiated: link == 1,
                host: host_name(),
            },
        );
        drain(&mut node);
    }
    let mut next_link = 3;
    while let Some((step, rest)) = data.split_first() {
        data = rest;
        let link = LinkId(u64::from(step >> 4));
        match step & 0x0f {
            0 => now.mono_ms += 7,
            1 => now.mono_ms += 3_000,
            2 => now.mono_ms += 700_000,
            3 => {
                let peer = identity(2 + (step >> 4) % 4);
                node.handle_link(
                    now,
                    LinkEvent::Up {
                        link: LinkId(next_link),
                        peer,
                        initiated: next_link % 2 == 0,
                        host: host_name(),
                    },
                );
                next_link += 1;
            }
            4 => node.handle_link(now, LinkEvent::Down { link, reason: None }),
            5 => node.handle_link(now, LinkEvent::Down { link, reason: Some(Reason::NotNeeded) }),
            6 => node.handle_link(now, LinkEvent::Failed { peer: identity(2 + (step >> 4)).id }),
            7 => node.handle_link(now, LinkEvent::Probed { token: link.0, observation: Observation::Silent }),
            8 => {
                if let Some(entry) = service(step >> 4) {
                    let _ = node.handle_command(now, Command::Put(entry));
                }
            }
            9 => {
                if let Some(entry) = service(step >> 4) {
                    let _ = node.handle_command(now, Command::Remove(entry));
                }
            }
            _ => {
                let Some(([kind, length], rest)) = data.split_first_chunk() else { break };
                let length = usize::from(*length).min(rest.len());
                let (body, rest) = rest.split_at(length);
                data = rest;
                let Ok(announced) = u32::try_from(FRAME_FIXED + body.len()) else { break };
                let bytes = [&announced.to_be_bytes()[..], &[*kind, 1], body].concat();
                if let Ok(Some((Decoded::Frame(frame), _))) = decode(&bytes, Phase::Proven) {
                    let link = LinkId(1 + u64::from(step >> 4) % next_link);
                    if step & 1 == 0 {
                        node.handle_frame(now, link, frame);
                    } else {
                        node.handle_one_shot(now, frame);
                    }
                }
            }
        }
        drain(&mut node);
        if node.poll_timeout() <= now.mono_ms {
            node.handle_timeout(now);
            drain(&mut node);
        }
        for (id, content) in node.replica().store().iter().skip(1) {
            let visible = node.replica().view().is_visible(&id);
            assert!(
                !visible || node.generation_of(&id) == Some(content.stamp().generation),
                "{id} is visible"
            );
        }
    }
}

/// The result of a transfer must be the join of the receiver's and the sender's contents, however it is split, whatever
/// was deleted or forgotten before, and regardless of who forwards it.
pub fn delta(data: &[u8]) {
    let tuning = |tombstones| ReplicaTuning { tombstones, ..ReplicaTuning::DEFAULT };
    let (Some((first, steps)), me) = (data.split_first(), identity(1)) else { return };
    let mut writer = Store::new(me.id, me.generation, tuning(usize::from(first & 7)));
    let mut replicas = [2_u8, 3].map(|number| {
        Store::new(
            identity(number).id,
            me.generation,
            tuning(usize::from(first >> 4) * usize::from(number - 2)),
        )
    });
    let mut generation = me.generation;
    for step in steps {
        let (number, budget) = (usize::from(step >> 2) % 8, usize::from(*step) * 2);
        match step & 3 {
            0 => {
                let Ok(key) = Key::new(Kind::SERVICE, &[b'a' + (step >> 5)], 0) else { return };
                let Ok(value) = Value::new(&vec![*step; number * 20]) else { return };
                writer.put(key, value);
            }
            1 if number == 7 => {
                generation = generation.renewed(0, u64::from(*step));
                writer.renew(generation);
            }
            1 => {
                let Ok(key) = Key::new(Kind::SERVICE, &[b'a' + (step >> 5)], 0) else { return };
                writer.delete(&key);
            }
            2 => bring(&mut replicas[number % 2], &writer, me.id, budget),
            _ => {
                let [one, other] = &mut replicas;
                if number % 2 == 0 {
                    bring(one, other, me.id, budget);
                } else {
                    bring(other, one, me.id, budget);
                }
            }
        }
    }
    let [one, other] = &mut replicas;
    bring(one, &writer, me.id, 100);
    bring(other, one, me.id, 50);
    for replica in [one, other] {
        assert!(
            replica.content(&me.id).is_some_and(|content| same(content, &writer, &me.id))
                || writer_is_new(&writer, &me.id)
        );
    }
}

/// Transfers an origin from one store to another. The join of two contents of one origin is the greater of them.
fn bring(to: &mut Store, from: &Store, origin: NodeId, budget: usize) {
    let (before, sent) = (to.content(&origin).cloned(), from.content(&origin).cloned());
    let mut have = to.stamp(&origin);
    for _ in 0..2 {
        let Some(mut transfer) = from.transfer(&origin, have) else { break };
        let mut again = false;
        while let Some(part) = transfer.next_part(budget) {
            let applied = to.apply(Source(1), part, |_| true).expect("a correct update was rejected");
            assert!(!applied.fork && !applied.doubt, "a fork was reported with a single writer");
            if let Effect::Missing(need) = applied.effect {
                (again, have) = (true, if let Need::Newer(have) = need { have } else { None });
            }
        }
        if !again {
            break;
        }
    }
    let joined = match (before, sent) {
        (Some(before), Some(sent)) => Some(Content::clone(&before).join(Content::clone(&sent))),
        (one, other) => one.or(other).map(|content| Content::clone(&content)),
    };
    match (to.content(&origin), joined) {
        (Some(now), Some(joined)) => {
            assert_eq!(now.stamp(), joined.stamp());
            assert!(now.iter().eq(joined.iter()), "the result of a transfer is not the join");
        }
        (None, Some(joined)) => assert!(joined.is_empty(), "nothing was transferred"),
        (now, None) => assert!(now.is_none()),
    }
}

fn same(content: &Arc<Content>, writer: &Store, origin: &NodeId) -> bool {
    writer.content(origin).is_some_and(|own| own.stamp() == content.stamp() && own.iter().eq(content.iter()))
}

/// Whether nothing was ever written, so that nothing can be transferred.
fn writer_is_new(writer: &Store, origin: &NodeId) -> bool {
    writer.content(origin).is_some_and(|content| content.is_empty())
}

fn drain(node: &mut Node) {
    let mut outputs = 0;
    while let Some(output) = node.poll_output() {
        outputs += 1;
        assert!(outputs < 10_000, "endless: {output:?}");
        if let Output::OneShot { frame, .. } = output {
            assert_eq!(encode(&frame, &mut Vec::new()), Ok(()));
        }
    }
    let links: Vec<_> = node.links().map(|(link, _)| link).collect();
    for link in links {
        for round in 0.. {
            assert!(round < 10_000, "endless");
            let Some(frame) = node.poll_transmit(link, MAX_FRAME - FRAME_FIXED) else { break };
            assert_eq!(encode(&frame, &mut Vec::new()), Ok(()), "cannot be sent: {frame:?}");
        }
    }
}

fn identity(number: u8) -> Identity {
    let generation = Generation { boot_ms: 5, nonce: number.into() };
    Identity::new(id_of(&key(number)), generation, &[([10, 0, 0, number], 4369).into()])
}

fn host_name() -> HostName {
    "fuzz".parse().expect("a name")
}

fn key(number: u8) -> PublicKey {
    PublicKey::new(&[number; 32]).unwrap_or_default()
}

/// Takes every signature for genuine but those that begin with 0xff, so that arbitrary bytes get past the check.
#[derive(Debug)]
struct LenientKeys;

impl Keys for LenientKeys {
    fn public_key(&self) -> PublicKey {
        key(1)
    }

    fn sign(&self, _message: &[u8]) -> Signature {
        Signature::new(&[1; 66]).unwrap_or_default()
    }

    fn verify(&self, _key: &PublicKey, _message: &[u8], signature: &Signature) -> bool {
        signature.as_bytes().first() != Some(&0xff)
    }
}

fn node() -> Option<Node> {
    let host = Host {
        host: "fuzz".parse().ok()?,
        version: String::new(),
        metadata: Default::default(),
        leaving: false,
        relay: false,
        secret_ms: 0,
        alias: None,
    };
    let (keys, addresses) = (Arc::new(LenientKeys), identity(1).addresses);
    let tuning = Tuning::default();
    let (administrators, decisions) = Default::default();
    let settings = Settings { keys, seed: [7; 32], addresses, host, tuning, administrators, decisions };
    Node::new(settings, Now { mono_ms: 10, wall_ms: 5 }).ok()
}

fn service(number: u8) -> Option<Entry> {
    let name = format!("service-{number}").parse().ok()?;
    Some(Entry::Service(Service {
        name,
        instance: 0,
        port: 1,
        registered_ms: 0,
        metadata: Default::default(),
    }))
}
