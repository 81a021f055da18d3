//! The laws of the registry, each under its name. A law that cannot be broken by breaking the code is no test; which
//! of them catches what is written beside them.

#![allow(clippy::unwrap_used, reason = "a broken law has to fail the test")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use pmd_core::id::{Generation, NodeId, Stamp};
use pmd_core::replica::Registry;
use pmd_core::replica::content::Content;
use pmd_core::replica::store::{Outcome, OwnClaim, Source, Store};
use pmd_core::replica::view::Rank;
use pmd_protocol::peer::{Base, Entry, Key, Kind, Op, Service, Update, Version};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use support::{
    Act, Origin, act, acts_of_one_life, key, life, node, parts, pull, replica, same, tuning, value,
};

/// One update that is on its way: which content it comes from, which stamp it was made for, and how it is cut.
#[derive(Clone, Debug)]
struct Sent {
    from: usize,
    made_for: Option<usize>,
    budget: usize,
    part: Index,
    source: u64,
}

/// An update sent at any time, lost and delivered at any time: what a network can make of transfers.
fn sent() -> impl Strategy<Value = Sent> {
    (
        0..64_usize,
        prop::option::of(0..64_usize),
        prop_oneof![1..600_usize, Just(usize::MAX)],
        any::<Index>(),
        0..2_u64,
    )
        .prop_map(|(from, made_for, budget, part, source)| Sent { from, made_for, budget, part, source })
}

fn update(origin: &Origin, sent: &Sent) -> Option<(Source, Update)> {
    let have = sent.made_for.map(|moment| origin.at(moment).stamp());
    let parts = parts(origin.id(), origin.at(sent.from), have, sent.budget);
    let part = (!parts.is_empty()).then(|| sent.part.get(&parts).clone())?;
    Some((Source(sent.source), part))
}

/// Transfers in order but with whole parts lost or sent twice, mixed with stray ones.
fn traffic() -> impl Strategy<Value = Vec<Sent>> {
    vec(sent(), 0..24)
}

fn contents() -> impl Strategy<Value = Vec<Arc<Content>>> {
    // Histories with a common beginning of their lives, so that some of them are forks of others.
    vec((vec(act(), 0..12), 0..4_usize), 3..=3).prop_map(|plays| {
        plays.iter().map(|(acts, window)| Arc::clone(Origin::play(acts, *window).content())).collect()
    })
}

fn joined(a: &Arc<Content>, b: &Arc<Content>) -> Content {
    Content::clone(a).join(Content::clone(b))
}

fn truth_holds(replica: &Store, origin: &Origin) -> Result<(), TestCaseError> {
    if let Some(content) = replica.content(&origin.id()) {
        let truth = origin.history.get(&content.stamp());
        prop_assert!(truth.is_some(), "a stamp that never was: {:?}", content.stamp());
        prop_assert!(
            truth.is_some_and(|truth| same(truth, content)),
            "other content at {:?}",
            content.stamp()
        );
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn join_commutes(all in contents()) {
        let [a, b, _] = &all[..] else { unreachable!() };
        prop_assert!(same(&joined(a, b), &joined(b, a)));
    }

    #[test]
    fn join_associates(all in contents()) {
        let [a, b, c] = &all[..] else { unreachable!() };
        let left = joined(&Arc::new(joined(a, b)), c);
        let right = joined(a, &Arc::new(joined(b, c)));
        prop_assert!(same(&left, &right));
    }

    #[test]
    fn join_idempotent(all in contents()) {
        let [a, b, _] = &all[..] else { unreachable!() };
        prop_assert!(same(&joined(a, a), a));
        let once = Arc::new(joined(a, b));
        prop_assert!(same(&joined(&once, b), &once));
        prop_assert!(same(&joined(&once, a), &once));
    }

    /// Whatever was lost, doubled, reordered, cut differently or forgotten before: what a transfer brings in the end is
    /// the join.
    #[test]
    fn delta_equals_join(
        acts in vec(act(), 0..40),
        windows in (0..5_usize, 0..5_usize),
        before in traffic(),
        from in 0..64_usize,
        budget in prop_oneof![1..600_usize, Just(usize::MAX)],
    ) {
        let origin = Origin::play(&acts, windows.0);
        let mut replica = replica(0, windows.1);
        for (source, update) in before.iter().filter_map(|sent| update(&origin, sent)) {
            let _ = replica.apply(source, update).unwrap();
        }
        let sender = origin.at(from);
        let join = match replica.content(&origin.id()) {
            Some(have) => joined(have, sender),
            None => Content::clone(sender),
        };
        let holder = Store::with_own(origin.id(), Arc::clone(sender), tuning(windows.0));
        let log = pull(&mut replica, &holder, origin.id(), budget);
        prop_assert!(same(replica.content(&origin.id()).unwrap(), &join));
        prop_assert!(log.iter().all(|applied| !applied.fork));
    }

    /// The same between replicas that are no origins, whose memory of deletions has holes of its own.
    #[test]
    fn delta_equals_join_between_replicas(
        acts in vec(act(), 0..40),
        windows in vec(0..4_usize, 3..=3),
        hops in vec((0..64_usize, 0..3_usize, 0..3_usize, 1..400_usize), 0..16),
    ) {
        let origin = Origin::play(&acts, usize::MAX);
        let mut replicas: Vec<_> = windows.iter().zip(0..).map(|(window, number)| replica(number, *window)).collect();
        for (moment, from, to, budget) in hops {
            let writer = Store::with_own(origin.id(), Arc::clone(origin.at(moment)), tuning(usize::MAX));
            pull(&mut replicas[from], &writer, origin.id(), budget);
            if from != to {
                let [from, to] = replicas.get_disjoint_mut([from, to]).unwrap();
                let join = match to.content(&origin.id()) {
                    Some(have) => joined(have, from.content(&origin.id()).unwrap()),
                    None => Content::clone(from.content(&origin.id()).unwrap()),
                };
                pull(to, from, origin.id(), budget);
                prop_assert!(same(to.content(&origin.id()).unwrap(), &join));
                truth_holds(to, &origin)?;
            }
        }
    }

    #[test]
    fn monotone(acts in vec(act(), 0..40), window in 0..5_usize, traffic in traffic()) {
        let origin = Origin::play(&acts, window);
        let mut replica = replica(0, window);
        for (source, update) in traffic.iter().filter_map(|sent| update(&origin, sent)) {
            let before = replica.stamp(&origin.id());
            let applied = replica.apply(source, update).unwrap();
            let after = replica.stamp(&origin.id());
            prop_assert!(after >= before);
            let moved = matches!(applied.outcome, Outcome::Applied { .. });
            prop_assert_eq!(moved, after > before);
        }
    }

    #[test]
    fn content_is_function_of_gen_ver(acts in vec(act(), 0..40), window in 0..5_usize, traffic in traffic()) {
        let origin = Origin::play(&acts, window);
        let mut replica = replica(0, window);
        for (source, update) in traffic.iter().filter_map(|sent| update(&origin, sent)) {
            let applied = replica.apply(source, update).unwrap();
            prop_assert!(!applied.fork);
            truth_holds(&replica, &origin)?;
        }
    }

    /// Nothing that arrives changes what this daemon says about itself, and nothing it does changes what it has of others.
    #[test]
    fn only_origin_writes(acts in vec(act(), 0..30), others in vec(act(), 0..30), traffic in traffic()) {
        let mut me = Origin::play(&acts, 4);
        let other_me = Origin::play(&others, 4);
        let own = Arc::clone(me.content());
        for (source, update) in traffic.iter().filter_map(|sent| update(&other_me, sent)) {
            let (claim, have) = (update.stamp, own.stamp());
            let applied = me.store.apply(source, update).unwrap();
            prop_assert!(same(me.content(), &own));
            let expected = if claim.generation > have.generation {
                OwnClaim::LaterLife
            } else if claim.generation == have.generation && claim.version > have.version || claim.contradicts(&have) {
                OwnClaim::Ahead
            } else {
                OwnClaim::Old
            };
            prop_assert_eq!(applied.outcome, Outcome::Own(expected));
        }
        let mut third = Origin::new(node(2), 4);
        pull(&mut third.store, &me.store, me.id(), usize::MAX);
        for act in others.iter().filter(|act| !matches!(act, Act::Restart)) {
            third.act(act);
            prop_assert!(same(third.store.content(&me.id()).unwrap(), &own));
        }
    }

    /// What is gone stays gone, whatever old news arrives: deletions, and all that a dead life had.
    #[test]
    fn no_resurrection(
        acts in vec(act(), 0..40),
        window in 0..5_usize,
        traffic in vec((sent(), any::<bool>(), 0..64_usize), 0..24),
    ) {
        let origin = Origin::play(&acts, window);
        let mut registry = Registry::new(node(100), life(0), tuning(window));
        let (mut latest, mut live) = (None, None);
        for (now, (sent, lives, moment)) in (0_u64..).zip(&traffic) {
            if let Some((source, update)) = update(&origin, sent) {
                registry.apply(source, update, now).unwrap();
            }
            let stamp = registry.store().stamp(&origin.id());
            prop_assert!(stamp >= latest, "went back");
            latest = stamp;
            only_the_living_are_visible(&registry, &origin, live)?;
            // Membership knows of some life; it may be behind, ahead, or think that nobody lives.
            live = lives.then(|| origin.at(*moment).stamp().generation);
            match live {
                Some(generation) => registry.member_up(origin.id(), generation, Rank::default(), now),
                None => registry.member_down(origin.id(), now),
            };
            only_the_living_are_visible(&registry, &origin, live)?;
        }
    }

    #[test]
    fn restart_wipes(acts in vec(act(), 0..40), after in acts_of_one_life(12), traffic in traffic()) {
        let mut origin = Origin::play(&acts, 3);
        let mut replica = replica(0, 3);
        let old_life = traffic.iter().filter_map(|sent| update(&origin, sent)).collect::<Vec<_>>();
        for (source, update) in &old_life {
            replica.apply(*source, update.clone()).unwrap();
        }
        origin.act(&Act::Restart);
        for act in &after {
            origin.act(act);
        }
        pull(&mut replica, &origin.store, origin.id(), 200);
        prop_assert!(same(replica.content(&origin.id()).unwrap(), origin.content()));
        for (source, update) in old_life {
            prop_assert_eq!(replica.apply(source, update).unwrap().outcome, Outcome::Known);
            prop_assert!(same(replica.content(&origin.id()).unwrap(), origin.content()));
        }
    }

    /// However daemons talked before, once everybody has heard everybody they have the same registry.
    #[test]
    fn converges(
        steps in vec((0..4_usize, prop::option::of(0..4_usize), act()), 0..40),
        windows in vec(0..4_usize, 4..=4),
        budget in 1..400_usize,
    ) {
        let mut daemons: Vec<_> =
            windows.iter().zip(1..).map(|(window, number)| Origin::new(node(number), *window)).collect();
        for (at, partner, act) in steps {
            match partner {
                None if matches!(act, Act::Restart) => {
                    // The store starts empty; what it knew of others is to be learned again.
                    daemons[at].act(&act);
                }
                None => daemons[at].act(&act),
                Some(partner) if partner != at => exchange(&mut daemons, at, partner, budget),
                Some(_) => {}
            }
        }
        for _ in 0..2 {
            for at in 0..daemons.len() {
                exchange(&mut daemons, at, (at + 1) % 4, budget);
            }
        }
        for daemon in &daemons {
            for origin in &daemons {
                prop_assert!(same(daemon.store.content(&origin.id()).unwrap(), origin.content()));
            }
        }
        let fingerprints: BTreeSet<_> = daemons.iter().map(|daemon| fingerprint(&daemon.store)).collect();
        prop_assert_eq!(fingerprints.len(), 1);
    }

    #[test]
    fn tombstones_bounded(acts in vec(act(), 0..80), window in 0..5_usize, other in 0..5_usize, traffic in traffic()) {
        let mut origin = Origin::new(node(1), window);
        for act in &acts {
            origin.act(act);
            prop_assert!(origin.content().tombstones() <= window);
        }
        let writer = Origin::play(&acts, usize::MAX);
        let mut replica = replica(0, other);
        for (source, update) in traffic.iter().filter_map(|sent| update(&writer, sent)) {
            replica.apply(source, update).unwrap();
            prop_assert!(replica.content(&writer.id()).is_none_or(|content| content.tombstones() <= other));
        }
    }

    /// Two daemons write as one. Their contents are never mixed, somebody notices, and all end with the same of them.
    #[test]
    fn fork_detected(
        common in acts_of_one_life(10),
        (left, right) in (acts_of_one_life(10), acts_of_one_life(10)),
        order in vec((any::<bool>(), 0..64_usize, 1..400_usize), 0..12),
        window in 0..5_usize,
    ) {
        let play = |own: &[Act]| Origin::play(&[&common, own].concat(), usize::MAX);
        let clones = [play(&left), play(&right)];
        let mut replicas = [replica(0, window), replica(1, window)];
        let id = clones[0].id();
        for (which, moment, budget) in order {
            let content = clones[usize::from(which)].at(moment);
            let have = replicas[0].content(&id).cloned();
            let writer = Store::with_own(id, Arc::clone(content), tuning(usize::MAX));
            let log = pull(&mut replicas[0], &writer, id, budget);
            let now = replicas[0].content(&id).unwrap();
            prop_assert!(
                clones.iter().any(|clone| clone.history.get(&now.stamp()).is_some_and(|truth| same(truth, now))),
                "a mixture"
            );
            // The writer was at this version once. If it had other entries then, it shows as soon as it matters: when
            // not all of them have been written over since.
            if let Some(have) = have
                && let Some(then) = clones[usize::from(which)].at_version(have.stamp().version)
                && then.stamp().version < content.stamp().version
            {
                let since: BTreeSet<_> =
                    content.ops_after(then.stamp().version).map(|(_, op)| op.key().clone()).collect();
                let differs = |(key, _): (&Arc<Key>, _)| !since.contains(&**key) && have.get(key) != then.get(key);
                if have.iter().any(differs) || then.iter().any(differs) {
                    prop_assert!(log.iter().any(|applied| applied.fork), "nobody noticed");
                }
            }
        }
        // One of the two always learns of it when it hears of the other.
        if !same(clones[0].content(), clones[1].content()) {
            let ahead = clones.iter().zip(clones.iter().rev()).filter(|(one, other)| {
                let mut hears = Store::with_own(id, Arc::clone(one.content()), tuning(window));
                let [update] = &parts(id, other.content(), None, usize::MAX)[..] else { unreachable!() };
                let heard = hears.apply(Source(0), update.clone()).unwrap();
                heard.outcome == Outcome::Own(OwnClaim::Ahead)
            });
            prop_assert!(ahead.count() > 0, "neither of the two knows");
        }
        let [first, second] = &mut replicas;
        for clone in &clones {
            pull(first, &clone.store, id, 100);
        }
        for clone in clones.iter().rev() {
            pull(second, &clone.store, id, 300);
        }
        prop_assert!(same(first.content(&id).unwrap(), second.content(&id).unwrap()));
    }
}

/// Visible is what the origin had at the replica's stamp, if that is of the life that lives, and else nothing. The
/// entries of these tests are not all readable, so they are counted.
fn only_the_living_are_visible(
    registry: &Registry,
    origin: &Origin,
    live: Option<Generation>,
) -> Result<(), TestCaseError> {
    let expected = match (registry.store().stamp(&origin.id()), live) {
        (Some(stamp), Some(live)) if stamp.generation == live => origin.history[&stamp].len(),
        _ => 0,
    };
    let visible = registry.directory().unreadable() + registry.directory().of(&origin.id()).count();
    prop_assert_eq!(visible, expected);
    Ok(())
}

fn exchange(daemons: &mut [Origin], a: usize, b: usize, budget: usize) {
    let [a, b] = daemons.get_disjoint_mut([a, b]).unwrap();
    for _ in 0..2 {
        let of_b: Vec<_> = b.store.iter().map(|(id, _)| id).collect();
        for id in of_b {
            pull(&mut a.store, &b.store, id, budget);
        }
        std::mem::swap(a, b);
    }
}

fn fingerprint(store: &Store) -> String {
    let all = store.iter().map(|(id, content)| pmd_core::id::fingerprint_of(&id, &content.stamp()));
    all.fold(pmd_core::id::Digest::EMPTY, |sum, share| sum.plus(share)).to_string()
}

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
            replica.apply(Source(0), snapshot.clone()).unwrap().fork,
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
        assert_eq!(replica.apply(Source(1), part.clone()).unwrap().outcome, Outcome::Staged);
        assert!(replica.content(&origin.id()).is_none());
    }
    replica.drop_source(Source(1));
    let last = cut.last().unwrap().clone();
    assert!(matches!(replica.apply(Source(1), last).unwrap().outcome, Outcome::Missing(_)));
    assert!(replica.content(&origin.id()).is_none());
}

#[test]
fn a_transfer_cannot_grow_beyond_its_limit() {
    let origin = Origin::play(&(0..6).map(|number| Act::Put(number, 3)).collect::<Vec<_>>(), 4);
    let mut small = tuning(4);
    small.staged_bytes = 300;
    let mut replica = Store::new(node(9), life(0), small);
    let results: Vec<_> = parts(origin.id(), origin.content(), None, 300)
        .into_iter()
        .map(|part| replica.apply(Source(1), part).is_err())
        .collect();
    assert!(results.contains(&true));
    assert!(replica.content(&origin.id()).is_none());
}

#[test]
fn lies_are_refused() {
    let origin = Origin::play(&[Act::Put(1, 1), Act::Put(2, 2)], 4);
    let [honest] = &parts(origin.id(), origin.content(), None, usize::MAX)[..] else { unreachable!() };
    let refused = |update: Update| {
        let mut replica = replica(0, 4);
        let result = replica.apply(Source(1), update);
        assert!(result.is_err(), "{result:?}");
        assert!(replica.content(&origin.id()).is_none());
    };
    let stamp = honest.stamp;
    let with = |stamp: Stamp, base, ops: Vec<(Version, Op)>| Update { stamp, base, ops, ..honest.clone() };
    let ops = honest.ops.clone();
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

fn put(registry: &mut Registry, entry: &Entry) {
    let (key, value) = entry.write().unwrap();
    registry.put(key, value);
}

fn bring(to: &mut Registry, from: &Registry, origin: NodeId) {
    if let Some(mut transfer) = from.transfer(&origin, to.store().stamp(&origin)) {
        while let Some(part) = transfer.next_part(1000) {
            to.apply(Source(0), part, 0).unwrap();
        }
    }
}

#[test]
fn local_comes_first_then_the_unsuspected_then_the_nearest_then_the_lowest_id() {
    use pmd_core::membership::Liveness::{Alive, Suspect};
    let mut here = Registry::new(node(50), life(0), tuning(4));
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
        let mut there = Registry::new(node(number), life(7), tuning(4));
        put(&mut there, &service("db", u16::from(number)));
        bring(&mut here, &there, node(number));
        here.member_up(node(number), life(7), Rank { liveness, rtt_us }, 0);
    }
    let ports: Vec<_> = here
        .directory()
        .look_up(Kind::SERVICE, b"db")
        .iter()
        .filter_map(|found| found.entry.port())
        .collect();
    assert_eq!(ports, [50, 4, 5, 3, 2, 1, 6]);
}

#[test]
fn dead_content_is_hidden_at_once_and_dropped_later() {
    let mut here = Registry::new(node(50), life(0), tuning(4));
    let mut there = Registry::new(node(1), life(7), tuning(4));
    put(&mut there, &service("db", 1));
    bring(&mut here, &there, node(1));
    let found = |here: &Registry| here.directory().look_up(Kind::SERVICE, b"db").len();
    assert_eq!(found(&here), 0, "visible before membership knows it");
    assert!(here.member_up(node(1), life(7), Rank::default(), 10).is_some());
    assert_eq!(found(&here), 1);
    assert_eq!(here.fingerprint(), {
        there.member_up(node(50), life(0), Rank::default(), 10);
        there.fingerprint()
    });
    assert!(here.member_down(node(1), 1_000).is_some());
    assert_eq!(found(&here), 0);
    assert_eq!(here.fingerprint(), Registry::new(node(50), life(0), tuning(4)).fingerprint());
    let keep = tuning(4).keep_dead_ms;
    assert_eq!(here.next_expiry(), Some(1_000 + keep));
    assert_eq!(here.expire(999 + keep), 0);
    assert!(here.store().content(&node(1)).is_some());
    assert_eq!(here.expire(1_000 + keep), 1);
    assert!(here.store().content(&node(1)).is_none());
    assert_eq!(here.next_expiry(), None);
}

#[test]
fn the_dead_are_bounded_in_number() {
    let mut few = tuning(4);
    few.max_dead = 3;
    let mut here = Registry::new(node(50), life(0), few);
    for number in 1..=8 {
        let there = Registry::new(node(number), life(7), few);
        bring(&mut here, &there, node(number));
        if let Some(when) = here.next_expiry().filter(|when| *when <= 1) {
            here.expire(when);
        }
    }
    assert_eq!(here.store().iter().count(), 4);
}

#[test]
fn an_unreadable_entry_is_replicated_and_left_out() {
    let mut here = Registry::new(node(50), life(0), tuning(4));
    let mut there = Registry::new(node(1), life(7), tuning(4));
    put(&mut there, &service("db", 1));
    there.put(key(9), value(0));
    here.member_up(node(1), life(7), Rank::default(), 0);
    bring(&mut here, &there, node(1));
    assert_eq!(here.directory().unreadable(), 1);
    assert_eq!(here.directory().look_up(Kind::SERVICE, b"db").len(), 1);
    assert_eq!(here.store().stamp(&node(1)), there.store().stamp(&node(1)));
}
