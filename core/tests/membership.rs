//! The member table: records merge to the same table in any order, suspects can refute, and dead members stay dead
//! unless they revive themselves.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

use pmd_core::attest::id_of;
use pmd_core::facts::Unshared;
use pmd_core::id::{Generation, NodeId};
use pmd_core::membership::event::MembershipEvent;
use pmd_core::membership::judge::Judge;
use pmd_core::membership::record::{Record, RecordError, Standing, State, encode};
use pmd_core::membership::table::MemberTable;
use pmd_core::membership::{Identity, Liveness};
use pmd_core::tuning::MembershipTuning;
use pmd_protocol::peer::PublicKey;
use proptest::collection::vec;
use proptest::prelude::*;

const TUNING: MembershipTuning = MembershipTuning::DEFAULT;

fn identity(number: u8, boot_ms: u64) -> Identity {
    let generation = Generation { boot_ms, nonce: number.into() };
    Identity::new(id(number), generation, &[([10, 0, 0, number], 4369).into()])
}

fn key(number: u8) -> PublicKey {
    PublicKey::new(&[number; 32]).unwrap()
}

fn id(number: u8) -> NodeId {
    id_of(&key(number))
}

fn table(number: u8) -> MemberTable {
    MemberTable::new(identity(number, 1_000), key(number), TUNING, Unshared)
}

/// Merges records as if a peer had sent them, and returns the events.
fn hear(table: &mut MemberTable, now: u64, records: &[Record]) -> Vec<MembershipEvent> {
    let (bytes, count) = encode(records, usize::MAX);
    assert_eq!(count, records.len());
    table.merge(now, &bytes, &CREDULOUS).unwrap();
    events(table)
}

/// A judge that takes every statement for genuine and hears nobody itself.
type AnyJudge = Judge<fn(&Record) -> bool, fn(&NodeId) -> bool>;

const CREDULOUS: AnyJudge =
    Judge { is_genuine: |_| true, is_heard: |_| false, introducer: Some(NodeId::MIN), latest_ms: 10_000 };

fn events(table: &mut MemberTable) -> Vec<MembershipEvent> {
    std::iter::from_fn(|| table.poll_event()).collect()
}

fn record(number: u8, renewal: u32, incarnation: u32, state: State) -> Record {
    let identity = Identity { renewal, ..identity(number, 1_000) };
    Record { incarnation, state, ..Record::alive(identity, key(number)) }
}

#[test]
fn a_member_that_has_moved_is_known_at_its_new_address() {
    let (mut mover, mut other) = (table(1), table(2));
    hear(&mut other, 0, &[record(1, 0, 0, State::Alive)]);
    let place = ([10, 9, 9, 9], 4369).into();
    assert!(mover.advertise(&[place, ([0, 0, 0, 0], 4369).into()]));
    assert!(!mover.advertise(&[place]));
    hear(&mut other, 1, &[Record::alive(mover.identity().clone(), key(1))]);
    let (identity, liveness) = other.member(&id(1)).unwrap();
    assert_eq!((identity.addresses.as_slice(), liveness), ([place].as_slice(), Liveness::Alive));
    // Records with the old address no longer count.
    hear(&mut other, 2, &[record(1, 0, 0, State::Down)]);
    assert!(other.member(&id(1)).is_some());
}

fn any_record() -> impl Strategy<Value = Record> {
    let state = prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Down)];
    (1..5_u8, 1_000..1_003_u64, 0..3_u32, 0..3_u32, state).prop_map(
        |(number, boot, renewal, incarnation, state)| Record {
            incarnation,
            state,
            ..Record::alive(Identity { renewal, ..identity(number, boot) }, key(number))
        },
    )
}

/// The standings in a table.
fn standings(table: &MemberTable) -> Vec<Standing> {
    (1..5).filter_map(|number| table.record(&id(number))).map(Record::standing).collect()
}

proptest! {
    /// The table is a join of what members say about themselves: order and repetition do not matter, and the latest
    /// statement of each member wins. What others say leads to the same end once nobody has refuted it in time.
    #[test]
    fn any_order_leads_to_one_table(records in vec(any_record(), 0..30), order in vec(any::<prop::sample::Index>(), 0..60)) {
        let (mut one, mut other) = (table(9), table(9));
        hear(&mut one, 0, &records);
        for at in order.iter().filter(|_| !records.is_empty()) {
            hear(&mut other, 0, std::slice::from_ref(at.get(&records)));
        }
        for record in records.iter().rev() {
            hear(&mut other, 0, std::slice::from_ref(record));
        }
        let statements = |table: &MemberTable| -> Vec<_> {
            (1..5).filter_map(|number| table.record(&id(number))).map(Record::statement_order).collect()
        };
        prop_assert_eq!(statements(&one), statements(&other));
        for number in 1..5 {
            let of = records.iter().filter(|record| record.identity.id == id(number));
            let latest = of.map(Record::statement_order).max();
            prop_assert_eq!(one.record(&id(number)).map(Record::statement_order), latest);
        }
        for table in [&mut one, &mut other] {
            prop_assert_eq!(table.len(), table.members().count());
            table.handle_timeout(60_000, 0);
        }
        prop_assert_eq!(standings(&one), standings(&other));
    }

    /// A reader that follows the events knows all members.
    #[test]
    fn events_report_every_change(records in vec(any_record(), 0..30)) {
        let mut table = table(9);
        let mut followed = std::collections::BTreeMap::new();
        for record in &records {
            for event in hear(&mut table, 0, std::slice::from_ref(record)) {
                match event {
                    MembershipEvent::Up { identity, liveness, .. } => drop(followed.insert(identity.id, (identity, liveness))),
                    MembershipEvent::Down { identity } => prop_assert!(followed.remove(&identity.id).is_some()),
                    MembershipEvent::News { id } => prop_assert_eq!(id, record.identity.id),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            let members: Vec<_> = table.members().map(|(identity, liveness)| (identity.clone(), liveness)).collect();
            prop_assert_eq!(followed.values().cloned().collect::<Vec<_>>(), members);
        }
    }

    /// Whatever others say about a daemon, it considers itself alive and has the greatest record of itself, unless
    /// there is a later generation.
    #[test]
    fn a_suspect_has_the_last_word(records in vec(any_record(), 0..20)) {
        let mut suspect = table(1);
        for record in &records {
            hear(&mut suspect, 0, std::slice::from_ref(record));
            let own = suspect.record(&id(1)).unwrap();
            prop_assert!(own.is_live());
            prop_assert!(
                record.identity.id != id(1)
                    || record.identity.generation > own.identity.generation
                    || record.standing() <= own.standing()
            );
        }
    }

    #[test]
    fn any_bytes_are_harmless(bytes in vec(any::<u8>(), 0..200), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut table = table(9);
        let _ = table.merge(0, &bytes, &CREDULOUS);
        let (mut damaged, _) = encode(&[record(1, 0, 0, State::Alive), record(2, 1, 1, State::Down)], usize::MAX);
        for (at, with) in flips {
            *at.get_mut(&mut damaged) ^= with;
        }
        let _ = table.merge(0, &damaged, &CREDULOUS);
        prop_assert_eq!(table.len(), table.members().count());
    }
}

#[test]
fn a_suspect_is_dead_unless_it_refutes_in_time() {
    for refutes in [false, true] {
        let mut table = table(9);
        hear(&mut table, 0, &[record(1, 0, 0, State::Alive)]);
        let generation = identity(1, 1_000).generation;
        assert!(table.suspect(100, &id(1), generation, 300));
        assert!(!table.suspect(100, &id(1), generation, 300), "once");
        let told = events(&mut table);
        let before = Some((generation, Liveness::Alive));
        let suspected =
            MembershipEvent::Up { identity: identity(1, 1_000), liveness: Liveness::Suspect, before };
        assert!(told.contains(&suspected));
        assert_eq!(table.poll_timeout(), Some(400));
        if refutes {
            let mut suspect = self::table(1);
            let answer = hear(&mut suspect, 0, &[table.record(&id(1)).unwrap().clone()]);
            assert_eq!(answer, [MembershipEvent::News { id: id(1) }, MembershipEvent::Refuted]);
            hear(&mut table, 399, &[suspect.record(&id(1)).unwrap().clone()]);
        }
        table.handle_timeout(400, 0);
        assert_eq!(table.member(&id(1)).is_some(), refutes);
        assert_eq!(
            events(&mut table).contains(&MembershipEvent::Down { identity: identity(1, 1_000) }),
            !refutes
        );
    }
}

#[test]
fn a_confirmed_suspicion_takes_less_time() {
    let mut table = table(9);
    hear(&mut table, 0, &[record(1, 0, 0, State::Alive)]);
    let generation = identity(1, 1_000).generation;
    table.suspect(0, &id(1), generation, table.suspicion_ms());
    assert_eq!(table.poll_timeout(), Some(4_000));
    table.suspect(500, &id(1), generation, 300);
    assert_eq!(table.poll_timeout(), Some(800));
    table.suspect(600, &id(1), generation, 300);
    assert_eq!(table.poll_timeout(), Some(800), "and it never takes longer");
}

/// Evidence about an earlier generation or an unknown member does not lead to a suspicion.
#[test]
fn old_evidence_is_ignored() {
    let mut table = table(9);
    hear(&mut table, 0, &[record(1, 0, 0, State::Alive)]);
    assert!(!table.suspect(0, &id(1), identity(1, 999).generation, 300));
    assert!(!table.suspect(0, &id(2), identity(2, 1_000).generation, 300));
    assert_eq!(table.poll_timeout(), None);
}

/// The refutation may be waiting to be read.
#[test]
fn time_in_which_this_daemon_was_not_running_does_not_count() {
    let mut table = table(9);
    hear(&mut table, 0, &[record(1, 0, 0, State::Alive)]);
    table.suspect(0, &id(1), identity(1, 1_000).generation, 300);
    table.handle_timeout(30_000, 29_900);
    assert!(table.member(&id(1)).is_some());
    assert_eq!(table.poll_timeout(), Some(30_200));
    table.handle_timeout(30_200, 0);
    assert!(table.member(&id(1)).is_none());
}

#[test]
fn a_member_that_was_declared_dead_comes_back_renewed_in_the_same_generation() {
    let mut suspect = table(1);
    let told = hear(&mut suspect, 0, &[record(1, 0, 0, State::Down)]);
    let renewed = Identity { renewal: 1, ..identity(1, 1_000) };
    assert_eq!(
        told,
        [MembershipEvent::Renewed { identity: renewed.clone() }, MembershipEvent::News { id: id(1) }]
    );
    let mut other = table(2);
    hear(&mut other, 0, &[record(1, 0, 7, State::Down)]);
    assert_eq!(other.len(), 0);
    hear(&mut other, 0, &[record(1, 0, 6, State::Alive)]);
    assert_eq!(other.len(), 0, "an earlier statement does not revive a dead member");
    hear(&mut other, 0, &[suspect.record(&id(1)).unwrap().clone()]);
    assert_eq!(other.member(&id(1)), Some((&renewed, Liveness::Alive)));
    // It does not remember its earlier renewals, as after being restored from a memory image.
    let mut restored = table(1);
    hear(&mut restored, 0, &[record(1, 5, 0, State::Alive)]);
    assert_eq!(restored.identity().renewal, 6);
}

#[test]
fn a_later_generation_replaces_the_earlier_one_at_once() {
    let mut table = table(9);
    hear(&mut table, 0, &[record(1, 3, 3, State::Alive)]);
    hear(&mut table, 0, &[Record::alive(identity(1, 2_000), key(1))]);
    assert_eq!(table.member(&id(1)).unwrap().0.generation.boot_ms, 2_000);
    hear(&mut table, 0, &[record(1, 3, 3, State::Down), record(1, 4, 0, State::Alive)]);
    assert_eq!(
        table.member(&id(1)).unwrap().0.generation.boot_ms,
        2_000,
        "the end of the old generation is not reported"
    );
    assert_eq!(table.len(), 1);
}

#[test]
fn a_later_generation_of_its_own_identity_is_reported_and_not_adopted() {
    let mut table = table(1);
    let told = hear(&mut table, 0, &[Record::alive(identity(1, 2_000), key(1))]);
    assert_eq!(told, [MembershipEvent::LaterGeneration { identity: identity(1, 2_000) }]);
    assert_eq!(*table.identity(), identity(1, 1_000));
    let generation = identity(1, 2_000).generation.renewed(0, 7);
    table.begin_generation(generation);
    assert_eq!(table.identity().generation, generation);
    assert_eq!(events(&mut table), [MembershipEvent::News { id: id(1) }]);
}

#[test]
fn a_daemon_that_leaves_is_dead_and_does_not_refute_it() {
    let mut table = table(1);
    table.leave();
    assert_eq!(events(&mut table), [MembershipEvent::News { id: id(1) }]);
    let last = table.record(&id(1)).unwrap().clone();
    assert!(!last.is_live());
    hear(&mut table, 0, &[last]);
    table.renew();
    assert!(!table.record(&id(1)).unwrap().is_live());
}

#[test]
fn the_dead_are_forgotten_eventually() {
    let mut table = table(9);
    table.reach(id(1));
    hear(&mut table, 5, &[record(1, 0, 0, State::Down), record(2, 0, 0, State::Alive)]);
    hear(&mut table, 9, &[record(2, 0, 0, State::Down), record(2, 1, 0, State::Alive)]);
    let end = 5 + TUNING.remember_down_ms;
    assert_eq!(table.poll_timeout(), Some(end));
    table.handle_timeout(end - 1, 0);
    assert!(table.record(&id(1)).is_some());
    table.handle_timeout(end, 0);
    assert!(table.record(&id(1)).is_none());
    assert_eq!((table.len(), table.poll_timeout()), (1, None));
}

#[test]
fn addresses_that_nobody_can_dial_are_not_advertised() {
    let addresses =
        ["0.0.0.0:4369", "[::]:4369", "10.0.0.1:0", "10.0.0.1:4369"].map(|text| text.parse().unwrap());
    let identity = Identity::new(NodeId::new([1; 32]), Generation::default(), &addresses);
    assert_eq!(identity.addresses, ["10.0.0.1:4369".parse().unwrap()]);
}

/// One daemon cannot remove another by its word.
#[test]
fn a_member_that_somebody_calls_dead_is_suspected_and_may_refute() {
    for refutes in [false, true] {
        let mut table = table(9);
        hear(&mut table, 0, &[record(1, 0, 0, State::Alive)]);
        hear(&mut table, 100, &[record(1, 0, 0, State::Down)]);
        assert_eq!(table.member(&id(1)).unwrap().1, Liveness::Suspect);
        assert_eq!(table.poll_timeout(), Some(100 + TUNING.refute_wait_ms));
        if refutes {
            hear(&mut table, 150, &[record(1, 1, 0, State::Alive)]);
        }
        table.handle_timeout(100 + TUNING.refute_wait_ms, 0);
        assert_eq!(table.member(&id(1)).is_some(), refutes);
    }
}

/// The time in which a member could have refuted a suspicion counts, so that the news of its death spread at once.
#[test]
fn a_suspect_that_somebody_calls_dead_gets_no_second_chance() {
    let mut table = table(9);
    hear(&mut table, 0, &[record(1, 0, 0, State::Suspect)]);
    let late = TUNING.refute_wait_ms + 50;
    hear(&mut table, late, &[record(1, 0, 0, State::Down)]);
    assert_eq!(table.poll_timeout(), Some(late));
    table.handle_timeout(late, 0);
    assert!(table.member(&id(1)).is_none());
}

#[test]
fn a_member_that_is_heard_is_not_suspected_on_hearsay() {
    let judge = Judge {
        is_genuine: |_: &Record| true,
        is_heard: |of: &NodeId| *of == id(1),
        introducer: Some(NodeId::MIN),
        latest_ms: 10_000,
    };
    for state in [State::Suspect, State::Down] {
        let mut table = table(9);
        let both = [record(1, 0, 0, State::Alive), record(2, 0, 0, State::Alive)];
        hear(&mut table, 0, &both);
        let (bytes, _) = encode(&[record(1, 0, 0, state), record(2, 0, 0, state)], usize::MAX);
        let merged = table.merge(0, &bytes, &judge).unwrap();
        assert_eq!(table.member(&id(1)).unwrap().1, Liveness::Alive);
        assert_eq!(table.member(&id(2)).unwrap().1, Liveness::Suspect);
        // The accused is told.
        assert_eq!(merged.refuted.iter().map(|record| record.identity.id).collect::<Vec<_>>(), [id(1)]);
    }
}

/// Only the member itself can raise its counters, change its addresses or leave.
#[test]
fn a_statement_that_its_member_has_not_signed_is_an_error_and_changes_nothing() {
    let judge = Judge {
        is_genuine: |_: &Record| false,
        is_heard: |_: &NodeId| false,
        introducer: Some(NodeId::MIN),
        latest_ms: 10_000,
    };
    let mut later = record(1, 0, 0, State::Alive);
    later.identity.generation.boot_ms = 2_000;
    for forged in [
        record(1, u32::MAX, 0, State::Alive),
        record(1, 0, 7, State::Alive),
        record(1, 0, 7, State::Down),
        record(1, 0, 0, State::Left),
        record(2, 0, 0, State::Alive),
        later,
    ] {
        let mut table = table(9);
        hear(&mut table, 0, &[record(1, 0, 0, State::Alive)]);
        let (bytes, _) = encode([&forged], usize::MAX);
        let result = table.merge(0, &bytes, &judge);
        assert_eq!(result.unwrap_err(), RecordError::Forged(forged.identity.id));
        assert_eq!(
            (table.len(), table.record(&id(1)).unwrap().standing()),
            (1, record(1, 0, 0, State::Alive).standing())
        );
        assert_eq!(events(&mut table), []);
    }
    // Other addresses in a statement that is known are ignored.
    let mut table = table(9);
    hear(&mut table, 0, &[record(1, 0, 0, State::Alive)]);
    let mut moved = record(1, 0, 0, State::Suspect);
    moved.identity.addresses = vec![([6, 6, 6, 6], 4369).into()];
    hear(&mut table, 0, &[moved]);
    assert_eq!(table.member(&id(1)).unwrap().0.addresses, identity(1, 1_000).addresses);
}

#[test]
fn a_generation_from_the_future_is_ignored() {
    let mut table = table(9);
    let (bytes, _) = encode(&[Record::alive(identity(1, 10_001), key(1))], usize::MAX);
    assert_eq!(table.merge(0, &bytes, &CREDULOUS).unwrap().future, [id(1)]);
    assert_eq!(table.len(), 0);
}
