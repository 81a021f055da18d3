//! Lies about other members: their names, entries and counters.

use pmd_core::membership::record::{Record, State};
use pmd_protocol::peer::frame::{Depart, Lost};
use pmd_protocol::peer::{
    Attestation, Base, Digest, Frame, Generation, Key, Kind, Op, Signature, Stamp, Update, Value,
};

use super::attacker::{Attacker, host, id_of, membership, other_than};
use super::stage::{Admits, HONEST, Outcome, Stage};
use super::with_and_without_an_authority;

with_and_without_an_authority! {
    the_name_of_another_host
    entries_of_another_member
    counters_of_another_member
    the_end_of_another_member
}

/// TRUST 1: whoever claims another name than the one it has proven is no peer.
fn the_name_of_another_host(admits: Admits) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let rule = Outcome::Violation("its entries name another host than its handshake");
    let mut rounds = 0;
    stage.endure(&mut liar, rule, |world, liar| {
        liar.put(&host(["h1", "h2", "h3"][rounds % 3]));
        liar.redial(world);
        let (_, updates) = liar.own();
        for update in updates {
            liar.say_to_all(&Frame::Update(update));
        }
        world.wait_on(&HONEST, "the links to be closed", |host| liar.is_closed(host));
        rounds += 1;
        rounds >= 3
    });
}

/// TRUST 2: nobody changes what another member has registered.
fn entries_of_another_member(admits: Admits) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let rule = Outcome::Violation("it sent entries");
    let mut rounds = 0;
    stage.endure(&mut liar, rule, |world, liar| {
        for of in HONEST {
            liar.redial(world);
            let to = other_than(other_than(of));
            let true_one = liar.update_of(world, of);
            liar.redial(world);
            liar.say(to, Frame::Update(forged(&true_one, of, rounds)));
            world.wait_on(&[to], "the link to be closed", |host| liar.is_closed(host));
        }
        rounds += 1;
        rounds >= FORGERIES
    });
}

const FORGERIES: usize = 4;

/// A lie about the entries of an honest member, of which this is the latest truth.
fn forged(update: &Update, of: usize, kind: usize) -> Update {
    let (origin, stamp) = (update.origin, update.stamp);
    let key = Key::new(Kind::NAME, format!("node{}", of + 1).as_bytes(), 0).expect("a key");
    let next = Stamp { version: stamp.version.next(), digest: Digest::of([9; 32]), ..stamp };
    let later = Generation { boot_ms: stamp.generation.boot_ms + 1, nonce: 0 };
    let forged = Attestation {
        signature: Signature::new(&[7; 66]).expect("a short signature"),
        other: update.attestation.other,
    };
    let put = Op::Put(key.clone(), Value::new(&[0xff; 20]).expect("a short value"));
    let (stamp, attestation, base, op) = match kind % FORGERIES {
        // With the signature of what it said before.
        0 => (next, update.attestation.clone(), Base::After(stamp.version), Op::Delete(key)),
        1 => (next, forged, Base::After(stamp.version), put),
        2 => (next, forged, Base::Nothing, put),
        _ => (Stamp { generation: later, ..next }, forged, Base::Nothing, put),
    };
    let ops = vec![(stamp.version, op)];
    Update { origin, stamp, attestation, base, after: base.start(), last: true, ops }
}

/// TRUST 3: only a member itself raises its counters.
fn counters_of_another_member(admits: Admits) {
    let stage = Stage::set(admits, "");
    let mut liar = Attacker::join(&stage);
    let rule = Outcome::Violation("it sent a statement that its member has not signed");
    let mut rounds = 0;
    stage.endure(&mut liar, rule, |world, liar| {
        for of in HONEST {
            liar.redial(world);
            let true_one = liar.record_of(world, of);
            for to in HONEST {
                let mut record = true_one.clone();
                match rounds % 4 {
                    0 => record.identity.renewal = u32::MAX,
                    1 => record.identity.generation = Generation { boot_ms: u64::MAX, nonce: u64::MAX },
                    2 => record = Record { incarnation: u32::MAX, state: State::Down, ..record },
                    _ => record.state = State::Left,
                }
                liar.say(to, membership(&[record]));
            }
            world.wait_on(&HONEST, "the links to be closed", |host| liar.is_closed(host));
        }
        rounds += 1;
        rounds >= 4
    });
}

/// TRUST 4: nobody removes another member by its word, and a daemon can refuse to be told to leave.
fn the_end_of_another_member(admits: Admits) {
    let stage = Stage::set(admits, "leave_on_request = false\n");
    let mut liar = Attacker::join(&stage);
    let watches = HONEST.map(|host| stage.world.watch(host));
    let mut rounds = 0;
    stage.endure(&mut liar, Outcome::Bounded, |world, liar| {
        for of in HONEST {
            liar.redial(world);
            let record = liar.record_of(world, of);
            let target = id_of(world, of);
            liar.say_to_all(&Frame::Depart(Depart { target, generation: record.identity.generation }));
            liar.say_to_all(&Frame::Lost(Lost { members: vec![target] }));
            for state in [State::Suspect, State::Down] {
                liar.say_to_all(&membership(&[Record { state, ..record.clone() }]));
            }
        }
        rounds += 1;
        world.let_pass(std::time::Duration::from_millis(200));
        rounds >= 20
    });
    stage.world.wait_on(&HONEST, "a line about who told to leave", |host| {
        let log = stage.world[host].log();
        log.lines().any(|line| line.contains("ignored a member's request to leave") && line.contains("liar"))
    });
    for watch in watches {
        for host in ["h1", "h2", "h3"] {
            watch.never("node_down", host);
            watch.never("node_left", host);
        }
    }
}
