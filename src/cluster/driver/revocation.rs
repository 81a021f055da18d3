//! Lists of revoked certificates on the links: each peer is sent the latest ones, and those that are revoked lose their
//! links.

use std::sync::Arc;

use pmd_core::node::{Alarm, LinkEvent, LinkId, Rule};
use pmd_protocol::peer::frame::Reason;
use pmd_protocol::peer::{Frame, RevocationList};

use super::Driver;
use crate::auth::revocation::VerifiedList;
use crate::link::inbox::Close;

fn frame(list: &VerifiedList) -> Frame {
    Frame::RevocationList(RevocationList { der: list.der.clone() })
}

impl Driver {
    /// Sends a list to all peers, and closes the links of those that are revoked. They are sent it as well: it tells them
    /// why.
    pub(super) fn revoke(&mut self, list: &Arc<VerifiedList>) {
        for link in self.links.ends.keys() {
            let owed = self.owed.entry(*link).or_default();
            owed.retain(|other| !other.is_of_same_authority(list));
            owed.push(Arc::clone(list));
        }
        self.send_revocations();
        let links: Vec<LinkId> = self.links.ends.keys().copied().collect();
        for link in links {
            if self.close_if_revoked(link) {
                // Nothing else tells that it is not a member any more: to the node, it is a link that has ended.
                self.node.handle_link(self.now(), LinkEvent::Down { link, reason: None });
            }
        }
    }

    /// A new link is to get all lists.
    pub(super) fn owe_revocations(&mut self, link: LinkId) {
        let lists: Vec<_> = self.local.revocations().iter().cloned().collect();
        if !lists.is_empty() {
            self.owed.insert(link, lists);
        }
    }

    /// Sends lists on the links that have room. The others get them once they have.
    pub(super) fn send_revocations(&mut self) {
        if self.owed.is_empty() {
            return;
        }
        let (ends, counters) = (&self.links.ends, self.serving.counters());
        self.owed.retain(|link, lists| {
            let Some(end) = ends.get(link) else { return false };
            while end.output.has_room()
                && let Some(list) = lists.pop()
            {
                counters.frames_sent.add();
                end.output.send(frame(&list));
            }
            !lists.is_empty()
        });
    }

    /// Closes a link whose peer's certificate is revoked; returns whether it was. The node has to be told if it knows the
    /// link.
    pub(super) fn close_if_revoked(&mut self, link: LinkId) -> bool {
        let lists = self.local.revocations();
        let Some(end) = self.links.ends.get(&link) else { return false };
        let Some(serial) = end.credentials.revoked(&lists).cloned() else { return false };
        let Some(end) = self.links.ends.remove(&link) else { return false };
        let owed = self.owed.remove(&link).unwrap_or_default();
        let (host, address) = (end.host, end.address);
        self.log_link(end.peer.id, move |more| {
            tracing::warn!(%host, %address, "link closed: the certificate of its peer is revoked (serial number {serial}){more}");
        });
        let frames = owed.iter().map(|list| frame(list)).collect();
        let _ = end.close.send(Close { reason: Reason::Revoked, frames });
        true
    }

    /// Closes a link whose peer has sent what no correct daemon sends.
    pub(super) fn violated(&mut self, link: LinkId) {
        let Some(end) = self.links.ends.remove(&link) else { return };
        self.alarm(Alarm::Violation(end.peer.id, Rule::ForgedList));
        let reason = Reason::Violation;
        let _ = end.close.send(Close { reason, frames: Vec::new() });
        self.node.handle_link(self.now(), LinkEvent::Down { link, reason: Some(reason) });
    }
}
