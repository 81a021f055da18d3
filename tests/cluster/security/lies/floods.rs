//! Floods by a member: of entries, of transfers that never end, and of messages about daemons that nobody knows.

use pmd_protocol::limits::MAX_STAMPS;
use pmd_protocol::peer::frame::{Have, Lost, Prune, Pull};
use pmd_protocol::peer::{
    Attestation, Base, Digest, Frame, Generation, Key, Kind, NodeId, Stamp, Update, Updates, Value, Version,
};

use super::attacker::{Attacker, membership};
use super::invented::invent;
use super::stage::{Admits, HONEST, Outcome, Stage};
use super::with_and_without_an_authority;

with_and_without_an_authority! {
    more_entries_than_a_host_may_have
    larger_entries_than_a_host_may_have
    transfers_that_never_end
    messages_about_daemons_that_nobody_knows
}

fn service(number: u32, value: &[u8]) -> (Key, Value) {
    let key = Key::new(Kind::SERVICE, format!("s{number}").as_bytes(), 0).expect("a key");
    (key, Value::new(value).expect("a short value"))
}

/// Sends its own entries, which are too many or too large, to all.
fn flood(admits: Admits, count: u32, value: &[u8], rule: &'static str) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let updates = liar.updates_with((0..count).map(|number| service(number, value)).collect());
    println!("{} parts", updates.len());
    let mut rounds = 0;
    stage.endure(&mut liar, Outcome::Violation(rule), |world, liar| {
        liar.redial(world);
        for update in &updates {
            liar.say_to_all(&Frame::Update(update.clone()));
        }
        world.wait_on(&HONEST, "the links to be closed", |host| liar.is_closed(host));
        rounds += 1;
        rounds >= 2
    });
}

/// TRUST 6.
fn more_entries_than_a_host_may_have(admits: Admits) {
    flood(admits, 70_000, &[1], "it sent entries that are not allowed");
}

/// TRUST 6.
fn larger_entries_than_a_host_may_have(admits: Admits) {
    flood(admits, 2_200, &[1; 8_000], "it sent entries that are not allowed");
}

/// TRUST 6: all that a peer may leave unfinished is bounded, whatever it is about.
fn transfers_that_never_end(admits: Admits) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let mut own = liar.updates_with((0..60_000).map(|number| service(number, &[1])).collect());
    let last = own.pop().expect("a part");
    assert!(last.last && own.len() > 50);
    let mut number = 0;
    stage.endure(&mut liar, Outcome::Bounded, |world, liar| {
        liar.redial(world);
        // Its own, and those of members that it has invented.
        if number < 300 {
            for update in &own {
                liar.say_to_all(&Frame::Update(update.clone()));
            }
            let (record, updates) = invent(number);
            liar.say_to_all(&membership(&[record]));
            for update in updates {
                liar.say_to_all(&Frame::Update(Update { last: false, ..update }));
            }
            number += 1;
        }
        number >= 30
    });
}

/// TRUST 6: what nobody knows is not remembered.
fn messages_about_daemons_that_nobody_knows(admits: Admits) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let generation = Generation { boot_ms: 1, nonce: 1 };
    let stamp = Stamp { generation, version: Version(1), digest: Digest::EMPTY };
    let mut rounds: u32 = 0;
    stage.endure(&mut liar, Outcome::Bounded, |world, liar| {
        let id = |number: usize| {
            let mut bytes = [7; 32];
            bytes[..4].copy_from_slice(&rounds.to_be_bytes());
            bytes[4..12].copy_from_slice(&number.to_be_bytes());
            NodeId::new(bytes)
        };
        let ids: Vec<_> = (0..MAX_STAMPS).map(id).collect();
        let updates = ids.iter().take(200).map(|origin| Update {
            origin: *origin,
            stamp,
            attestation: Attestation::default(),
            base: Base::Nothing,
            after: Version::ZERO,
            last: false,
            ops: Vec::new(),
        });
        let stamps: Vec<_> = ids.iter().map(|id| (*id, stamp)).collect();
        let wants: Vec<_> = ids.iter().map(|id| (*id, Some(stamp))).collect();
        for frame in [
            Frame::Updates(Updates { updates: updates.collect() }),
            Frame::Have(Have { stamps, complete: Vec::new() }),
            Frame::Pull(Pull { wants: wants.clone(), graft: true }),
            Frame::Pull(Pull { wants, graft: false }),
            Frame::Prune(Prune { origins: ids.clone() }),
            Frame::Lost(Lost { members: ids }),
        ] {
            liar.say_to_all(&frame);
        }
        rounds += 1;
        liar.redial(world);
        // About 360,000 ids.
        rounds >= 600
    });
}
