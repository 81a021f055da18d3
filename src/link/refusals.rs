//! Who was refused, and why: what people need to know of two daemons that do not come together.
//!
//! Kept by address and reason, so that one that tries again and again takes one place. There are few places: what was
//! refused once gives way before what is refused again and again, so a flood from many addresses does not hide a host
//! that is set up wrongly.

use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use pmd_protocol::peer::frame::Reason;

use super::handshake::HandshakeError;
use crate::base::clock::now_ms;

/// Places: more than somebody reads.
const PLACES: usize = 64;
/// What was not refused for that long counts as remedied.
const FORGET: Duration = Duration::from_secs(24 * 3600);
/// Characters of a text, of which the peer may have said some.
const TEXT: usize = 200;

/// One that was refused, or has refused this daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Its address.
    pub address: IpAddr,
    /// Whether this daemon dialled.
    pub dialled: bool,
    /// A word for the reason: see [`HandshakeError::label`].
    pub reason: &'static str,
    /// What was said of it last.
    pub what: String,
    /// How often.
    pub count: u64,
    /// First time, in milliseconds since the Unix epoch.
    pub first_ms: u64,
    /// Last time.
    pub last_ms: u64,
    last: Instant,
}

/// Those of the last day, as far as there are places.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<Vec<Refusal>>);

impl Refusals {
    /// Remembers one that has dialled, or was dialled.
    pub fn note(&self, address: IpAddr, dialled: bool, reason: &'static str, what: &str) {
        self.note_at(Instant::now(), address, dialled, reason, what);
    }

    /// The same for a handshake that failed; for one that was dialled, only if somebody has said no.
    pub fn note_error(&self, address: IpAddr, dialled: bool, error: &HandshakeError) {
        let said_no = match error {
            HandshakeError::Refused { reason, .. } => matches!(reason, Reason::Refused | Reason::Violation),
            HandshakeError::Timeout | HandshakeError::Io(_) | HandshakeError::Closed => !dialled,
            // Who was dialled may have moved, which is no matter between the two.
            HandshakeError::Oneself | HandshakeError::OtherDaemon | HandshakeError::Left => false,
            _ => true,
        };
        if said_no {
            self.note(address, dialled, error.label(), &error.to_string());
        }
    }

    fn note_at(&self, now: Instant, address: IpAddr, dialled: bool, reason: &'static str, what: &str) {
        let (address, now_ms) = (address.to_canonical(), now_ms());
        let what: String = what.chars().take(TEXT).collect();
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let same =
            |known: &&mut Refusal| (known.address, known.dialled, known.reason) == (address, dialled, reason);
        if let Some(known) = all.iter_mut().find(same) {
            known.count = known.count.saturating_add(1);
            (known.last_ms, known.last, known.what) = (now_ms, now, what);
            return;
        }
        if all.len() >= PLACES {
            all.retain(|known| now.duration_since(known.last) < FORGET);
        }
        if all.len() >= PLACES {
            let least = all.iter().enumerate().min_by_key(|(_, known)| (known.count > 1, known.last));
            if let Some((place, _)) = least {
                all.swap_remove(place);
            }
        }
        let (first_ms, last_ms) = (now_ms, now_ms);
        all.push(Refusal { address, dialled, reason, what, count: 1, first_ms, last_ms, last: now });
    }

    /// All of them, the latest first.
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
    fn one_that_tries_again_takes_one_place() {
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
    fn a_flood_takes_no_more_memory_and_hides_nobody_who_comes_again() {
        let refusals = Refusals::default();
        for _ in 0..2 {
            refusals.note(ip(1), false, "cookie", "its cookie is another one");
        }
        (100..100_000).for_each(|number| refusals.note(ip(number), false, "protocol", "garbage"));
        let list = refusals.list();
        assert_eq!(list.len(), PLACES);
        assert!(list.iter().any(|known| known.address == ip(1) && known.count == 2));
        assert_eq!(list[0].address, ip(99_999));
    }

    #[test]
    fn what_is_long_ago_gives_way_first() {
        let refusals = Refusals::default();
        let begin = Instant::now();
        for number in 0..200 {
            (0..3).for_each(|_| refusals.note_at(begin, ip(number), false, "cookie", ""));
        }
        refusals.note_at(begin + FORGET, ip(999), false, "cookie", "");
        assert_eq!(refusals.list().len(), 1);
    }
}
