//! What a peer that asks for a probe learns, and when.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

use std::sync::Arc;

use pmd_core::id::{Generation, NodeId};
use pmd_core::membership::Identity;
use pmd_core::node::{LinkEvent, LinkId, Node, Now, Output, Purpose, Settings};
use pmd_core::sim::keys::SimKeys;
use pmd_core::tuning::{MembershipTuning, Tuning};
use pmd_protocol::peer::frame::{Observation, Probe};
use pmd_protocol::peer::{Frame, Host, Metadata};

const LINK: LinkId = LinkId(1);
const WALL_MS: u64 = 1_700_000_000_000;

fn at(mono_ms: u64) -> Now {
    Now { mono_ms, wall_ms: WALL_MS + mono_ms }
}

/// A node with a link to a peer that only asks.
fn node(number: u8) -> Node {
    let host = Host {
        host: format!("host{number}").parse().unwrap(),
        version: "test".into(),
        metadata: Metadata::default(),
        leaving: false,
        relay: false,
        secret_ms: 0,
        alias: None,
    };
    let settings = Settings {
        keys: Arc::new(SimKeys::new(&[number; 32])),
        seed: [number; 32],
        addresses: vec![([10, 0, 0, number], 4369).into()],
        host,
        tuning: Tuning::default(),
        administrators: Default::default(),
        decisions: Vec::new(),
    };
    let mut node = Node::new(settings, at(0)).unwrap();
    let asker = Identity::new(NodeId::MAX, Generation { boot_ms: WALL_MS, nonce: 1 }, &[]);
    let host = "asker".parse().unwrap();
    node.handle_link(at(0), LinkEvent::Up { link: LINK, peer: asker, initiated: false, host });
    node
}

fn frames(node: &mut Node) -> Vec<Frame> {
    std::iter::from_fn(|| node.poll_transmit(LINK, 32 * 1024)).collect()
}

/// The observation that the peer was sent, if any.
fn answer(node: &mut Node) -> Option<Observation> {
    frames(node).into_iter().find_map(|frame| match frame {
        Frame::Probed(probed) => Some(probed.observation),
        _ => None,
    })
}

/// A node that was asked to probe a member, and the token and timeout of its dial.
fn asked() -> (Node, u64, u64) {
    let (mut helper, mut target) = (node(1), node(2));
    let identity = target.identity().clone();
    for frame in frames(&mut target) {
        helper.handle_frame(at(1), LINK, frame);
    }
    let probe = Probe { token: 77, target: identity.id, generation: identity.generation };
    helper.handle_frame(at(100), LINK, Frame::Probe(probe));
    let dial = std::iter::from_fn(|| helper.poll_output()).find_map(|output| match output {
        Output::Dial { peer, purpose: Purpose::Probe { token, timeout_ms, discreet: true } } => {
            assert_eq!(peer, identity);
            Some((token, timeout_ms))
        }
        _ => None,
    });
    assert_eq!(answer(&mut helper), None);
    let (token, timeout_ms) = dial.unwrap();
    (helper, token, timeout_ms)
}

#[test]
fn silence_is_reported_at_the_same_time_however_soon_it_was_noticed() {
    let due_ms = 100 + MembershipTuning::DEFAULT.probe_rtt_ms + 20;
    for noticed_ms in [101, 250, due_ms - 1] {
        let (mut helper, token, timeout_ms) = asked();
        assert_eq!(timeout_ms, MembershipTuning::DEFAULT.probe_rtt_ms);
        let probed = LinkEvent::Probed { token, observation: Observation::Silent };
        helper.handle_link(at(noticed_ms), probed);
        assert_eq!(answer(&mut helper), None, "{noticed_ms}");
        while helper.poll_timeout() < due_ms {
            let now = at(helper.poll_timeout());
            helper.handle_timeout(now);
            assert_eq!(answer(&mut helper), None, "{noticed_ms}");
        }
        helper.handle_timeout(at(due_ms));
        assert_eq!(answer(&mut helper), Some(Observation::Silent), "{noticed_ms}");
    }
    // A result that comes even later is reported at once.
    let (mut helper, token, _) = asked();
    helper.handle_link(at(due_ms), LinkEvent::Probed { token, observation: Observation::Silent });
    assert_eq!(answer(&mut helper), Some(Observation::Silent));
}

#[test]
fn what_the_peer_may_know_is_reported_at_once() {
    for observation in [Observation::Reached, Observation::Refused] {
        let (mut helper, token, _) = asked();
        helper.handle_link(at(101), LinkEvent::Probed { token, observation });
        assert_eq!(answer(&mut helper), Some(observation));
    }
}
