//! The laws of the replicated registry, one test for each.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;

use pmd_core::id::Generation;
use pmd_core::replica::Replica;
use pmd_core::replica::content::Content;
use pmd_core::replica::store::{Effect, OwnClaim, Source, Store};
use pmd_core::replica::view::Rank;
use pmd_protocol::peer::{Key, Update};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::Index;

use support::{
    Act, Origin, act, acts_of_one_generation, generation, node, parts, pull, replica, same, tuning,
};

/// An update in flight: the content it was made from, the stamp it was made for, and how it is split.
#[derive(Clone, Debug)]
struct Sent {
    from: usize,
    made_for: Option<usize>,
    budget: usize,
    part: Index,
    source: u64,
}

/// An update that was sent and is delivered at arbitrary times, which covers everything a network can do to transfers.
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

/// Any number of updates in flight.
fn traffic() -> impl Strategy<Value = Vec<Sent>> {
    vec(sent(), 0..24)
}

fn contents() -> impl Strategy<Value = Vec<Arc<Content>>> {
    // All histories share one identity and generation, so that some of them are forks of others.
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
        prop_assert!(truth.is_some(), "stamp that never existed: {:?}", content.stamp());
        prop_assert!(
            truth.is_some_and(|truth| same(truth, content)),
            "different content at {:?}",
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

    /// The result of a transfer is the join, whatever was lost, duplicated, reordered, split differently or forgotten
    /// before.
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
            let _ = replica.apply(source, update, |_| true).unwrap();
        }
        let sender = origin.at(from);
        let join = match replica.content(&origin.id()) {
            Some(have) => joined(have, sender),
            None => Content::clone(sender),
        };
        let holder = Store::with_own(origin.id(), Arc::clone(sender), tuning(windows.0));
        let log = pull(&mut replica, &holder, origin.id(), budget);
        prop_assert!(same(replica.content(&origin.id()).unwrap(), &join));
        prop_assert!(log.iter().all(|applied| !applied.fork && !applied.doubt));
    }

    /// The result of a transfer between replicas is the join as well, although their tombstones have different gaps.
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
            let applied = replica.apply(source, update, |_| true).unwrap();
            let after = replica.stamp(&origin.id());
            prop_assert!(after >= before);
            let moved = matches!(applied.effect, Effect::Applied { .. });
            prop_assert_eq!(moved, after > before);
        }
    }

    #[test]
    fn content_is_function_of_gen_ver(acts in vec(act(), 0..40), window in 0..5_usize, traffic in traffic()) {
        let origin = Origin::play(&acts, window);
        let mut replica = replica(0, window);
        for (source, update) in traffic.iter().filter_map(|sent| update(&origin, sent)) {
            let applied = replica.apply(source, update, |_| true).unwrap();
            prop_assert!(!applied.fork);
            truth_holds(&replica, &origin)?;
        }
    }

    /// No update changes a daemon's own entries, and no operation of a daemon changes the entries of others.
    #[test]
    fn only_origin_writes(acts in vec(act(), 0..30), others in vec(act(), 0..30), traffic in traffic()) {
        let mut me = Origin::play(&acts, 4);
        let other_me = Origin::play(&others, 4);
        let own = Arc::clone(me.content());
        for (source, update) in traffic.iter().filter_map(|sent| update(&other_me, sent)) {
            let (claim, have) = (update.stamp, own.stamp());
            let applied = me.store.apply(source, update, |_| true).unwrap();
            prop_assert!(same(me.content(), &own));
            let expected = if claim.generation > have.generation {
                OwnClaim::LaterGeneration
            } else if claim.generation == have.generation && claim.version > have.version || claim.contradicts(&have) {
                OwnClaim::Ahead
            } else {
                OwnClaim::Old
            };
            prop_assert_eq!(applied.effect, Effect::Own(expected));
        }
        let mut third = Origin::new(node(2), 4);
        pull(&mut third.store, &me.store, me.id(), usize::MAX);
        for act in others.iter().filter(|act| !matches!(act, Act::Restart)) {
            third.act(act);
            prop_assert!(same(third.store.content(&me.id()).unwrap(), &own));
        }
    }

    /// Deleted entries and entries of earlier generations do not reappear, whatever outdated updates arrive.
    #[test]
    fn no_resurrection(
        acts in vec(act(), 0..40),
        window in 0..5_usize,
        traffic in vec((sent(), any::<bool>(), 0..64_usize), 0..24),
    ) {
        let origin = Origin::play(&acts, window);
        let mut replica = Replica::new(node(100), generation(0), tuning(window));
        let (mut latest, mut live) = (None, None);
        for (now, (sent, is_live, moment)) in (0_u64..).zip(&traffic) {
            if let Some((source, update)) = update(&origin, sent) {
                replica.apply(source, update, now, |_| true).unwrap();
            }
            let stamp = replica.store().stamp(&origin.id());
            prop_assert!(stamp >= latest, "the version went backwards");
            latest = stamp;
            only_live_generations_are_visible(&replica, &origin, live)?;
            // The membership may know an earlier or a later generation, or consider the member dead.
            live = is_live.then(|| origin.at(*moment).stamp().generation);
            match live {
                Some(generation) => replica.member_up(origin.id(), generation, Rank::default(), now),
                None => replica.member_down(origin.id(), now),
            };
            only_live_generations_are_visible(&replica, &origin, live)?;
        }
    }

    #[test]
    fn restart_wipes(acts in vec(act(), 0..40), after in acts_of_one_generation(12), traffic in traffic()) {
        let mut origin = Origin::play(&acts, 3);
        let mut replica = replica(0, 3);
        let old = traffic.iter().filter_map(|sent| update(&origin, sent)).collect::<Vec<_>>();
        for (source, update) in &old {
            replica.apply(*source, update.clone(), |_| true).unwrap();
        }
        origin.act(&Act::Restart);
        for act in &after {
            origin.act(act);
        }
        pull(&mut replica, &origin.store, origin.id(), 200);
        prop_assert!(same(replica.content(&origin.id()).unwrap(), origin.content()));
        for (source, update) in old {
            prop_assert_eq!(replica.apply(source, update, |_| true).unwrap().effect, Effect::Known);
            prop_assert!(same(replica.content(&origin.id()).unwrap(), origin.content()));
        }
    }

    /// Whatever was exchanged before, all daemons have the same registry once each has exchanged with all others.
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
                    // The store starts empty and must learn about the others again.
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
            replica.apply(source, update, |_| true).unwrap();
            prop_assert!(replica.content(&writer.id()).is_none_or(|content| content.tombstones() <= other));
        }
    }

    /// Two daemons write under one identity. Their contents are never mixed, a replica or one of them notices, and all
    /// replicas agree on one of the two.
    #[test]
    fn fork_detected(
        common in acts_of_one_generation(10),
        (left, right) in (acts_of_one_generation(10), acts_of_one_generation(10)),
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
                "a mixture of both"
            );
            // The writer once had this version. If its entries were different then, the fork is detectable unless all
            // of them have been overwritten since.
            if let Some(have) = have
                && let Some(then) = clones[usize::from(which)].at_version(have.stamp().version)
                && then.stamp().version < content.stamp().version
            {
                let since: BTreeSet<_> =
                    content.ops_after(then.stamp().version).map(|(_, op)| op.key().clone()).collect();
                let differs = |(key, _): (&Arc<Key>, _)| !since.contains(&**key) && have.get(key) != then.get(key);
                if have.iter().any(differs) || then.iter().any(differs) {
                    prop_assert!(log.iter().any(|applied| applied.fork || applied.doubt), "the fork was not noticed");
                }
            }
        }
        // At least one of the two notices when it receives an update from the other.
        if !same(clones[0].content(), clones[1].content()) {
            let ahead = clones.iter().zip(clones.iter().rev()).filter(|(one, other)| {
                let mut hears = Store::with_own(id, Arc::clone(one.content()), tuning(window));
                let [update] = &parts(id, other.content(), None, usize::MAX)[..] else { unreachable!() };
                let heard = hears.apply(Source(0), update.clone(), |_| true).unwrap();
                heard.effect == Effect::Own(OwnClaim::Ahead)
            });
            prop_assert!(ahead.count() > 0, "neither of the two noticed");
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

/// Checks that an origin's entries are visible if and only if the replica has those of the live generation. Some
/// entries in these tests are unreadable, so entries are counted.
fn only_live_generations_are_visible(
    replica: &Replica,
    origin: &Origin,
    live: Option<Generation>,
) -> Result<(), TestCaseError> {
    let expected = match (replica.store().stamp(&origin.id()), live) {
        (Some(stamp), Some(live)) if stamp.generation == live => origin.history[&stamp].len(),
        _ => 0,
    };
    let visible = replica.view().unreadable() + replica.view().of(&origin.id()).count();
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
    all.fold(pmd_core::id::Digest::EMPTY, |sum, digest| sum.plus(digest)).to_string()
}
