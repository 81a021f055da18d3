//! How many new members each peer may introduce.
//!
//! A member that knows the cluster secret can sign for as many keys as it makes, so a signature alone does not show that
//! there is a daemon behind a record. A peer may therefore introduce many members at once, as it must when a daemon joins
//! a large cluster, but only few per minute after that. What is beyond is ignored. Daemons pass on members that they have
//! not reached themselves at three quarters of that rate, so an honest daemon never exceeds it because of a liar, and
//! there is always room for those that it has reached.

use std::collections::BTreeMap;

use pmd_protocol::peer::NodeId;

use super::pace::{Allowance, Pace};
use crate::tuning::MembershipTuning;

/// The number of peers whose rates are kept apart. A daemon has far fewer links; those beyond share one rate.
const MAX_PEERS: usize = 1_024;

impl Pace {
    /// The members that a peer may introduce.
    #[must_use]
    pub fn accepted(tuning: &MembershipTuning) -> Self {
        Self { burst: tuning.introductions, every_ms: tuning.introduce_every_ms }
    }

    /// The members that this daemon passes on without having reached them: three quarters of those that a peer accepts.
    #[must_use]
    pub fn passed_on(tuning: &MembershipTuning) -> Self {
        let Self { burst, every_ms } = Self::accepted(tuning);
        Self { burst: burst.saturating_mul(3) / 4, every_ms: every_ms.saturating_mul(4).div_ceil(3) }
    }
}

/// What each peer may still introduce.
#[derive(Clone, Debug, Default)]
pub struct Introductions {
    peers: BTreeMap<NodeId, Allowance>,
    others: Allowance,
}

impl Introductions {
    /// Whether a peer may introduce another member now, which is counted.
    pub fn allow(&mut self, now_ms: u64, peer: NodeId, pace: Pace) -> bool {
        if !self.peers.contains_key(&peer) && self.peers.len() >= MAX_PEERS {
            self.peers.retain(|_, allowance| !allowance.is_full(now_ms));
        }
        let has_room = self.peers.contains_key(&peer) || self.peers.len() < MAX_PEERS;
        let allowance = if has_room { self.peers.entry(peer).or_default() } else { &mut self.others };
        let is_allowed = allowance.left(now_ms, pace) > 0;
        if is_allowed {
            allowance.take(now_ms, pace, 1);
        }
        is_allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACE: Pace = Pace { burst: 3, every_ms: 100 };

    fn id(number: u32) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&number.to_be_bytes());
        NodeId::new(bytes)
    }

    #[test]
    fn a_peer_may_introduce_some_at_once_and_then_few() {
        let mut all = Introductions::default();
        let mut allowed = |now_ms, peer| (0..10).filter(|_| all.allow(now_ms, id(peer), PACE)).count();
        assert_eq!([0, 0, 99, 100, 150, 350, 10_000].map(|now_ms| allowed(now_ms, 1)), [3, 0, 0, 1, 0, 2, 3]);
        assert_eq!(allowed(10_000, 2), 3, "another peer");
    }

    #[test]
    fn any_number_of_peers_takes_bounded_memory() {
        let mut all = Introductions::default();
        let allowed = (0..5_000).filter(|peer| all.allow(0, id(*peer), PACE)).count();
        assert_eq!((all.peers.len(), allowed), (MAX_PEERS, MAX_PEERS + 3));
        // Those that have used nothing lately need no place.
        assert!(all.allow(10_000, id(9_999), PACE));
        assert_eq!(all.peers.len(), 1);
    }

    #[test]
    fn less_is_passed_on_than_is_accepted() {
        let tuning = MembershipTuning::DEFAULT;
        let (accepted, passed_on) = (Pace::accepted(&tuning), Pace::passed_on(&tuning));
        assert!(passed_on.burst < accepted.burst && passed_on.every_ms > accepted.every_ms);
    }
}
