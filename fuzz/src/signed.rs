//! Properties of signed statements and decisions: whatever a member makes of what others have signed, it changes nothing in
//! their names.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

use pmd_core::attest::{Keys, id_of};
use pmd_core::membership::expulsions::Administrators;
use pmd_core::node::{Command, LinkEvent, LinkId, Node, Now, Output, Settings};
use pmd_core::tuning::Tuning;
use pmd_protocol::HostName;
use pmd_protocol::limits::{FRAME_FIXED, MAX_FRAME};
use pmd_protocol::peer::codec::{Decoded, Phase, decode, encode};
use pmd_protocol::peer::{Entry, Frame, Host, NodeId, PublicKey, Service, Signature, Stamp};

const VICTIM: u8 = 1;
const ADMINISTRATOR: u8 = 2;
const RECEIVER: u8 = 3;
const LIAR: u8 = 4;
/// The link from the liar to the receiver.
const LINK: LinkId = LinkId(7);

/// What was signed, and by whom. A signature counts if it is in the list, so none can be forged, not even by a fuzzer that
/// sees which bytes are compared.
type Signed = Arc<Mutex<BTreeSet<(PublicKey, Vec<u8>)>>>;

#[derive(Debug)]
struct ListedKeys {
    own: PublicKey,
    signed: Signed,
}

impl Keys for ListedKeys {
    fn public_key(&self) -> PublicKey {
        self.own.clone()
    }

    fn sign(&self, message: &[u8]) -> Signature {
        let mut signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        signed.insert((self.own.clone(), message.to_vec()));
        Signature::new(&[1; 66]).unwrap_or_default()
    }

    fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
        let signed = self.signed.lock().unwrap_or_else(PoisonError::into_inner);
        // The liar signs whatever it likes.
        let is_liar = *key == public_key(LIAR);
        is_liar || (!signature.as_bytes().is_empty() && signed.contains(&(key.clone(), message.to_vec())))
    }
}

/// A victim registers services and an administrator decides about members; a liar gets all their frames and passes them on
/// to a receiver, changed as the input says. The receiver must not know anything of the victim that the victim has not
/// said, nor expel anybody whom the administrator has not expelled.
///
/// A step is one byte; most steps of the liar are followed by the number of a frame, a position and a value. Returns how
/// much of what is genuine has reached the receiver: the victim, its entries, and decisions.
pub fn statements(mut data: &[u8]) -> usize {
    let signed = Signed::default();
    let nodes = [VICTIM, ADMINISTRATOR, RECEIVER].map(|number| node(number, &signed));
    let [Some(mut victim), Some(mut administrator), Some(mut receiver)] = nodes else { return 0 };
    let mut now = Now { mono_ms: 10, wall_ms: 1_000 };
    let (mut frames, mut stamps, mut expelled) = (Vec::new(), BTreeSet::new(), BTreeSet::new());
    // The liar hears both, and is heard by the receiver.
    for node in [&mut victim, &mut administrator] {
        link(node, now, LIAR);
        frames.extend(drain(node));
    }
    link(&mut receiver, now, LIAR);
    drain(&mut receiver);
    stamps.extend(stamp_of(&victim));
    while let Some((step, rest)) = data.split_first() {
        data = rest;
        let number = step >> 4;
        match step & 0x0f {
            0 => now.mono_ms += 50,
            1 => now.mono_ms += 5_000,
            2 | 3 => {
                let Some(entry) = service(number) else { continue };
                let command = if step & 1 == 0 { Command::Put(entry) } else { Command::Remove(entry) };
                let _ = victim.handle_command(now, command);
                frames.extend(drain(&mut victim));
                stamps.extend(stamp_of(&victim));
            }
            4 => {
                let member =
                    if number & 1 == 0 { id_of(&public_key(VICTIM)) } else { NodeId::new([number; 32]) };
                let decide = Command::Decide { member, host: String::new(), expelled: number & 2 == 0 };
                if number & 2 == 0 {
                    expelled.insert(member);
                }
                let _ = administrator.handle_command(now, decide);
                frames.extend(drain(&mut administrator));
            }
            _ => {
                let Some(([chosen, position, value], rest)) = data.split_first_chunk() else { break };
                data = rest;
                let Some(frame) = frames.get(usize::from(*chosen) % frames.len().max(1)) else { break };
                let mut bytes = Vec::new();
                if encode(frame, &mut bytes).is_err() {
                    break;
                }
                // The length stays, so that the frame is read at all.
                let body = FRAME_FIXED + 4;
                let at =
                    body + (usize::from(*position) * (1 + usize::from(number))) % (bytes.len() - body).max(1);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= value;
                }
                if let Ok(Some((Decoded::Frame(frame), _))) = decode(&bytes, Phase::Proven) {
                    if receiver.links().count() == 0 {
                        link(&mut receiver, now, LIAR);
                    }
                    receiver.handle_frame(now, LINK, frame);
                }
            }
        }
        for node in [&mut victim, &mut administrator, &mut receiver] {
            if node.poll_timeout() <= now.mono_ms {
                node.handle_timeout(now);
            }
        }
        drain(&mut receiver);
        frames.extend(drain(&mut victim));
        frames.truncate(512);
        stamps.extend(stamp_of(&victim));
        check(&receiver, &signed, &stamps, &expelled);
    }
    let id = id_of(&public_key(VICTIM));
    let entries = receiver.replica().store().content(&id).is_some_and(|content| content.iter().count() > 0);
    usize::from(receiver.record(&id).is_some())
        + usize::from(entries)
        + usize::from(receiver.expulsions().iter().count() > 0)
}

/// Nothing in the name of the victim or of the administrator is known that they have not said.
fn check(receiver: &Node, signed: &Signed, stamps: &BTreeSet<Stamp>, expelled: &BTreeSet<NodeId>) {
    let victim = id_of(&public_key(VICTIM));
    let keys = ListedKeys { own: public_key(RECEIVER), signed: Arc::clone(signed) };
    if let Some(record) = receiver.record(&victim) {
        assert!(record.signed().is_genuine(&keys, &record.key), "{record:?} was not said by the victim");
    }
    if let Some(content) = receiver.replica().store().content(&victim) {
        assert!(stamps.contains(&content.stamp()), "{:?} never existed", content.stamp());
    }
    for decision in receiver.expulsions().iter().filter(|decision| decision.expelled) {
        assert!(expelled.contains(&decision.member), "{decision:?} was not decided");
    }
}

fn stamp_of(node: &Node) -> Option<Stamp> {
    node.replica().store().stamp(&node.identity().id)
}

fn link(node: &mut Node, now: Now, number: u8) {
    let Some(mut peer) = self::node(number, &Signed::default()).map(|peer| peer.identity().clone()) else {
        return;
    };
    peer.generation.boot_ms = 5;
    let host: Option<HostName> = format!("h{number}").parse().ok();
    if let Some(host) = host {
        node.handle_link(now, LinkEvent::Up { link: LINK, peer, initiated: false, host });
    }
}

/// All frames that a node sends at this moment.
fn drain(node: &mut Node) -> Vec<Frame> {
    let mut frames = Vec::new();
    while let Some(output) = node.poll_output() {
        if let Output::OneShot { frame, .. } = output {
            frames.push(frame);
        }
    }
    let links: Vec<_> = node.links().map(|(link, _)| link).collect();
    for link in links {
        while let Some(frame) = node.poll_transmit(link, MAX_FRAME - FRAME_FIXED) {
            frames.push(frame);
        }
    }
    frames
}

fn service(number: u8) -> Option<Entry> {
    let service = Service {
        name: format!("s{number}").parse().ok()?,
        instance: 0,
        port: 1,
        registered_ms: 0,
        metadata: Default::default(),
    };
    Some(Entry::Service(service))
}

fn public_key(number: u8) -> PublicKey {
    PublicKey::new(&[number; 32]).unwrap_or_default()
}

fn node(number: u8, signed: &Signed) -> Option<Node> {
    let settings = Settings {
        keys: Arc::new(ListedKeys { own: public_key(number), signed: Arc::clone(signed) }),
        seed: [number; 32],
        addresses: vec![([10, 0, 0, number], 4369).into()],
        host: Host {
            host: format!("h{number}").parse().ok()?,
            version: String::new(),
            metadata: Default::default(),
            leaving: false,
            relay: false,
            secret_ms: 0,
            alias: None,
        },
        tuning: Tuning::default(),
        administrators: Administrators::Only([id_of(&public_key(ADMINISTRATOR))].into()),
        decisions: Vec::new(),
    };
    Node::new(settings, Now { mono_ms: 10, wall_ms: 5 }).ok()
}
