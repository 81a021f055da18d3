//! What becomes of a request to dial that a peer has sent: a decision, without links. The time is handed in.
//!
//! ```text
//!   asker ──▶ first forwarder ──▶ target                         whoever has a link to the target passes it on
//!   asker ──▶ first forwarder ──▶ second forwarder ──▶ target    who has none, over its own links, when it is asked again
//! ```
//!
//! In a large cluster links are few, and nobody that the asker has a link to may have one to the target. So the asker
//! asks again when nothing has come of it, and its peers, who know the request, pass it to theirs. The marks are the
//! identities of the links: only what comes from the asker itself is ever passed to others than the target. What comes
//! from anybody else is for this daemon, or for a peer of it, or for nobody; thus there are no circles. At most
//! [`FAN_OUT`] frames follow from one, once, and each peer can cause so many of them in a second and no more.

use std::collections::{BTreeMap, VecDeque};

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::DialBack;

use super::rendezvous::Token;
use crate::base::rate::{Rate, TokenBucket};

/// Links that one request goes out over: a daemon has about ten, a hub that all have joined may have hundreds.
pub const FAN_OUT: usize = 16;
/// Requests that are remembered, so that one that comes over several links is carried out once.
const REMEMBERED: usize = 4_096;
/// Peers whose requests are counted: more than have links at a time.
const PEERS: usize = 1_024;
/// Requests of one peer: so many at once, and so many per second. A host that begins to talk to a hundred others at once,
/// all of which have to dial back, stays below.
const REQUESTS: Rate = Rate { burst: 512, per_second: 128 };
/// Of these, how many it can make this daemon pass to all its peers: each is up to [`FAN_OUT`] frames of 150 bytes.
const SPREADS: Rate = Rate { burst: 64, per_second: 16 };

#[derive(Debug, Clone, Copy)]
struct Peer {
    requests: TokenBucket,
    spreads: TokenBucket,
}

/// What to do with a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Nothing: it is known.
    Known,
    /// Nothing: the peer has sent too many.
    TooMany,
    /// Dial.
    Dial,
    /// Pass it to its target, if there is a link to it.
    Deliver,
    /// The same; without a link to it, pass it to others who may have one.
    Spread,
}

#[derive(Debug)]
struct Seen {
    token: Token,
    /// Whether its asker has sent it, rather than others.
    by_asker: bool,
    spread: bool,
}

/// Requests to dial that were seen lately, and who has sent how many.
#[derive(Debug, Default)]
pub struct Requests {
    seen: VecDeque<Seen>,
    peers: BTreeMap<NodeId, Peer>,
}

impl Requests {
    /// What to do with a request that `peer` has sent to `me`.
    pub fn decide(&mut self, now_ms: u64, me: NodeId, peer: NodeId, request: &DialBack) -> Decision {
        if request.asker == me || request.at == me {
            return Decision::Known;
        }
        // What is not counted is not remembered either: a flood cannot push out what others have sent.
        if !self.peer(peer, now_ms).requests.take(REQUESTS, now_ms) {
            return Decision::TooMany;
        }
        // The target itself is asked by whoever comes first.
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
            // Those that have been silent for long have all their allowance back.
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

/// Which of these peers a request for `target` is sent to: those that are next to it in the ring of ids, to whom it is
/// most likely to have a link.
pub fn likely(target: NodeId, mut peers: Vec<NodeId>) -> Vec<NodeId> {
    peers.sort_unstable();
    peers.dedup();
    let count = peers.len();
    if count > FAN_OUT {
        let after = peers.partition_point(|peer| *peer < target);
        // As many before it as behind it.
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
    fn only_the_asker_itself_has_it_passed_to_all_and_only_when_it_asks_again() {
        let mut requests = Requests::default();
        let (asker, other, me) = (id(1), id(2), id(3));
        let wanted = request(1, 9, 1);
        assert_eq!(requests.decide(0, me, asker, &wanted), Decision::Deliver);
        assert_eq!(requests.decide(0, me, other, &wanted), Decision::Known);
        assert_eq!(requests.decide(300, me, asker, &wanted), Decision::Spread);
        assert_eq!(requests.decide(300, me, asker, &wanted), Decision::Known);
        // What somebody else was asked for is at most passed to its target, however often it comes.
        let passed = request(1, 9, 2);
        assert_eq!(requests.decide(0, me, other, &passed), Decision::Deliver);
        assert_eq!(requests.decide(0, me, other, &passed), Decision::Known);
        assert_eq!(requests.decide(0, me, id(4), &passed), Decision::Known);
        // It does not stand in the way of the asker's own.
        assert_eq!(requests.decide(0, me, asker, &passed), Decision::Deliver);
        assert_eq!(requests.decide(0, me, asker, &passed), Decision::Spread);
    }

    #[test]
    fn the_target_dials_once_and_nobody_serves_itself() {
        let mut requests = Requests::default();
        let wanted = request(1, 3, 1);
        assert_eq!(requests.decide(0, id(3), id(2), &wanted), Decision::Dial);
        for peer in [1, 2, 4] {
            assert_eq!(requests.decide(0, id(3), id(peer), &wanted), Decision::Known);
        }
        assert_eq!(requests.decide(0, id(1), id(2), &request(1, 3, 2)), Decision::Known);
    }

    #[test]
    fn a_flood_is_bounded_and_disturbs_nobody_else() {
        let mut requests = Requests::default();
        let (flooder, me) = (id(1), id(3));
        let honest = request(2, 9, u64::MAX);
        assert_eq!(requests.decide(0, me, id(2), &honest), Decision::Deliver);
        let mut verdicts = [0_u64; 2];
        for token in 0..100_000 {
            // Ten seconds of it; each twice, which is what has it passed on.
            for _ in 0..2 {
                match requests.decide(token / 10, me, flooder, &request(1, 9, token)) {
                    Decision::Deliver => verdicts[0] += 1,
                    Decision::Spread => verdicts[1] += 1,
                    _ => {}
                }
            }
        }
        assert!(verdicts[0] <= REQUESTS.burst + 10 * REQUESTS.per_second, "{verdicts:?}");
        assert!(verdicts[1] <= SPREADS.burst + 10 * SPREADS.per_second, "{verdicts:?}");
        assert!(verdicts[1] >= SPREADS.burst, "{verdicts:?}");
        // The other one's request is still known, and served.
        assert_eq!(requests.decide(10_000, me, id(2), &honest), Decision::Spread);
        assert!(requests.seen.len() <= REMEMBERED);
    }

    #[test]
    fn who_sends_is_remembered_for_so_many_and_no_more() {
        let mut requests = Requests::default();
        for number in 0..2 * PEERS {
            let mut bytes = [9; 32];
            bytes[..8].copy_from_slice(&number.to_be_bytes());
            let now_ms = u64::try_from(number).expect("a number");
            let _ = requests.decide(now_ms, id(3), NodeId::new(bytes), &request(1, 9, now_ms));
        }
        assert_eq!(requests.peers.len(), PEERS);
    }

    /// All frames that one request causes where everybody has a link to those in `links` with its number.
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
                let verdict = daemons[usize::from(to)].decide(0, id(to), id(from), &wanted);
                let linked = links[usize::from(to)].contains(&target);
                match verdict {
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
        fn over_any_links_the_target_three_links_away_dials_once_and_the_frames_are_counted(
            cables in prop::collection::vec((0..40_u8, 0..40_u8), 0..400),
            repeats in 1..6_usize,
        ) {
            let mut links = vec![BTreeSet::new(); 40];
            for (one, other) in cables.into_iter().filter(|(one, other)| one != other) {
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
            // Each of those asked passes it on once to each of theirs, and each of these at most to the target; whatever
            // is repeated costs the repetition alone.
            let most = repeats * FAN_OUT + 2 * FAN_OUT + FAN_OUT * FAN_OUT + FAN_OUT * FAN_OUT;
            prop_assert!(sent <= most, "{} frames", sent);
        }

        #[test]
        fn those_next_to_the_target_are_asked_and_never_too_many(
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
