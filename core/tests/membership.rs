//! The table of members: joined in any order it is the same, the accused can object, the dead stay dead, and only the
//! member itself comes back.

#![allow(clippy::unwrap_used, reason = "a broken law has to fail the test")]

use pmd_core::facts::Unshared;
use pmd_core::id::{Generation, NodeId};
use pmd_core::membership::record::{Record, Standing, State, pack};
use pmd_core::membership::table::{Output, Swim};
use pmd_core::membership::{Identity, Liveness};
use pmd_core::tuning::MembershipTuning;
use proptest::collection::vec;
use proptest::prelude::*;

const TUNING: MembershipTuning = MembershipTuning::DEFAULT;

fn identity(number: u8, boot_ms: u64) -> Identity {
    let generation = Generation { boot_ms, nonce: number.into() };
    Identity::new(NodeId::new([number; 32]), generation, &[([10, 0, 0, number], 4369).into()])
}

fn id(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

fn swim(number: u8) -> Swim {
    Swim::new(identity(number, 1_000), TUNING, Unshared)
}

/// What one says, another hears.
fn hear(swim: &mut Swim, now: u64, records: &[Record]) -> Vec<Output> {
    let (packet, count) = pack(records, usize::MAX);
    assert_eq!(count, records.len());
    swim.handle_packet(now, &packet).unwrap();
    outputs(swim)
}

fn outputs(swim: &mut Swim) -> Vec<Output> {
    std::iter::from_fn(|| swim.poll_output()).collect()
}

fn record(number: u8, renewal: u32, incarnation: u32, state: State) -> Record {
    Record { identity: Identity { renewal, ..identity(number, 1_000) }, incarnation, state }
}

#[test]
fn who_has_moved_is_known_at_its_new_place() {
    let (mut mover, mut other) = (swim(1), swim(2));
    hear(&mut other, 0, &[record(1, 0, 0, State::Alive)]);
    let place = ([10, 9, 9, 9], 4369).into();
    assert!(mover.advertise(&[place, ([0, 0, 0, 0], 4369).into()]));
    assert!(!mover.advertise(&[place]));
    hear(&mut other, 1, &[Record::alive(mover.identity().clone())]);
    let (identity, liveness) = other.member(&id(1)).unwrap();
    assert_eq!((identity.addresses.as_slice(), liveness), ([place].as_slice(), Liveness::Alive));
    // What was said of the old place does not count any more.
    hear(&mut other, 2, &[record(1, 0, 0, State::Down)]);
    assert!(other.member(&id(1)).is_some());
}

fn any_record() -> impl Strategy<Value = Record> {
    let state = prop_oneof![Just(State::Alive), Just(State::Suspect), Just(State::Down)];
    (1..5_u8, 1_000..1_003_u64, 0..3_u32, 0..3_u32, state).prop_map(
        |(number, boot, renewal, incarnation, state)| Record {
            identity: Identity { renewal, ..identity(number, boot) },
            incarnation,
            state,
        },
    )
}

/// How often the dead objected before they died is nobody's business.
fn table(swim: &Swim) -> Vec<Standing> {
    (1..5).filter_map(|number| swim.record(&id(number))).map(Record::standing).collect()
}

proptest! {
    /// The table is a join: order and repetition do not matter, and it holds the greatest of what was said.
    #[test]
    fn any_order_leads_to_one_table(records in vec(any_record(), 0..30), order in vec(any::<prop::sample::Index>(), 0..60)) {
        let (mut one, mut other) = (swim(9), swim(9));
        hear(&mut one, 0, &records);
        for at in order.iter().filter(|_| !records.is_empty()) {
            hear(&mut other, 0, std::slice::from_ref(at.get(&records)));
        }
        for record in records.iter().rev() {
            hear(&mut other, 0, std::slice::from_ref(record));
        }
        prop_assert_eq!(table(&one), table(&other));
        prop_assert_eq!(one.len(), one.members().count());
        for number in 1..5 {
            let greatest = records.iter().filter(|record| record.identity.id == id(number)).map(Record::standing).max();
            prop_assert_eq!(one.record(&id(number)).map(Record::standing), greatest);
        }
    }

    /// What is told is what is known: whoever follows the outputs has the members.
    #[test]
    fn outputs_tell_all_that_changes(records in vec(any_record(), 0..30)) {
        let mut swim = swim(9);
        let mut followed = std::collections::BTreeMap::new();
        for record in &records {
            for output in hear(&mut swim, 0, std::slice::from_ref(record)) {
                match output {
                    Output::Up { identity, liveness, .. } => drop(followed.insert(identity.id, (identity, liveness))),
                    Output::Down { identity } => prop_assert!(followed.remove(&identity.id).is_some()),
                    Output::News { id } => prop_assert_eq!(swim.record(&id), Some(record)),
                    other => prop_assert!(false, "{:?}", other),
                }
            }
            let members: Vec<_> = swim.members().map(|(identity, liveness)| (identity.clone(), liveness)).collect();
            prop_assert_eq!(followed.values().cloned().collect::<Vec<_>>(), members);
        }
    }

    /// Whatever is said about a daemon, it stays alive for itself and has the last word, unless it has another life.
    #[test]
    fn the_accused_has_the_last_word(records in vec(any_record(), 0..20)) {
        let mut accused = swim(1);
        for record in &records {
            hear(&mut accused, 0, std::slice::from_ref(record));
            let own = accused.record(&id(1)).unwrap();
            prop_assert!(own.is_live());
            prop_assert!(
                record.identity.id != id(1)
                    || record.identity.generation > own.identity.generation
                    || record.standing() <= own.standing()
            );
        }
    }

    #[test]
    fn any_packet_is_harmless(packet in vec(any::<u8>(), 0..200), flips in vec((any::<prop::sample::Index>(), any::<u8>()), 0..4)) {
        let mut swim = swim(9);
        let _ = swim.handle_packet(0, &packet);
        let (mut damaged, _) = pack(&[record(1, 0, 0, State::Alive), record(2, 1, 1, State::Down)], usize::MAX);
        for (at, with) in flips {
            *at.get_mut(&mut damaged) ^= with;
        }
        let _ = swim.handle_packet(0, &damaged);
        prop_assert_eq!(swim.len(), swim.members().count());
    }
}

#[test]
fn a_suspect_that_does_not_object_is_dead_and_one_that_does_is_not() {
    for objects in [false, true] {
        let mut swim = swim(9);
        hear(&mut swim, 0, &[record(1, 0, 0, State::Alive)]);
        let generation = identity(1, 1_000).generation;
        assert!(swim.suspect(100, &id(1), generation, 300));
        assert!(!swim.suspect(100, &id(1), generation, 300), "once");
        let told = outputs(&mut swim);
        let before = Some((generation, Liveness::Alive));
        let suspected = Output::Up { identity: identity(1, 1_000), liveness: Liveness::Suspect, before };
        assert!(told.contains(&suspected));
        assert_eq!(swim.poll_timeout(), Some(400));
        if objects {
            let mut accused = self::swim(1);
            let answer = hear(&mut accused, 0, &[swim.record(&id(1)).unwrap().clone()]);
            assert_eq!(answer, [Output::News { id: id(1) }]);
            hear(&mut swim, 399, &[accused.record(&id(1)).unwrap().clone()]);
        }
        swim.handle_timeout(400, 0);
        assert_eq!(swim.member(&id(1)).is_some(), objects);
        assert_eq!(outputs(&mut swim).contains(&Output::Down { identity: identity(1, 1_000) }), !objects);
    }
}

#[test]
fn a_confirmed_suspicion_takes_less_time() {
    let mut swim = swim(9);
    hear(&mut swim, 0, &[record(1, 0, 0, State::Alive)]);
    let generation = identity(1, 1_000).generation;
    swim.suspect(0, &id(1), generation, swim.suspicion_ms());
    assert_eq!(swim.poll_timeout(), Some(4_000));
    swim.suspect(500, &id(1), generation, 300);
    assert_eq!(swim.poll_timeout(), Some(800));
    swim.suspect(600, &id(1), generation, 300);
    assert_eq!(swim.poll_timeout(), Some(800), "and never more");
}

/// A clue about an earlier life, or about somebody who is not there, accuses nobody.
#[test]
fn old_evidence_is_void() {
    let mut swim = swim(9);
    hear(&mut swim, 0, &[record(1, 0, 0, State::Alive)]);
    assert!(!swim.suspect(0, &id(1), identity(1, 999).generation, 300));
    assert!(!swim.suspect(0, &id(2), identity(2, 1_000).generation, 300));
    assert_eq!(swim.poll_timeout(), None);
}

/// The objection may have waited here to be read.
#[test]
fn time_in_which_this_daemon_did_not_run_does_not_count() {
    let mut swim = swim(9);
    hear(&mut swim, 0, &[record(1, 0, 0, State::Alive)]);
    swim.suspect(0, &id(1), identity(1, 1_000).generation, 300);
    swim.handle_timeout(30_000, 29_900);
    assert!(swim.member(&id(1)).is_some());
    assert_eq!(swim.poll_timeout(), Some(30_200));
    swim.handle_timeout(30_200, 0);
    assert!(swim.member(&id(1)).is_none());
}

#[test]
fn who_was_declared_dead_comes_back_renewed_in_the_same_life() {
    let mut accused = swim(1);
    let told = hear(&mut accused, 0, &[record(1, 0, 7, State::Down)]);
    let renewed = Identity { renewal: 1, ..identity(1, 1_000) };
    assert_eq!(told, [Output::Renewed { identity: renewed.clone() }, Output::News { id: id(1) }]);
    let mut other = swim(2);
    hear(&mut other, 0, &[record(1, 0, 7, State::Down)]);
    assert_eq!(other.len(), 0);
    hear(&mut other, 0, &[record(1, 0, 9, State::Alive)]);
    assert_eq!(other.len(), 0, "no objection helps the dead");
    hear(&mut other, 0, &[accused.record(&id(1)).unwrap().clone()]);
    assert_eq!(other.member(&id(1)), Some((&renewed, Liveness::Alive)));
    // It has forgotten that it was renewed before: a memory image, perhaps.
    let mut restored = swim(1);
    hear(&mut restored, 0, &[record(1, 5, 0, State::Alive)]);
    assert_eq!(restored.identity().renewal, 6);
}

#[test]
fn a_later_life_takes_the_place_of_the_earlier_at_once() {
    let mut swim = swim(9);
    hear(&mut swim, 0, &[record(1, 3, 3, State::Alive)]);
    swim.meet(0, identity(1, 2_000));
    assert_eq!(swim.member(&id(1)).unwrap().0.generation.boot_ms, 2_000);
    hear(&mut swim, 0, &[record(1, 3, 3, State::Down), record(1, 4, 0, State::Alive)]);
    assert_eq!(swim.member(&id(1)).unwrap().0.generation.boot_ms, 2_000, "the old life's end is no news");
    assert_eq!(swim.len(), 1);
}

#[test]
fn another_daemon_with_this_identity_is_noticed_and_not_obeyed() {
    let mut swim = swim(1);
    let told = hear(&mut swim, 0, &[Record::alive(identity(1, 2_000))]);
    assert_eq!(told, [Output::LaterLife { identity: identity(1, 2_000) }]);
    assert_eq!(*swim.identity(), identity(1, 1_000));
    let life = identity(1, 2_000).generation.renewed(0, 7);
    swim.begin_life(life);
    assert_eq!(swim.identity().generation, life);
    assert_eq!(outputs(&mut swim), [Output::News { id: id(1) }]);
}

#[test]
fn who_leaves_is_dead_and_does_not_object() {
    let mut swim = swim(1);
    swim.leave();
    assert_eq!(outputs(&mut swim), [Output::News { id: id(1) }]);
    let farewell = swim.record(&id(1)).unwrap().clone();
    assert!(!farewell.is_live());
    hear(&mut swim, 0, &[farewell]);
    swim.renew();
    assert!(!swim.record(&id(1)).unwrap().is_live());
}

#[test]
fn the_dead_are_forgotten_in_the_end() {
    let mut swim = swim(9);
    hear(&mut swim, 5, &[record(1, 0, 0, State::Down), record(2, 0, 0, State::Alive)]);
    hear(&mut swim, 9, &[record(2, 0, 0, State::Down), record(2, 1, 0, State::Alive)]);
    let end = 5 + TUNING.remember_down_ms;
    assert_eq!(swim.poll_timeout(), Some(end));
    swim.handle_timeout(end - 1, 0);
    assert!(swim.record(&id(1)).is_some());
    swim.handle_timeout(end, 0);
    assert!(swim.record(&id(1)).is_none());
    assert_eq!((swim.len(), swim.poll_timeout()), (1, None));
}

#[test]
fn addresses_that_lead_nowhere_are_not_advertised() {
    let addresses =
        ["0.0.0.0:4369", "[::]:4369", "10.0.0.1:0", "10.0.0.1:4369"].map(|text| text.parse().unwrap());
    let identity = Identity::new(NodeId::new([1; 32]), Generation::default(), &addresses);
    assert_eq!(identity.addresses, ["10.0.0.1:4369".parse().unwrap()]);
}
