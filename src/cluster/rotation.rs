//! The replacement of the cluster secret, as a state machine.
//!
//! ```text
//!              begun here, or heard           every live member has it, or by order
//!   (none) ─────────────────────────▶ offered ──────────────────────────────────────▶ finished ──▶ after the grace: (none)
//!     accepted: old                    new, old of known members                        new, old of those that were away
//! ```
//!
//! From the beginning, only daemons that were members before may still prove the old secret: who is expelled, or has stolen
//! it, does not get the new one by joining. A member that was away during the rotation may prove the old secret within the
//! grace; it is then told the new one, has to prove that, and may not prove the old one again. If there was more than one
//! rotation meanwhile, it knows a secret from before; a few of these are remembered for as long as their own grace lasts.

use std::collections::BTreeSet;
use std::fmt;

use pmd_core::attest::{Keys, id_of};
use pmd_core::membership::expulsions::Administrators;
use pmd_core::node::MAX_AHEAD_MS;
use pmd_protocol::peer::{NodeId, Rotation, Signature};

use crate::auth::cookie::is_generated;

/// The number of secrets that are remembered from before the one that was replaced last. Whoever was away for more rotations
/// has to be given the secret by hand.
const MAX_FORMER: usize = 3;

/// What came of a rotation that another daemon has sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// It is the latest from now on, and has to be carried out and passed on.
    New,
    /// It was known, or a later one is known.
    Known,
    /// Its author may not replace the secret here.
    Ignored,
    /// Its author has not signed it, or the secret cannot be one.
    Forged,
}

/// The latest rotation that this daemon knows.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Latest {
    /// The rotation.
    pub rotation: Rotation,
    /// The secret that it replaces.
    pub old: String,
    /// The members that may still prove the old secret: they were members before it, and have not proven the new one.
    pub late: BTreeSet<NodeId>,
    /// When none may do so any more, in milliseconds since the Unix epoch.
    pub until_ms: u64,
    /// The secrets that rotations before this one replaced, the latest first.
    pub former: Vec<Former>,
}

/// A secret that was replaced before the latest rotation.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Former {
    /// The secret.
    pub secret: String,
    /// The members that may still prove it.
    pub late: BTreeSet<NodeId>,
    /// When none may do so any more, in milliseconds since the Unix epoch.
    pub until_ms: u64,
}

impl Latest {
    /// The members that may still prove a secret that was replaced.
    pub(super) fn all_late(&self) -> BTreeSet<NodeId> {
        let former = self.former.iter().flat_map(|former| &former.late);
        self.late.iter().chain(former).copied().collect()
    }

    /// Whether it has ended, and nobody may prove a secret that was replaced.
    pub(super) fn is_over(&self) -> bool {
        self.rotation.finished && self.late.is_empty() && self.former.is_empty()
    }
}

/// Without the old secrets, which must not be printed.
impl fmt::Debug for Latest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Latest { rotation, late, until_ms, .. } = self;
        f.debug_struct("Latest")
            .field("rotation", rotation)
            .field("late", late)
            .field("until_ms", until_ms)
            .finish_non_exhaustive()
    }
}

/// The rotations of one daemon's cluster.
#[derive(Clone, Debug)]
pub(super) struct Rotations {
    administrators: Administrators,
    grace_ms: u64,
    latest: Option<Latest>,
}

impl Rotations {
    /// Rotations by these administrators; members that were away may return within `grace_ms` milliseconds. `latest` is
    /// what an earlier run of this daemon knew.
    #[must_use]
    pub(super) fn new(administrators: Administrators, grace_ms: u64, latest: Option<Latest>) -> Rotations {
        Rotations { administrators, grace_ms, latest }
    }

    /// The latest rotation.
    #[must_use]
    pub(super) fn latest(&self) -> Option<&Latest> {
        self.latest.as_ref()
    }

    /// Whether a rotation is later than all that are known.
    #[must_use]
    pub(super) fn is_news(&self, rotation: &Rotation) -> bool {
        self.latest.as_ref().is_none_or(|latest| order(&latest.rotation) < order(rotation))
    }

    /// A new rotation to `secret`, because this member is expelled, if one is. It still has to be
    /// [judged](Self::judge). `now_ms` is in milliseconds since the Unix epoch.
    #[must_use]
    pub(super) fn begin(
        &self,
        keys: &dyn Keys,
        now_ms: u64,
        secret: String,
        without: Option<NodeId>,
    ) -> Rotation {
        let before = self.latest.as_ref().map_or(0, |latest| latest.rotation.begun_ms);
        let begun_ms = now_ms.max(before.saturating_add(1));
        signed(
            keys,
            Rotation {
                begun_ms,
                finished: false,
                without,
                secret,
                author: keys.public_key(),
                signature: Signature::default(),
            },
        )
    }

    /// The end of the latest rotation; `None` if there is none or it has ended. It still has to be
    /// [judged](Self::judge).
    #[must_use]
    pub(super) fn finish(&self, keys: &dyn Keys) -> Option<Rotation> {
        let rotation = &self.latest.as_ref()?.rotation;
        let finished = Rotation { finished: true, author: keys.public_key(), ..rotation.clone() };
        (!rotation.finished).then(|| signed(keys, finished))
    }

    /// Whether a rotation may replace the secret here: [`Heard::New`] unless it is known, its author is not an
    /// administrator or is `expelled`, or it is forged.
    pub(super) fn judge(&self, keys: &dyn Keys, now_ms: u64, rotation: &Rotation, expelled: bool) -> Heard {
        if !self.is_news(rotation) {
            return Heard::Known;
        }
        let author = id_of(&rotation.author);
        let counts = rotation.author == keys.public_key() || self.administrators.include(&author);
        if !counts || expelled || rotation.begun_ms > now_ms.saturating_add(MAX_AHEAD_MS) {
            return Heard::Ignored;
        }
        let is_genuine = keys.verify(&rotation.author, &message(rotation), &rotation.signature);
        // Only generated secrets: their keys cost nothing to derive.
        if is_generated(&rotation.secret) && is_genuine { Heard::New } else { Heard::Forged }
    }

    /// Whether this daemon, with these keys, may replace the secret of the others.
    pub(super) fn may_begin(&self, keys: &dyn Keys) -> bool {
        self.administrators.include(&id_of(&keys.public_key()))
    }

    /// Takes a rotation that was [judged](Self::judge) new as the latest. `current` is the secret that it replaces, and
    /// `members` are those that may prove it for some time. `may_return` is whether a member that was away since before
    /// the last rotation may still prove a secret from before that one.
    pub(super) fn accept(
        &mut self,
        now_ms: u64,
        rotation: Rotation,
        current: &str,
        members: BTreeSet<NodeId>,
        may_return: impl Fn(&NodeId) -> bool,
    ) {
        let until_ms = now_ms.saturating_add(self.grace_ms);
        self.latest = Some(match self.latest.take() {
            // The same rotation, which has ended, or has ended before.
            Some(latest) if latest.rotation.secret == rotation.secret => {
                let until_ms = if latest.rotation.finished { latest.until_ms } else { until_ms };
                Latest { rotation, until_ms, ..latest }
            }
            // It has ended before this daemon heard of it. Whoever has come with the old secret meanwhile may be anybody.
            _ if rotation.finished => Latest {
                rotation,
                old: current.to_owned(),
                late: BTreeSet::new(),
                until_ms,
                former: Vec::new(),
            },
            before => {
                let without = rotation.without;
                let is_out = |id: &NodeId| Some(*id) == without;
                let late = members.into_iter().filter(|id| !is_out(id)).collect();
                let mut former = before.map_or(Vec::new(), |before| {
                    let Latest { old: secret, late, until_ms, former, .. } = before;
                    std::iter::once(Former { secret, late, until_ms }).chain(former).collect()
                });
                for former in &mut former {
                    former.late.retain(|id| !is_out(id) && may_return(id));
                }
                former.retain(|former| !former.late.is_empty());
                former.truncate(MAX_FORMER);
                Latest { rotation, old: current.to_owned(), late, until_ms, former }
            }
        });
    }

    /// A member has proven the new secret. Returns whether that is new.
    pub(super) fn proven(&mut self, id: &NodeId) -> bool {
        let Some(latest) = &mut self.latest else { return false };
        let mut is_new = latest.late.remove(id);
        for former in &mut latest.former {
            is_new |= former.late.remove(id);
        }
        latest.former.retain(|former| !former.late.is_empty());
        is_new
    }

    /// Forgets secrets that were replaced once their grace is over. Returns whether one was forgotten now.
    pub(super) fn expire(&mut self, now_ms: u64) -> bool {
        let Some(latest) = &mut self.latest else { return false };
        let is_over = latest.rotation.finished && latest.until_ms <= now_ms && !latest.late.is_empty();
        if is_over {
            latest.late.clear();
            latest.old.clear();
        }
        let before = latest.former.len();
        latest.former.retain(|former| former.until_ms > now_ms);
        is_over || latest.former.len() < before
    }
}

/// Of two rotations, the greater one counts.
fn order(rotation: &Rotation) -> (u64, &str, bool, &[u8]) {
    (rotation.begun_ms, &rotation.secret, rotation.finished, rotation.author.as_bytes())
}

fn signed(keys: &dyn Keys, rotation: Rotation) -> Rotation {
    Rotation { signature: keys.sign(&message(&rotation)), ..rotation }
}

fn message(rotation: &Rotation) -> Vec<u8> {
    let Rotation { begun_ms, finished, without, secret, author, .. } = rotation;
    let mut message = b"pmd rotation 2".to_vec();
    message.extend(begun_ms.to_be_bytes());
    message.push(u8::from(*finished));
    let without = without.as_ref().map_or(&[][..], |id| id.as_bytes());
    for part in [without, secret.as_bytes(), author.as_bytes()] {
        message.extend(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        message.extend(part);
    }
    message
}

#[cfg(test)]
mod tests {
    use pmd_core::attest::Keys;
    use pmd_protocol::peer::PublicKey;

    use super::*;

    const GRACE: u64 = 1_000;
    const OLD: &str = "the old secret of the cluster";

    /// Keys whose signature is the key and the message.
    #[derive(Debug)]
    struct Toy(u8);

    impl Keys for Toy {
        fn public_key(&self) -> PublicKey {
            PublicKey::new(&[self.0; 32]).expect("short")
        }

        fn sign(&self, message: &[u8]) -> Signature {
            toy(&self.public_key(), message)
        }

        fn verify(&self, key: &PublicKey, message: &[u8], signature: &Signature) -> bool {
            *signature == toy(key, message)
        }
    }

    fn toy(key: &PublicKey, message: &[u8]) -> Signature {
        use sha2::Digest;
        let hash = sha2::Sha256::new().chain_update(key.as_bytes()).chain_update(message).finalize();
        Signature::new(&hash).expect("short")
    }

    fn rotations() -> Rotations {
        Rotations::new(Administrators::All, GRACE, None)
    }

    fn secret(number: u8) -> String {
        format!("{number:02x}").repeat(32)
    }

    fn id(number: u8) -> NodeId {
        NodeId::new([number; 32])
    }

    fn hear(all: &mut Rotations, now_ms: u64, rotation: &Rotation) -> Heard {
        let heard = all.judge(&Toy(0), now_ms, rotation, false);
        if heard == Heard::New {
            all.accept(now_ms, rotation.clone(), OLD, [id(1), id(2)].into(), |_| true);
        }
        heard
    }

    fn begin(all: &Rotations, by: u8, now_ms: u64, number: u8) -> Rotation {
        all.begin(&Toy(by), now_ms, secret(number), None)
    }

    #[test]
    fn a_rotation_is_offered_finished_and_over() {
        let mut all = rotations();
        assert_eq!(all.finish(&Toy(1)), None);
        let begun = begin(&all, 1, 100, 1);
        assert_eq!(hear(&mut all, 100, &begun), Heard::New);
        assert_eq!(hear(&mut all, 100, &begun), Heard::Known);
        assert!(all.proven(&id(1)) && !all.proven(&id(1)));
        // Anybody may finish it.
        let finished = all.finish(&Toy(2)).expect("it is offered");
        assert_eq!(hear(&mut all, 200, &finished), Heard::New);
        assert_eq!(hear(&mut all, 200, &begun), Heard::Known, "it does not begin again");
        assert_eq!(all.finish(&Toy(1)), None);
        let latest = all.latest().expect("a rotation").clone();
        assert_eq!((latest.old.as_str(), latest.late, latest.until_ms), (OLD, [id(2)].into(), 1_200));
        assert!(!all.expire(1_199) && all.expire(1_200) && !all.expire(1_300));
        assert_eq!(all.latest().map(|latest| latest.old.as_str()), Some(""));
    }

    #[test]
    fn two_rotations_at_once_become_one() {
        let (mut one, mut other) = (rotations(), rotations());
        let (first, second) = (begin(&one, 1, 100, 1), begin(&other, 2, 100, 2));
        for (all, rotations) in [(&mut one, [&first, &second]), (&mut other, [&second, &first])] {
            rotations.into_iter().for_each(|rotation| assert_ne!(hear(all, 100, rotation), Heard::Forged));
        }
        assert_eq!(one.latest().map(|latest| &latest.rotation), Some(&second));
        assert_eq!(other.latest().map(|latest| &latest.rotation), Some(&second));
        // A clock that is behind.
        assert_eq!(begin(&one, 3, 5, 3).begun_ms, 101);
    }

    #[test]
    fn a_rotation_that_was_changed_or_may_not_be_does_not_count() {
        let mut all = rotations();
        let begun = begin(&all, 1, 100, 1);
        for forged in [
            Rotation { secret: secret(2), ..begun.clone() },
            Rotation { finished: true, ..begun.clone() },
            Rotation { begun_ms: 101, ..begun.clone() },
            Rotation { without: Some(id(1)), ..begun.clone() },
            Rotation { author: Toy(2).public_key(), ..begun.clone() },
        ] {
            assert_eq!(hear(&mut all, 100, &forged), Heard::Forged, "{forged:?}");
        }
        for unfit in [
            "",
            "short",
            "a secret that takes long to derive a key from",
            "two lines\nin the file of secrets",
        ] {
            let rotation = all.begin(&Toy(1), 100, unfit.to_owned(), None);
            assert_eq!(hear(&mut all, 100, &rotation), Heard::Forged, "{unfit}");
        }
        let last = begin(&all, 1, u64::MAX, 1);
        assert_eq!(hear(&mut all, 100, &last), Heard::Ignored);
        let admin = id_of(&Toy(7).public_key());
        let mut all = Rotations::new(Administrators::Only([admin].into()), GRACE, None);
        assert_eq!(hear(&mut all, 100, &begun), Heard::Ignored);
        let theirs = begin(&all, 7, 100, 1);
        assert_eq!(hear(&mut all, 100, &theirs), Heard::New);
    }

    #[test]
    fn whoever_is_expelled_gets_no_new_secret_and_begins_no_rotation() {
        let mut all = rotations();
        let begun = all.begin(&Toy(1), 100, secret(1), Some(id(2)));
        assert_eq!(all.judge(&Toy(0), 100, &begun, true), Heard::Ignored, "its author is expelled");
        assert_eq!(hear(&mut all, 100, &begun), Heard::New);
        assert_eq!(all.latest().map(|latest| latest.late.clone()), Some([id(1)].into()));
        assert!(all.may_begin(&Toy(5)));
    }

    #[test]
    fn whoever_was_away_for_several_rotations_returns_within_the_grace_of_its_secret() {
        let mut all = rotations();
        let replace = |all: &mut Rotations, now_ms: u64, number: u8, without: Option<NodeId>, gone: u8| {
            let begun = all.begin(&Toy(1), now_ms, secret(number), without);
            let members = (1..=4).map(id).collect();
            all.accept(now_ms, begun, &secret(number - 1), members, |member| *member != id(gone));
            let finished = all.finish(&Toy(1)).expect("it is offered");
            all.accept(now_ms, finished, &secret(number), BTreeSet::new(), |_| false);
        };
        let former = |all: &Rotations| -> Vec<(String, BTreeSet<NodeId>)> {
            let former = all.latest().map(|latest| latest.former.clone()).unwrap_or_default();
            former.into_iter().map(|former| (former.secret, former.late)).collect()
        };
        replace(&mut all, 100, 1, None, 0);
        // 1 was there, and 2, 3 and 4 were away.
        assert!(all.proven(&id(1)));
        replace(&mut all, 200, 2, Some(id(3)), 4);
        assert_eq!(former(&all), [(secret(0), [id(2)].into())], "3 is expelled, and 4 has left");
        assert!([1, 3, 4].iter().all(|member| all.proven(&id(*member)) == (*member != 3)));
        assert!(!all.expire(1_099) && all.latest().is_some_and(|latest| !latest.is_over()));
        // Each secret has a grace of its own.
        assert!(all.expire(1_100));
        assert_eq!((former(&all), all.latest().map(|latest| latest.late.len())), (vec![], Some(1)));
        // Whoever has returned needs none of them any more.
        replace(&mut all, 1_150, 3, None, 0);
        assert_eq!(former(&all), [(secret(1), [id(2)].into())]);
        assert!((1..=4).all(|member| all.proven(&id(member))));
        assert!(all.latest().is_some_and(Latest::is_over));
        (4..20).for_each(|number| replace(&mut all, 1_200, number, None, 0));
        assert_eq!(former(&all).len(), MAX_FORMER);
    }

    /// A daemon that was away does not know who came with the old secret meanwhile.
    #[test]
    fn a_rotation_that_is_over_when_it_is_heard_entitles_nobody() {
        let mut others = rotations();
        let begun = begin(&others, 1, 100, 1);
        assert_eq!(hear(&mut others, 100, &begun), Heard::New);
        let finished = others.finish(&Toy(1)).expect("it is offered");
        let mut away = rotations();
        assert_eq!(hear(&mut away, 200, &finished), Heard::New);
        assert_eq!(away.latest().map(|latest| latest.late.len()), Some(0));
    }

    #[test]
    fn the_secret_is_not_printed() {
        let begun = begin(&rotations(), 1, 100, 1);
        assert!(!format!("{begun:?}").contains(&secret(1)));
        let mut all = rotations();
        assert_eq!(hear(&mut all, 100, &begun), Heard::New);
        let text = format!("{all:?}");
        assert!(!text.contains(&secret(1)) && !text.contains(OLD), "{text}");
    }
}
