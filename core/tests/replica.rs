//! The replicated registry by example: rejected updates, the order of lookups, and the handling of dead origins.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

mod support;

use std::sync::Arc;

use pmd_core::id::{NodeId, Stamp};
use pmd_core::replica::Replica;
use pmd_core::replica::store::{Effect, Source, Store};
use pmd_core::replica::view::Rank;
use pmd_protocol::peer::{Base, Entry, Kind, Op, Service, Update, Version};

use support::{Act, Origin, generation, key, node, parts, pull, replica, same, tuning, value};

#[test]
fn a_snapshot_shows_a_fork_too() {
    let [left, right] =
        [1, 2].map(|second| Origin::play(&[Act::Put(0, 0), Act::Put(second, 0), Act::Put(3, 0)], 4));
    let deleted = Origin::play(&[Act::Put(0, 0), Act::Put(1, 0), Act::Delete(0), Act::Put(3, 0)], 4);
    let id = left.id();
    for (one, other, fork) in [(&left, &right, true), (&left, &deleted, true), (&left, &left, false)] {
        let mut replica = replica(0, 4);
        pull(&mut replica, &Store::with_own(id, Arc::clone(one.at(2)), tuning(4)), id, usize::MAX);
        let [snapshot] = &parts(id, other.content(), None, usize::MAX)[..] else { unreachable!() };
        assert_eq!(
            replica.apply(Source(0), snapshot.clone(), |_| true).unwrap().fork,
            fork && one.at(2).contradicts(other.content())
        );
        assert!(same(replica.content(&id).unwrap(), other.content()));
    }
    assert!(left.content().contradicts(right.content()));
    assert!(left.content().contradicts(deleted.content()) && deleted.content().contradicts(left.content()));
    assert!(!left.content().contradicts(left.at(2)));
}

#[test]
fn an_interrupted_transfer_changes_nothing() {
    let mut acts: Vec<_> = (0..6).map(|number| Act::Put(number, 3)).collect();
    acts.push(Act::Delete(2));
    let origin = Origin::play(&acts, 4);
    let cut = parts(origin.id(), origin.content(), None, 300);
    assert!(cut.len() >= 3);
    let mut replica = replica(0, 4);
    for part in &cut[..cut.len() - 1] {
        assert_eq!(replica.apply(Source(1), part.clone(), |_| true).unwrap().effect, Effect::Staged);
        assert!(replica.content(&origin.id()).is_none());
    }
    replica.drop_source(Source(1));
    let last = cut.last().unwrap().clone();
    assert!(matches!(replica.apply(Source(1), last, |_| true).unwrap().effect, Effect::Missing(_)));
    assert!(replica.content(&origin.id()).is_none());
}

#[test]
fn a_transfer_cannot_grow_beyond_its_limit() {
    let origin = Origin::play(&(0..6).map(|number| Act::Put(number, 3)).collect::<Vec<_>>(), 4);
    let mut small = tuning(4);
    small.staged_bytes = 300;
    let mut replica = Store::new(node(9), generation(0), small);
    let results: Vec<_> = parts(origin.id(), origin.content(), None, 300)
        .into_iter()
        .map(|part| replica.apply(Source(1), part, |_| true).is_err())
        .collect();
    assert!(results.contains(&true));
    assert!(replica.content(&origin.id()).is_none());
}

#[test]
fn false_updates_are_refused() {
    let origin = Origin::play(&[Act::Put(1, 1), Act::Put(2, 2)], 4);
    let [correct] = &parts(origin.id(), origin.content(), None, usize::MAX)[..] else { unreachable!() };
    let refused = |update: Update| {
        let mut replica = replica(0, 4);
        let result = replica.apply(Source(1), update, |_| true);
        assert!(result.is_err(), "{result:?}");
        assert!(replica.content(&origin.id()).is_none());
    };
    let stamp = correct.stamp;
    let with = |stamp: Stamp, base, ops: Vec<(Version, Op)>| Update { stamp, base, ops, ..correct.clone() };
    let ops = correct.ops.clone();
    refused(with(Stamp { digest: Default::default(), ..stamp }, Base::Nothing, ops.clone()));
    refused(with(stamp, Base::Nothing, ops.iter().rev().cloned().collect()));
    refused(with(stamp, Base::Nothing, vec![(Version(1), Op::Delete(key(1)))]));
    refused(with(stamp, Base::Nothing, vec![ops[0].clone(), (Version(2), ops[0].1.clone())]));
    refused(with(stamp, Base::Nothing, vec![ops[0].clone(), (Version(3), ops[1].1.clone())]));
    refused(with(stamp, Base::After(Version::ZERO), vec![ops[0].clone()]));
}

fn service(name: &str, port: u16) -> Entry {
    let name = name.parse().unwrap();
    Entry::Service(Service { name, instance: 0, port, registered_ms: 0, metadata: Default::default() })
}

fn put(replica: &mut Replica, entry: &Entry) {
    let (key, value) = entry.write().unwrap();
    replica.put(key, value);
}

fn bring(to: &mut Replica, from: &Replica, origin: NodeId) {
    if let Some(mut transfer) = from.transfer(&origin, to.store().stamp(&origin)) {
        while let Some(part) = transfer.next_part(1000) {
            to.apply(Source(0), part, 0, |_| true).unwrap();
        }
    }
}

#[test]
fn lookups_are_ordered_by_host_then_suspicion_then_distance_then_id() {
    use pmd_core::membership::Liveness::{Alive, Suspect};
    let mut here = Replica::new(node(50), generation(0), tuning(4));
    put(&mut here, &service("db", 50));
    let far = [
        (1, Suspect, Some(1)),
        (2, Alive, None),
        (3, Alive, Some(900)),
        (4, Alive, Some(100)),
        (5, Alive, Some(100)),
        (6, Suspect, None),
    ];
    for (number, liveness, rtt_us) in far {
        let mut there = Replica::new(node(number), generation(7), tuning(4));
        put(&mut there, &service("db", u16::from(number)));
        bring(&mut here, &there, node(number));
        here.member_up(node(number), generation(7), Rank { liveness, rtt_us }, 0);
    }
    let ports: Vec<_> =
        here.view().look_up(Kind::SERVICE, b"db").iter().filter_map(|found| found.entry.port()).collect();
    assert_eq!(ports, [50, 4, 5, 3, 2, 1, 6]);
}

#[test]
fn dead_content_is_hidden_at_once_and_dropped_later() {
    let mut here = Replica::new(node(50), generation(0), tuning(4));
    let mut there = Replica::new(node(1), generation(7), tuning(4));
    put(&mut there, &service("db", 1));
    bring(&mut here, &there, node(1));
    let found = |here: &Replica| here.view().look_up(Kind::SERVICE, b"db").len();
    assert_eq!(found(&here), 0, "visible before its origin is a member");
    assert!(here.member_up(node(1), generation(7), Rank::default(), 10).is_some());
    assert_eq!(found(&here), 1);
    assert_eq!(here.fingerprint(), {
        there.member_up(node(50), generation(0), Rank::default(), 10);
        there.fingerprint()
    });
    assert!(here.member_down(node(1), 1_000).is_some());
    assert_eq!(found(&here), 0);
    assert_eq!(here.fingerprint(), Replica::new(node(50), generation(0), tuning(4)).fingerprint());
    let keep = tuning(4).keep_dead_ms;
    assert_eq!(here.next_expiry(), Some(1_000 + keep));
    assert_eq!(here.expire(999 + keep), 0);
    assert!(here.store().content(&node(1)).is_some());
    assert_eq!(here.expire(1_000 + keep), 1);
    assert!(here.store().content(&node(1)).is_none());
    assert_eq!(here.next_expiry(), None);
}

#[test]
fn dead_origins_are_bounded_in_number() {
    let mut few = tuning(4);
    few.max_dead = 3;
    let mut here = Replica::new(node(50), generation(0), few);
    for number in 1..=8 {
        let there = Replica::new(node(number), generation(7), few);
        bring(&mut here, &there, node(number));
        if let Some(when) = here.next_expiry().filter(|when| *when <= 1) {
            here.expire(when);
        }
    }
    assert_eq!(here.store().iter().count(), 4);
}

#[test]
fn an_unreadable_entry_is_replicated_and_left_out() {
    let mut here = Replica::new(node(50), generation(0), tuning(4));
    let mut there = Replica::new(node(1), generation(7), tuning(4));
    put(&mut there, &service("db", 1));
    there.put(key(9), value(0));
    here.member_up(node(1), generation(7), Rank::default(), 0);
    bring(&mut here, &there, node(1));
    assert_eq!(here.view().unreadable(), 1);
    assert_eq!(here.view().look_up(Kind::SERVICE, b"db").len(), 1);
    assert_eq!(here.store().stamp(&node(1)), there.store().stamp(&node(1)));
}
