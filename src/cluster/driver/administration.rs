//! What administrators decide, carried out on the links: expulsions, requests to leave, and the replacement of the cluster
//! secret.

use pmd_core::membership::Identity;
use pmd_core::node::{Command, LinkEvent, LinkId};
use pmd_protocol::peer::frame::{Depart, Reason};
use pmd_protocol::peer::{Alias, Entry, Expulsion, Frame, NodeId};

use super::Driver;
use crate::auth::cookie::{CookieKey, Transition};
use crate::cluster::bridge::Facts;
use crate::cluster::core::{Rotating, Sent, Spread};
use crate::directory::agreed_aliases::Review;
use crate::link::inbox::{Close, LinkEnd};

/// The age from which on a link must have been proven by the current secret.
const SETTLE_MS: u64 = 5_000;

impl Driver {
    /// Whether the peer of a link may know the current secret: it is not expelled, and has proven that secret, or one that
    /// it may still prove.
    pub(super) fn is_entitled(&self, end: &LinkEnd) -> bool {
        let (cookies, transition) = (self.local.cookies(), self.local.transition());
        !self.node.expulsions().is_expelled(&end.peer.id)
            && Transition::keys(transition.as_deref(), &cookies, &end.peer.id).any(|key| end.proof.is_of(key))
    }

    /// Sends a rotation of the secret to the peers that are entitled to it, proves to all that this daemon has the secret,
    /// and publishes that.
    pub(super) fn rotate(&mut self, rotating: Rotating) {
        let Rotating { rotation, key, spread, publish } = rotating;
        let is_meant = |end: &&LinkEnd| spread == Spread::All || !end.proof.is_of(&key);
        for end in self.links.ends.values().filter(is_meant) {
            if self.is_entitled(end) {
                self.send_to(&end.peer.id, Frame::Rotation(rotation.clone()));
            }
            // Tells nothing to whoever does not know the secret.
            self.send_to(&end.peer.id, Frame::Proof(end.proof.prove(&key)));
        }
        if publish && self.settings.host.secret_ms != rotation.begun_ms {
            self.settings.host.secret_ms = rotation.begun_ms;
            self.publish_host();
        }
        self.rotation = Some((rotation, key));
    }

    /// Chooses another alias if an older holder has this host's.
    pub(super) fn review_alias(&mut self) {
        match self.bridge.review_own_alias(self.now().mono_ms) {
            Review::Settled => self.alias_is_open = false,
            Review::Open => {}
            Review::Moved(alias) => {
                let Alias { address, .. } = alias;
                tracing::info!(alias = %address, "an older host already uses this host's alias; this host now uses {address}");
                self.settings.host.alias = Some(alias);
                self.publish_host();
            }
        }
    }

    fn publish_host(&mut self) {
        let host = Entry::Host(self.settings.host.clone());
        // This fails only while the daemon is leaving.
        let _ = self.node.handle_command(self.now(), Command::Put(host));
    }

    /// Sends a peer the latest rotation if it is entitled to the secret, unless an administrator has replaced the secret by
    /// hand since.
    pub(super) fn send_rotation(&self, peer: &NodeId) {
        let Some((rotation, key)) = &self.rotation else { return };
        let is_current = self.local.cookies().current() == Some(key);
        if is_current && self.links.to(peer).is_some_and(|end| self.is_entitled(end)) {
            self.send_to(peer, Frame::Rotation(rotation.clone()));
        }
    }

    /// Closes links that nothing valid stands behind any more, except new ones, whose peers may still be about to prove the
    /// new secret.
    pub(super) fn close_unproven(&mut self, key: &CookieKey) {
        let now_ms = self.now().mono_ms;
        let is_unproven = |id: &LinkId| self.links.ends.get(id).is_some_and(|end| !end.proof.is_of(key));
        let old = self.node.links().filter(|(_, link)| now_ms.saturating_sub(link.since_ms) >= SETTLE_MS);
        let unproven: Vec<LinkId> = old.map(|(id, _)| id).filter(is_unproven).collect();
        for link in unproven {
            let Some(end) = self.links.ends.remove(&link) else { continue };
            tracing::warn!(host = %end.host, address = %end.address, "link closed: its peer has not proven the new cluster secret");
            let _ = end.close.send(Close { reason: Reason::Cookie, frames: Vec::new() });
            self.node.handle_link(self.now(), LinkEvent::Down { link, reason: Some(Reason::Cookie) });
        }
    }

    /// Publishes a decision about a member, and remembers it for the node that follows this one.
    pub(super) fn decided(&mut self, decision: &Expulsion) {
        let Expulsion { member, host, by, expelled, .. } = decision;
        let key = if *expelled { "expelled" } else { "readmitted" };
        let (host, by, member) = (host.clone(), by.clone(), *member);
        let write = move |more: &str| tracing::warn!(?host, id = ?member, ?by, "member {key}{more}");
        self.log.line(format!("{key} {member}"), write);
        self.bridge.set_expelled(member, *expelled);
        self.settings.decisions = self.node.expulsions().iter().cloned().collect();
        self.local
            .set_decisions(self.settings.decisions.iter().map(|one| (one.member, one.clone())).collect());
    }

    /// Tells a member to leave the cluster.
    pub(super) fn dismiss(&mut self, member: &Identity) {
        let frame = Frame::Depart(Depart { target: member.id, generation: member.generation });
        if self.send_to(&member.id, frame.clone()) != Sent::Yes {
            self.pool.send(&self.dialer, self.serving.inbox(), member.clone(), frame);
        }
    }

    /// Handles a request from a member to leave, unless it is meant for another generation of this daemon.
    pub(super) fn depart(&self, peer: &NodeId, told: &Depart) {
        let own = self.node.identity();
        // Whoever has opened a one-shot connection may not be a member any more.
        let is_member = self.node.generation_of(peer).is_some();
        if (told.target, told.generation) != (own.id, own.generation) || self.local.has_left() || !is_member {
            return;
        }
        let facts = Facts { node: &self.node, now_ms: self.now().mono_ms, ends: &self.links.ends };
        let host = facts.host_of(peer);
        if !self.leave_on_request {
            let write = move |more: &str| {
                tracing::warn!(host, "ignored a member's request to leave (leave_on_request = false){more}");
            };
            return self.log.line(format!("request to leave by {peer}"), write);
        }
        tracing::warn!(host, "a member told this daemon to leave the cluster; use pmd join to rejoin");
        // A full channel means that the daemon is already about to leave.
        let _ = self.told_to_leave.try_send(());
    }
}
