//! Recent rejections and their reasons, which explain why two daemons cannot connect.
//!
//! They are kept by address and reason, so a peer that retries takes one entry. When the table is full, one-time
//! rejections are dropped before repeated ones, so a flood from many addresses does not hide a misconfigured host.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::Reason;

use super::handshake::HandshakeError;
use crate::base::clock::now_ms;

/// Maximum number of entries: more than anybody reads.
const MAX_ENTRIES: usize = 64;
/// A rejection that has not recurred for this long is considered fixed.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// The label of the rejections of daemons that were expelled.
const EXPELLED: &str = "expelled";
/// Maximum length of a text in characters: a quotation of the peer, which is shortened, and this daemon's words around it.
const TEXT: usize = 300;

/// A peer that was rejected, or that rejected this daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The peer's address.
    pub address: IpAddr,
    /// Whether this daemon dialled.
    pub dialled: bool,
    /// The label of the reason: see [`HandshakeError::label`].
    pub reason: &'static str,
    /// The most recent error message.
    pub what: String,
    /// The peer's id, if it was rejected because it was expelled.
    pub expelled: Option<NodeId>,
    /// The number of rejections.
    pub count: u64,
    /// The first rejection, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// The last rejection, in milliseconds since the Unix epoch.
    pub last_ms: u64,
    last: Instant,
}

/// The rejections of the last day, up to a maximum number of entries.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Vec<Refusal>>);

impl Refusals {
    /// Records the rejection of a peer that this daemon `dialled`, or that dialled this daemon.
    pub fn note(&self, address: IpAddr, dialled: bool, reason: &'static str, what: &str) {
        self.note_at(Instant::now(), (address, dialled, reason, None), what);
    }

    /// Records that a daemon that was expelled tried to come back.
    pub fn note_expelled(&self, address: IpAddr, id: NodeId, what: &str) {
        self.note_at(Instant::now(), (address, false, EXPELLED, Some(id)), what);
    }

    /// Records a failed handshake. An outgoing one is recorded only if one side rejected the other.
    pub fn note_error(&self, address: IpAddr, dialled: bool, error: &HandshakeError) {
        let is_rejection = match error {
            HandshakeError::Refused { reason, .. } => {
                use Reason::{Cookie, Expelled, Refused, Revoked, Violation};
                matches!(reason, Refused | Cookie | Violation | Expelled | Revoked)
            }
            HandshakeError::Timeout | HandshakeError::Io(_) | HandshakeError::Closed => !dialled,
            // The address may have been reassigned, which is not a rejection.
            HandshakeError::Oneself | HandshakeError::OtherDaemon | HandshakeError::Left => false,
            _ => true,
        };
        if is_rejection {
            self.note(address, dialled, error.label(), &error.to_string());
        }
    }

    fn note_at(
        &self,
        now: Instant,
        (address, dialled, reason, expelled): (IpAddr, bool, &'static str, Option<NodeId>),
        what: &str,
    ) {
        let (address, now_ms) = (address.to_canonical(), now_ms());
        let what: String = what.chars().take(TEXT).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same = |known: &&mut Refusal| {
            (known.address, known.dialled, known.reason, known.expelled)
                == (address, dialled, reason, expelled)
        };
        if let Some(known) = all.iter_mut().find(same) {
            known.count = known.count.saturating_add(1);
            (known.last_ms, known.last, known.what) = (now_ms, now, what);
            return;
        }
        if all.len() >= MAX_ENTRIES {
            all.retain(|known| now.duration_since(known.last) < FORGET);
        }
        if all.len() >= MAX_ENTRIES {
            let least = all.iter().enumerate().min_by_key(|(_, known)| (known.count > 1, known.last));
            if let Some((index, _)) = least {
                all.swap_remove(index);
            }
        }
        let (first_ms, last_ms) = (now_ms, now_ms);
        all.push(Refusal {
            address,
            dialled,
            reason,
            what,
            expelled,
            count: 1,
            first_ms,
            last_ms,
            last: now,
        });
    }

    /// All rejections of the last day, the latest first.
    pub fn list(&self) -> Vec<Refusal> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        all.retain(|known| known.last.elapsed() < FORGET);
        all.sort_by_key(|known| std::cmp::Reverse(known.last));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(number: u32) -> IpAddr {
        IpAddr::V4(number.into())
    }

    #[test]
    fn a_peer_that_retries_takes_one_entry() {
        let refusals = Refusals::default();
        refusals.note(ip(1), false, "cookie", "first");
        refusals.note("::ffff:0.0.0.1".parse().expect("an address"), false, "cookie", "second");
        refusals.note(ip(1), false, "tls", "third");
        refusals.note(ip(1), true, "tls", &"long".repeat(1_000));
        let list = refusals.list();
        let seen: Vec<_> =
            list.iter().rev().map(|known| (known.dialled, known.reason, known.count)).collect();
        assert_eq!(seen, [(false, "cookie", 2), (false, "tls", 1), (true, "tls", 1)]);
        assert_eq!((list[2].what.as_str(), list[0].what.len()), ("second", TEXT));
    }

    #[test]
    fn a_flood_is_bounded_and_does_not_hide_repeated_rejections() {
        let refusals = Refusals::default();
        for _ in 0..2 {
            refusals.note(ip(1), false, "cookie", "cookie mismatch");
        }
        (100..100_000).for_each(|number| refusals.note(ip(number), false, "protocol", "garbage"));
        let list = refusals.list();
        assert_eq!(list.len(), MAX_ENTRIES);
        assert!(list.iter().any(|known| known.address == ip(1) && known.count == 2));
        assert_eq!(list[0].address, ip(99_999));
    }

    #[test]
    fn expired_entries_are_dropped_first() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        for number in 0..200 {
            (0..3).for_each(|_| refusals.note_at(begin, (ip(number), false, "cookie", None), ""));
        }
        refusals.note_at(begin + FORGET, (ip(999), false, "cookie", None), "");
        assert_eq!(refusals.list().len(), 1);
    }
}
