//! Decides what to do with a dial-back request from a peer. A state machine without I/O whose caller passes the time.
//!
//! ```text
//!   asker ──▶ first forwarder ──▶ target                         if the forwarder has a link to the target
//!   asker ──▶ first forwarder ──▶ second forwarder ──▶ target    otherwise, when the asker repeats the request
//! ```
//!
//! In a large cluster each daemon has few links, and perhaps no peer of the asker has one to the target. If there is no
//! dial-back, the asker repeats the request, and its peers, which know it already, forward it to their own peers. There
//! are no loops, because a request is forwarded to other daemons than the target only if it came over the asker's own
//! link. From anybody else, it is only carried out or forwarded to the target. One request causes at most [`FAN_OUT`]
//! frames, once, and the rate per peer is limited.

use std::collections::{BTreeMap, VecDeque};

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::DialBack;

use super::rendezvous::Token;
use crate::base::rate::{Rate, TokenBucket};

/// Maximum number of links over which one request is sent. A daemon has about ten, but one that all others joined may
/// have hundreds.
pub const FAN_OUT: usize = 16;
/// Number of remembered requests. A request that arrives over several links is carried out once.
const REMEMBERED: usize = 4_096;
/// Number of peers whose requests are counted: more than have links at a time.
const PEERS: usize = 1_024;
/// Rate limit of requests from one peer. A host that connects to a hundred others at once, all of which have to dial
/// back, stays below it.
const REQUESTS: Rate = Rate { burst: 512, per_second: 128 };
/// Rate limit of requests from one peer that are spread, each of which causes up to [`FAN_OUT`] frames of 150 bytes.
const SPREADS: Rate = Rate { burst: 64, per_second: 16 };

#[derive(Debug, Clone, Copy)]
struct Peer {
    requests: TokenBucket,
    spreads: TokenBucket,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Ignore it: it is already known.
    Known,
    /// Ignore it: the peer has sent too many.
    TooMany,
    /// Dial back.
    Dial,
    /// Forward it to its target, if there is a link.
    Deliver,
    /// Forward it to its target, or if there is no link, to peers that may have one.
    Spread,
}

#[derive(Debug)]
struct Seen {
    token: Token,
    /// Whether it came from its asker, and not only from others.
    by_asker: bool,
    spread: bool,
}

/// The dial-back requests that were received recently, and the rate limits of the peers that sent them.
#[derive(Debug, Default)]
pub struct Requests {
    seen: VecDeque<Seen>,
    peers: BTreeMap<NodeId, Peer>,
}

impl Requests {
    /// Decides what to do with a request that `peer` sent to `me`.
    pub fn decide(&mut self, now_ms: u64, me: NodeId, peer: NodeId, request: &DialBack) -> Decision {
        if request.asker == me || request.at == me {
            return Decision::Known;
        }
        // Requests over the limit are not remembered, so that a flood cannot evict the requests of others.
        if !self.peer(peer, now_ms).requests.take(REQUESTS, now_ms) {
            return Decision::TooMany;
        }
        // For the target, it does not matter who sent the request.
        let by_asker = request.target != me && (peer == request.asker || peer == request.at);
        let known = self.seen.iter().rposition(|seen| seen.token == request.token);
        let Some(known) = known.and_then(|place| self.seen.get_mut(place)) else {
            if self.seen.len() >= REMEMBERED {
                self.seen.pop_front();
            }
            self.seen.push_back(Seen { token: request.token, by_asker, spread: false });
            return if request.target == me { Decision::Dial } else { Decision::Deliver };
        };
        if !by_asker || known.spread {
            return Decision::Known;
        }
        if !std::mem::replace(&mut known.by_asker, true) {
            return Decision::Deliver;
        }
        known.spread = true;
        if self.peer(peer, now_ms).spreads.take(SPREADS, now_ms) {
            Decision::Spread
        } else {
            Decision::TooMany
        }
    }

    fn peer(&mut self, id: NodeId, now_ms: u64) -> &mut Peer {
        if self.peers.len() >= PEERS && !self.peers.contains_key(&id) {
            // The bucket of the peer that was silent longest is full again, or closest to it.
            let oldest = self.peers.iter().min_by_key(|(_, peer)| peer.requests.updated_ms());
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.peers.remove(&oldest);
            }
        }
        self.peers.entry(id).or_insert_with(|| Peer {
            requests: TokenBucket::full(REQUESTS, now_ms),
            spreads: TokenBucket::full(SPREADS, now_ms),
        })
    }
}

/// Selects the peers to which a request for `target` is sent: its neighbours in the ring of ids, which are most likely
/// to have a link to it.
pub fn likely(target: NodeId, mut peers: Vec<NodeId>) -> Vec<NodeId> {
    peers.sort_unstable();
    peers.dedup();
    let count = peers.len();
    if count > FAN_OUT {
        let after = peers.partition_point(|peer| *peer < target);
        // Take as many before the target as after it.
        peers.rotate_left((after + count - FAN_OUT / 2) % count);
        peers.truncate(FAN_OUT);
    }
    peers
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn id(byte: u8) -> NodeId {
        NodeId::new([byte; 32])
    }

    fn request(asker: u8, target: u8, token: u64) -> DialBack {
        let mut bytes = Token::default();
        bytes[..8].copy_from_slice(&token.to_be_bytes());
        DialBack { asker: id(asker), target: id(target), at: id(asker), token: bytes }
    }

    #[test]
    fn a_request_is_spread_only_when_the_asker_itself_repeats_it() {
        let mut requests = Requests::default();
        let (asker, other, me) = (id(1), id(2), id(3));
        let wanted = request(1, 9, 1);
        assert_eq!(requests.decide(0, me, asker, &wanted), Decision::Deliver);
        assert_eq!(requests.decide(0, me, other, &wanted), Decision::Known);
        assert_eq!(requests.decide(300, me, asker, &wanted), Decision::Spread);
        assert_eq!(requests.decide(300, me, asker, &wanted), Decision::Known);
        // From anybody else, it is only forwarded to the target, however often it arrives.
        let passed = request(1, 9, 2);
        assert_eq!(requests.decide(0, me, other, &passed), Decision::Deliver);
        assert_eq!(requests.decide(0, me, other, &passed), Decision::Known);
        assert_eq!(requests.decide(0, me, id(4), &passed), Decision::Known);
        // The asker itself can still send it.
        assert_eq!(requests.decide(0, me, asker, &passed), Decision::Deliver);
        assert_eq!(requests.decide(0, me, asker, &passed), Decision::Spread);
    }

    #[test]
    fn the_target_dials_once_and_a_daemon_ignores_its_own_requests() {
        let mut requests = Requests::default();
        let wanted = request(1, 3, 1);
        assert_eq!(requests.decide(0, id(3), id(2), &wanted), Decision::Dial);
        for peer in [1, 2, 4] {
            assert_eq!(requests.decide(0, id(3), id(peer), &wanted), Decision::Known);
        }
        assert_eq!(requests.decide(0, id(1), id(2), &request(1, 3, 2)), Decision::Known);
    }

    #[test]
    fn a_flood_is_limited_and_does_not_affect_others() {
        let mut requests = Requests::default();
        let (flooder, me) = (id(1), id(3));
        let honest = request(2, 9, u64::MAX);
        assert_eq!(requests.decide(0, me, id(2), &honest), Decision::Deliver);
        let mut decisions = [0_u64; 2];
        for token in 0..100_000 {
            // Ten seconds long, each request twice so that it would be spread.
            for _ in 0..2 {
                match requests.decide(token / 10, me, flooder, &request(1, 9, token)) {
                    Decision::Deliver => decisions[0] += 1,
                    Decision::Spread => decisions[1] += 1,
                    _ => {}
                }
            }
        }
        assert!(decisions[0] <= REQUESTS.burst + 10 * REQUESTS.per_second, "{decisions:?}");
        assert!(decisions[1] <= SPREADS.burst + 10 * SPREADS.per_second, "{decisions:?}");
        assert!(decisions[1] >= SPREADS.burst, "{decisions:?}");
        // The request of the other peer is still remembered.
        assert_eq!(requests.decide(10_000, me, id(2), &honest), Decision::Spread);
        assert!(requests.seen.len() <= REMEMBERED);
    }

    #[test]
    fn the_number_of_counted_peers_is_limited() {
        let mut requests = Requests::default();
        for number in 0..2 * PEERS {
            let mut bytes = [9; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let now_ms = u64::try_from(number).expect("a number");
            let _ = requests.decide(now_ms, id(3), NodeId::new(bytes), &request(1, 9, now_ms));
        }
        assert_eq!(requests.peers.len(), PEERS);
    }

    /// The frames and dial-backs that one request causes, where `links` has the peers of each daemon.
    fn frames(links: &[BTreeSet<u8>], target: u8, repeats: usize) -> (usize, usize) {
        let mut daemons: Vec<Requests> = links.iter().map(|_| Requests::default()).collect();
        let wanted = request(0, target, 1);
        let peers = |of: u8| links[usize::from(of)].iter().map(|peer| id(*peer)).collect::<Vec<_>>();
        let (mut sent, mut dials) = (0, 0);
        for _ in 0..repeats {
            let mut under_way: VecDeque<(u8, u8)> =
                likely(id(target), peers(0)).iter().map(|peer| (0, peer.as_bytes()[0])).collect();
            while let Some((from, to)) = under_way.pop_front() {
                sent += 1;
                let decision = daemons[usize::from(to)].decide(0, id(to), id(from), &wanted);
                let linked = links[usize::from(to)].contains(&target);
                match decision {
                    Decision::Dial => dials += 1,
                    Decision::Deliver | Decision::Spread if linked => under_way.push_back((to, target)),
                    Decision::Spread => under_way.extend(
                        likely(id(target), peers(to))
                            .iter()
                            .map(|peer| peer.as_bytes()[0])
                            .filter(|peer| *peer != from)
                            .map(|peer| (to, peer)),
                    ),
                    _ => {}
                }
            }
        }
        (sent, dials)
    }

    proptest! {
        #[test]
        fn a_target_up_to_three_links_away_dials_once_and_the_frames_are_limited(
            edges in prop::collection::vec((0..40_u8, 0..40_u8), 0..400),
            repeats in 1..6_usize,
        ) {
            let mut links = vec![BTreeSet::new(); 40];
            for (one, other) in edges.into_iter().filter(|(one, other)| one != other) {
                links[usize::from(one)].insert(other);
                links[usize::from(other)].insert(one);
            }
            let target = 39;
            if links[0].contains(&target) {
                return Ok(());
            }
            let within = |from: &BTreeSet<u8>| -> BTreeSet<u8> {
                from.iter().flat_map(|peer| likely(id(target), links[usize::from(*peer)].iter().map(|peer| id(*peer)).collect()))
                    .map(|peer| peer.as_bytes()[0]).collect()
            };
            let first: BTreeSet<u8> = likely(id(target), links[0].iter().map(|peer| id(*peer)).collect())
                .iter().map(|peer| peer.as_bytes()[0]).collect();
            let second = within(&first);
            let linked = |all: &BTreeSet<u8>| all.iter().any(|peer| links[usize::from(*peer)].contains(&target));
            let reached = linked(&first) || (repeats > 1 && linked(&second));
            let (sent, dials) = frames(&links, target, repeats);
            prop_assert_eq!(dials, usize::from(reached));
            // Each peer of the asker spreads it once, and each of their peers forwards it at most to the target.
            // Further repetitions cost only the asker's own frames.
            let most = repeats * FAN_OUT + 2 * FAN_OUT + FAN_OUT * FAN_OUT + FAN_OUT * FAN_OUT;
            prop_assert!(sent <= most, "{} frames", sent);
        }

        #[test]
        fn the_neighbours_of_the_target_are_chosen_up_to_the_limit(
            bytes in prop::collection::btree_set(any::<u8>(), 0..60), target in any::<u8>(),
        ) {
            let peers: Vec<NodeId> = bytes.iter().map(|byte| id(*byte)).collect();
            let chosen = likely(id(target), peers.clone());
            prop_assert_eq!(chosen.len(), peers.len().min(FAN_OUT));
            prop_assert_eq!(chosen.iter().collect::<BTreeSet<_>>().len(), chosen.len());
            let next = bytes.range(target..).next().or(bytes.first());
            if let Some(next) = next {
                prop_assert!(chosen.contains(&id(*next)));
            }
        }
    }
}
