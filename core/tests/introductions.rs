//! Members that a peer introduces: only some at once, and those that a daemon has reached come first.

#![allow(clippy::unwrap_used, reason = "a violated property fails the test")]

use pmd_core::attest::id_of;
use pmd_core::facts::Unshared;
use pmd_core::id::{Generation, NodeId};
use pmd_core::membership::Identity;
use pmd_core::membership::event::MembershipEvent;
use pmd_core::membership::judge::{Judge, Merged};
use pmd_core::membership::record::{Record, State, encode};
use pmd_core::membership::table::MemberTable;
use pmd_core::tuning::MembershipTuning;
use pmd_protocol::peer::PublicKey;

/// A small table, and peers that may introduce few.
const TUNING: MembershipTuning = MembershipTuning {
    max_members: 20,
    introductions: 10,
    introduce_every_ms: 100,
    ..MembershipTuning::DEFAULT
};

fn key(number: u16) -> PublicKey {
    PublicKey::new(&[number.to_be_bytes(); 16].concat()).unwrap()
}

fn id(number: u16) -> NodeId {
    id_of(&key(number))
}

fn record(number: u16, state: State) -> Record {
    let generation = Generation { boot_ms: 1_000, nonce: number.into() };
    Record { state, ..Record::alive(Identity::new(id(number), generation, &[]), key(number)) }
}

fn table() -> MemberTable {
    MemberTable::new(record(0, State::Alive).identity, key(0), TUNING, Unshared)
}

/// Merges records that the peer `from` has sent, or that came without a link.
fn hear(table: &mut MemberTable, now_ms: u64, from: Option<u16>, records: &[Record]) -> Merged {
    let introducer = from.map(id);
    let judge =
        Judge { is_genuine: |_: &Record| true, is_heard: |_: &NodeId| false, introducer, latest_ms: 10_000 };
    let (bytes, count) = encode(records, usize::MAX);
    assert_eq!(count, records.len());
    table.merge(now_ms, &bytes, &judge).unwrap()
}

fn alive(numbers: std::ops::Range<u16>) -> Vec<Record> {
    numbers.map(|number| record(number, State::Alive)).collect()
}

fn events(table: &mut MemberTable) -> Vec<MembershipEvent> {
    std::iter::from_fn(|| table.poll_event()).collect()
}

#[test]
fn a_peer_introduces_some_members_at_once_and_then_few() {
    let mut table = table();
    assert_eq!(hear(&mut table, 0, Some(1), &alive(100..130)).refused, 20);
    assert_eq!((table.len(), table.member(&id(109)).is_some(), table.member(&id(110))), (10, true, None));
    // Another peer may introduce others, and what is known already does not count.
    assert_eq!(hear(&mut table, 0, Some(2), &alive(105..112)).refused, 0);
    assert_eq!(hear(&mut table, 250, Some(1), &alive(120..130)).refused, 8);
    assert_eq!(table.len(), 14);
    // Nor does whoever this daemon has reached.
    table.reach(id(200));
    assert_eq!(hear(&mut table, 250, Some(1), &alive(200..201)).refused, 0);
    // Nobody is introduced without a link.
    assert_eq!(hear(&mut table, 250, None, &alive(201..203)).refused, 2);
    assert_eq!(table.len(), 15);
}

#[test]
fn in_a_full_table_whoever_was_never_reached_gives_way() {
    let mut table = table();
    for (peer, first) in [(1, 100), (2, 110)] {
        hear(&mut table, 0, Some(peer), &alive(first..first + 10));
    }
    events(&mut table);
    hear(&mut table, 0, Some(3), &alive(120..122));
    assert_eq!((table.len(), events(&mut table).contains(&MembershipEvent::Full)), (20, true));
    // Everybody who was reached gets a place, until all members were.
    for number in 200..220 {
        table.reach(id(number));
        hear(&mut table, 0, Some(3), &alive(number..number + 1));
        assert!(table.member(&id(number)).is_some(), "{number}");
    }
    let gone = events(&mut table);
    let down = gone.iter().filter(|event| matches!(event, MembershipEvent::Down { .. })).count();
    assert_eq!((table.len(), down, table.rumoured().count()), (20, 20, 0));
    table.reach(id(220));
    hear(&mut table, 0, Some(3), &alive(220..221));
    assert_eq!(events(&mut table), [MembershipEvent::Full]);
}

#[test]
fn the_dead_that_were_never_reached_are_forgotten_within_minutes() {
    let mut table = table();
    table.reach(id(1));
    hear(&mut table, 0, Some(1), &alive(1..4));
    let dead: Vec<_> = (1..4).map(|number| record(number, State::Down)).collect();
    hear(&mut table, 10, Some(1), &dead);
    table.handle_timeout(10_000, 0);
    assert!(table.is_empty() && table.record(&id(2)).is_some());
    let over_ms = 10_000 + TUNING.remember_unreached_ms;
    assert!(table.poll_timeout().unwrap() <= over_ms);
    table.handle_timeout(over_ms, 0);
    assert_eq!([1, 2, 3].map(|number| table.record(&id(number)).is_some()), [true, false, false]);
    table.handle_timeout(10_000 + TUNING.remember_down_ms, 0);
    assert_eq!((table.record(&id(1)).is_some(), table.is_reached(&id(1))), (false, false));
}

#[test]
fn a_connection_alone_leaves_no_trace() {
    let mut table = table();
    table.reach(id(1));
    table.unreach(&id(1));
    assert!(!table.is_reached(&id(1)));
    // Once its record is there, it stays reached.
    table.reach(id(1));
    hear(&mut table, 0, Some(2), &alive(1..2));
    table.unreach(&id(1));
    assert!(table.is_reached(&id(1)));
}
