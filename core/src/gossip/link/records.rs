//! The records of members that a link sends.

use std::sync::Arc;

use pmd_protocol::peer::frame::Membership;
use pmd_protocol::peer::{Frame, NodeId};

use super::Link;
use crate::facts::{About, Share};
use crate::membership::record::{self, Record, Standing};
use crate::membership::table::MemberTable;

impl Link {
    /// Notes that the peer has this record of a member.
    pub fn peer_knows(&mut self, record: Arc<Record>) {
        if !self.is_known(record.about(), record.standing()) {
            self.known_members.insert(record);
        }
    }

    /// Tells the peer about a member, unless it already knows.
    pub fn tell(&mut self, now_ms: u64, id: NodeId, standing: Standing) {
        if !self.is_known(&id, standing) {
            self.members.insert(id);
            self.flush_gathered(now_ms);
        }
    }

    fn is_known(&self, id: &NodeId, standing: Standing) -> bool {
        self.known_members.get(id).is_some_and(|known| known.standing() >= standing)
    }

    /// Lets members that had to wait be sent, as many as may be.
    pub(super) fn release_held(&mut self, now_ms: u64) {
        if self.held.is_empty() {
            return;
        }
        let (allowance, pace) = self.passed_on;
        for _ in 0..allowance.left(now_ms, pace) {
            let Some(id) = self.held.pop_first() else { break };
            self.members.insert(id);
        }
        self.flush_gathered(now_ms);
    }

    /// The records of members that the peer does not know. Those that this daemon has reached come first, and of the others
    /// only so many are sent as the peer will accept, see [`introductions`](crate::membership::introductions).
    pub(super) fn next_records<S: Share>(
        &mut self,
        now_ms: u64,
        table: &MemberTable<S>,
        budget: usize,
    ) -> Option<Frame> {
        let known = &self.known_members;
        self.members.retain(|id| {
            table
                .record(id)
                .is_some_and(|record| known.get(id).is_none_or(|known| known.standing() < record.standing()))
        });
        if self.members.is_empty() {
            return None;
        }
        let is_limited = |record: &&Arc<Record>| {
            let id = record.about();
            record.is_live() && known.get(id).is_none() && !table.is_reached(id)
        };
        let records = self.members.iter().filter_map(|id| table.shared_record(id));
        let (limited, mut records): (Vec<_>, Vec<_>) = records.partition(is_limited);
        let (allowance, pace) = &mut self.passed_on;
        let room = usize::try_from(allowance.left(now_ms, *pace)).unwrap_or(usize::MAX);
        for record in limited.iter().skip(room) {
            self.members.remove(record.about());
            self.held.insert(*record.about());
        }
        let free = records.len();
        records.extend(limited.into_iter().take(room));
        if records.is_empty() {
            return None;
        }
        let (encoded, count) = record::encode(records.iter().map(|record| &***record), budget);
        allowance.take(now_ms, *pace, u64::try_from(count.saturating_sub(free)).unwrap_or(u64::MAX));
        for record in records.into_iter().take(count) {
            self.members.remove(record.about());
            self.held.remove(record.about());
            // The link delivers in order or ends, so the peer has everything that was sent.
            self.known_members.insert(Arc::clone(record));
        }
        Some(Frame::Membership(Membership { records: encoded }))
    }
}
