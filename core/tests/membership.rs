//! Members among themselves, over a network in memory: everybody finds everybody, the dead are found dead, and nobody
//! else is.

#![allow(clippy::unwrap_used, reason = "a broken law has to fail the test")]

use std::collections::{BTreeMap, BTreeSet};

use pmd_core::id::{Generation, NodeId};
use pmd_core::membership::Identity;
use pmd_core::membership::health::Health;
use pmd_core::membership::swim::{Output, Swim};
use pmd_core::registry::directory::Liveness;
use pmd_core::tuning::MembershipTuning;
use proptest::collection::vec;
use proptest::prelude::*;

const TUNING: MembershipTuning = MembershipTuning::DEFAULT;

fn identity(number: u8, boot_ms: u64) -> Identity {
    let generation = Generation { boot_ms, nonce: number.into() };
    Identity::new(NodeId::new([number; 32]), generation, &[([10, 0, 0, number], 4369).into()])
}

struct Daemon {
    swim: Swim,
    health: Health,
    /// Packets that wait because the daemon does not run.
    waiting: Vec<Vec<u8>>,
    seen: Vec<(u64, Output)>,
}

/// Packets take a millisecond or three, depending on who talks to whom.
struct Network {
    now: u64,
    daemons: BTreeMap<NodeId, Daemon>,
    flying: BTreeMap<(u64, u64), (NodeId, Vec<u8>)>,
    sent: u64,
    /// Milliseconds.
    latency: u64,
    /// Frozen daemons neither run nor answer, and get their packets later.
    frozen: BTreeSet<NodeId>,
    /// Pairs that cannot hear each other.
    cut: BTreeSet<(NodeId, NodeId)>,
    log: Vec<(u64, NodeId, Vec<u8>)>,
}

impl Network {
    fn of(count: u8) -> Network {
        let mut network = Network {
            now: 1_000,
            daemons: BTreeMap::new(),
            flying: BTreeMap::new(),
            sent: 0,
            latency: 1,
            frozen: BTreeSet::new(),
            cut: BTreeSet::new(),
            log: Vec::new(),
        };
        for number in 1..=count {
            network.start(identity(number, 1_000));
        }
        for number in 2..=count {
            network.join(number, 1);
        }
        network
    }

    fn start(&mut self, identity: Identity) {
        let mut seed = [9; 32];
        seed[0] = identity.id.as_bytes()[0];
        let id = identity.id;
        let swim = Swim::new(identity, TUNING, seed);
        let daemon = Daemon { swim, health: Health::new(&TUNING), waiting: Vec::new(), seen: Vec::new() };
        self.daemons.insert(id, daemon);
    }

    fn join(&mut self, from: u8, to: u8) {
        let to = self.get(to).swim.identity().clone();
        let now = self.now;
        self.get_mut(from).swim.announce(now, to);
        self.collect(NodeId::new([from; 32]));
    }

    fn get(&self, number: u8) -> &Daemon {
        &self.daemons[&NodeId::new([number; 32])]
    }

    fn get_mut(&mut self, number: u8) -> &mut Daemon {
        self.daemons.get_mut(&NodeId::new([number; 32])).unwrap()
    }

    fn collect(&mut self, from: NodeId) {
        let now = self.now;
        let daemon = self.daemons.get_mut(&from).unwrap();
        while let Some(output) = daemon.swim.poll_output() {
            if let Output::Send { to, packet } = output {
                if !self.cut.contains(&(from, to.id)) {
                    let delay = self.latency * (1 + u64::from(from.as_bytes()[0] ^ to.id.as_bytes()[0]) % 3);
                    self.sent += 1;
                    self.flying.insert((now + delay, self.sent), (to.id, packet));
                }
            } else {
                daemon.seen.push((now, output));
            }
        }
    }

    fn run_for(&mut self, duration: u64) {
        let end = self.now + duration;
        loop {
            let timer = self
                .daemons
                .iter()
                .filter(|(id, _)| !self.frozen.contains(*id))
                .filter_map(|(id, daemon)| Some((daemon.swim.poll_timeout()?, *id)))
                .min();
            let packet = self.flying.first_key_value().map(|((at, _), _)| *at);
            let next = timer.map(|(at, _)| at).into_iter().chain(packet).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            if packet == Some(next) {
                let (_, (to, packet)) = self.flying.pop_first().unwrap();
                self.deliver(to, packet);
            } else {
                let (due, id) = timer.unwrap();
                let now = self.now;
                let daemon = self.daemons.get_mut(&id).unwrap();
                let lag = daemon.health.timer(due, now);
                daemon.swim.handle_timeout(now, lag, &daemon.health);
                self.collect(id);
            }
        }
        self.now = end;
    }

    fn deliver(&mut self, to: NodeId, packet: Vec<u8>) {
        let now = self.now;
        let Some(daemon) = self.daemons.get_mut(&to) else { return };
        if self.frozen.contains(&to) {
            daemon.waiting.push(packet);
            return;
        }
        self.log.push((now, to, packet.clone()));
        // Packets for an identity that is no more are refused, as they should be.
        let _ = daemon.swim.handle_packet(now, &packet, &daemon.health);
        self.collect(to);
    }

    fn thaw(&mut self, number: u8) {
        let id = NodeId::new([number; 32]);
        self.frozen.remove(&id);
        for packet in std::mem::take(&mut self.get_mut(number).waiting) {
            self.deliver(id, packet);
        }
    }

    fn kill(&mut self, number: u8) {
        self.daemons.remove(&NodeId::new([number; 32]));
    }

    /// Whether everybody sees everybody, alive.
    fn is_complete(&self) -> bool {
        self.daemons.keys().all(|id| {
            let others: BTreeSet<_> = self.daemons.keys().filter(|other| *other != id).copied().collect();
            let seen = self.daemons[id].swim.members().filter(|(_, liveness)| *liveness == Liveness::Alive);
            seen.map(|(identity, _)| identity.id).collect::<BTreeSet<_>>() == others
        })
    }

    fn downs(&self) -> Vec<(u64, NodeId)> {
        let seen = self.daemons.values().flat_map(|daemon| &daemon.seen);
        seen.filter_map(|(at, output)| match output {
            Output::Down { identity } => Some((*at, identity.id)),
            _ => None,
        })
        .collect()
    }
}

#[test]
fn everybody_finds_everybody_and_nobody_dies_of_boredom() {
    let mut network = Network::of(30);
    network.run_for(2_000);
    assert!(network.is_complete());
    network.run_for(300_000);
    assert!(network.is_complete());
    assert_eq!(network.downs(), []);
}

#[test]
fn the_dead_are_found_dead_by_all() {
    let mut network = Network::of(12);
    network.run_for(5_000);
    network.kill(7);
    let killed = network.now;
    network.run_for(30_000);
    assert!(network.is_complete());
    let downs = network.downs();
    assert_eq!(downs.len(), 11);
    assert!(downs.iter().all(|(at, id)| *id == NodeId::new([7; 32]) && at - killed <= 20_000), "{downs:?}");
}

#[test]
fn evidence_shortens_the_wait() {
    let mut network = Network::of(12);
    network.run_for(5_000);
    network.kill(7);
    let (killed, generation) = (network.now, identity(7, 1_000).generation);
    assert!(network.get_mut(3).swim.suspect(
        killed,
        &NodeId::new([7; 32]),
        generation,
        TUNING.refused_wait_ms
    ));
    assert!(!network.get_mut(3).swim.suspect(
        killed,
        &NodeId::new([7; 32]),
        generation,
        TUNING.refused_wait_ms
    ));
    network.collect(NodeId::new([3; 32]));
    network.run_for(1_500);
    let downs = network.downs();
    assert_eq!(downs.len(), 11);
    assert!(downs.iter().all(|(at, _)| at - killed < 1_200), "{downs:?}");
}

#[test]
fn the_accused_objects_and_lives() {
    let mut network = Network::of(6);
    network.run_for(5_000);
    let now = network.now;
    let suspicion = network.get(3).swim.suspicion_ms();
    let generation = identity(5, 1_000).generation;
    network.get_mut(3).swim.suspect(now, &NodeId::new([5; 32]), generation, suspicion);
    network.collect(NodeId::new([3; 32]));
    network.run_for(20_000);
    assert!(network.is_complete());
    assert_eq!(network.downs(), []);
    let suspected = |(_, output): &(u64, Output)| matches!(output, Output::Up { identity, liveness: Liveness::Suspect } if identity.id == NodeId::new([5; 32]));
    assert!(network.get(3).seen.iter().any(suspected));
}

/// A clue about an earlier life, or about somebody who is not there, accuses nobody.
#[test]
fn old_evidence_is_void() {
    let mut network = Network::of(3);
    network.run_for(5_000);
    let now = network.now;
    assert!(!network.get_mut(1).swim.suspect(now, &NodeId::new([2; 32]), identity(2, 999).generation, 300));
    assert!(!network.get_mut(1).swim.suspect(now, &NodeId::new([9; 32]), identity(9, 1_000).generation, 300));
}

#[test]
fn a_frozen_daemon_accuses_nobody_when_it_wakes() {
    let mut network = Network::of(8);
    network.run_for(5_000);
    network.frozen.insert(NodeId::new([4; 32]));
    network.run_for(30_000);
    assert_eq!(network.downs().len(), 7, "it is found dead, by everybody else");
    network.thaw(4);
    network.run_for(15_000);
    assert!(network.is_complete(), "and comes back");
    assert!(network.downs().iter().all(|(_, id)| *id == NodeId::new([4; 32])), "{:?}", network.downs());
    assert_eq!(network.get(4).swim.identity().generation, identity(4, 1_000).generation, "in the same life");
    assert!(network.get(4).swim.identity().renewal > 0);
}

/// The pause is shorter than what a suspect gets, and the answers wait to be read when the overdue timers run.
#[test]
fn answers_that_waited_here_are_nobody_elses_fault() {
    let mut network = Network::of(8);
    network.run_for(5_000);
    network.latency = 60;
    let four = NodeId::new([4; 32]);
    for pause in [1_000, 1_300, 1_700, 2_100, 2_600, 1_150, 1_450, 1_950] {
        network.frozen.insert(four);
        network.run_for(pause);
        network.frozen.remove(&four);
        network.run_for(0);
        network.thaw(4);
        // Confident again: what is tested is not the longer wait of those who doubt themselves.
        network.get_mut(4).health = Health::new(&TUNING);
        network.run_for(5_040);
    }
    let accusations = network.get(4).seen.iter().filter(|(at, output)| {
        *at > 6_000 && matches!(output, Output::Up { liveness: Liveness::Suspect, .. } | Output::Down { .. })
    });
    assert_eq!(accusations.count(), 0);
}

#[test]
fn news_in_a_packet_are_told_at_once() {
    let mut swim = Swim::new(identity(1, 1_000), TUNING, [1; 32]);
    let mut other = Swim::new(identity(2, 1_000), TUNING, [2; 32]);
    other.announce(0, identity(1, 1_000));
    let Some(Output::Send { packet, .. }) = other.poll_output() else { unreachable!() };
    swim.handle_packet(0, &packet, &Health::new(&TUNING)).unwrap();
    let told: Vec<_> = std::iter::from_fn(|| swim.poll_output()).collect();
    assert!(told.contains(&Output::Up { identity: identity(2, 1_000), liveness: Liveness::Alive }));
    assert_eq!(swim.len(), 1);
}

#[test]
fn a_later_life_takes_the_place_of_the_earlier_at_once() {
    let mut network = Network::of(8);
    network.run_for(5_000);
    network.kill(4);
    network.start(identity(4, 9_000));
    network.join(4, 1);
    network.run_for(2_000);
    assert!(network.is_complete());
    let life =
        |daemon: &Daemon| daemon.swim.member(&NodeId::new([4; 32])).map(|(identity, _)| identity.generation);
    let lives: BTreeSet<_> = network.daemons.values().filter_map(life).collect();
    assert_eq!(lives, BTreeSet::from([identity(4, 9_000).generation]));
    network.run_for(30_000);
    assert!(network.is_complete());
}

#[test]
fn who_leaves_is_gone_at_once() {
    let mut network = Network::of(8);
    network.run_for(5_000);
    let now = network.now;
    network.get_mut(4).swim.leave(now);
    network.collect(NodeId::new([4; 32]));
    network.kill(4);
    network.run_for(1_500);
    assert_eq!(network.downs().len(), 7);
    assert!(network.is_complete());
}

#[test]
fn two_halves_find_each_other_again() {
    let mut network = Network::of(8);
    network.run_for(5_000);
    let ids: Vec<_> = network.daemons.keys().copied().collect();
    let (left, right) = ids.split_at(4);
    for (one, other) in left.iter().flat_map(|one| right.iter().map(move |other| (*one, *other))) {
        network.cut.extend([(one, other), (other, one)]);
    }
    network.run_for(60_000);
    assert_eq!(network.downs().len(), 32);
    network.cut.clear();
    // The membership alone needs this long; links to lost members are faster.
    network.run_for(30_000);
    assert!(network.is_complete());
}

#[test]
fn another_daemon_with_this_identity_is_noticed_and_not_obeyed() {
    let mut network = Network::of(3);
    network.run_for(5_000);
    let mut clone = Swim::new(identity(2, 2_000), TUNING, [1; 32]);
    clone.announce(0, identity(1, 1_000));
    let Some(Output::Send { packet, .. }) = clone.poll_output() else { unreachable!() };
    let now = network.now;
    let before = network.get(2).swim.identity().clone();
    let daemon = network.get_mut(2);
    daemon.swim.handle_packet(now, &packet, &daemon.health).unwrap();
    network.collect(NodeId::new([2; 32]));
    assert!(
        network
            .get(2)
            .seen
            .iter()
            .any(|(_, output)| *output == Output::LaterLife { identity: identity(2, 2_000) })
    );
    assert_eq!(*network.get(2).swim.identity(), before);
    // It may as well go on in a life that is later still.
    let life = identity(2, 2_000).generation.renewed(0, 7);
    network.get_mut(2).swim.begin_life(now, life);
    network.collect(NodeId::new([2; 32]));
    network.run_for(5_000);
    assert!(network.is_complete());
    assert_eq!(network.get(1).swim.member(&NodeId::new([2; 32])).unwrap().0.generation, life);
}

#[test]
fn equal_seeds_lead_to_equal_packets() {
    let run = || {
        let mut network = Network::of(10);
        network.run_for(3_000);
        network.kill(3);
        network.run_for(20_000);
        network.log
    };
    assert_eq!(run(), run());
}

#[test]
fn addresses_that_lead_nowhere_are_not_advertised() {
    let addresses =
        ["0.0.0.0:4369", "[::]:4369", "10.0.0.1:0", "10.0.0.1:4369"].map(|text| text.parse().unwrap());
    let identity = Identity::new(NodeId::new([1; 32]), Generation::default(), &addresses);
    assert_eq!(identity.addresses, ["10.0.0.1:4369".parse().unwrap()]);
}

proptest! {
    #[test]
    fn any_packet_is_harmless(packets in vec(vec(any::<u8>(), 0..200), 0..8), flips in vec((any::<u16>(), any::<u8>()), 0..4)) {
        let mut network = Network::of(3);
        network.run_for(1_500);
        let mut damaged = network.log.last().unwrap().2.clone();
        for (at, with) in flips {
            let at = usize::from(at) % damaged.len();
            damaged[at] ^= with;
        }
        let now = network.now;
        let daemon = network.get_mut(1);
        for packet in packets.iter().chain([&damaged]) {
            let _ = daemon.swim.handle_packet(now, packet, &daemon.health);
        }
        while daemon.swim.poll_output().is_some() {}
    }
}
