use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// The host with this number, each in a network of its own.
fn apart(number: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0001 + (number << 8)).into())
}

/// How many strangers there is room for.
fn all() -> u32 {
    u32::try_from(MAX_STRANGERS).expect("a small number")
}

/// Admits a connection, for which room must be there or be made.
fn admit(admission: &mut Admission, address: IpAddr) -> Admitted {
    admission.admit(0, address, false).expect("room")
}

/// Admits `count` connections, for which there must be room.
fn fill(admission: &mut Admission, address: IpAddr, count: usize) -> Vec<Ticket> {
    let admitted = (0..count).map(|_| admit(admission, address));
    admitted.inspect(|admitted| assert_eq!(admitted.evicted, None)).map(|admitted| admitted.ticket).collect()
}

#[test]
fn the_oldest_without_a_whole_hello_gives_way_and_not_the_newcomer() {
    let mut admission = Admission::default();
    let all: Vec<Ticket> =
        (0..all()).map(|number| fill(&mut admission, apart(number), 1).remove(0)).collect();
    admission.hello_complete(all[0]);
    for oldest in 1..100 {
        let newcomer = admit(&mut admission, apart(1_000 + oldest));
        let expected = usize::try_from(oldest).expect("a number");
        assert_eq!(newcomer.evicted, Some((all[expected], apart(oldest))));
        admission.hello_complete(newcomer.ticket);
    }
    assert_eq!(admission.len(), MAX_STRANGERS);
}

#[test]
fn an_attacker_displaces_its_own_connections_first() {
    let mut admission = Admission::default();
    let honest = fill(&mut admission, apart(0), 1).remove(0);
    for attacker in 1..=9 {
        for _ in 0..1_000 {
            admit(&mut admission, apart(attacker));
        }
    }
    // The honest one is the oldest by far, and its packets are still on their way.
    for newcomer in 0..30 {
        let evicted = admit(&mut admission, apart(100 + newcomer)).evicted.expect("it is full");
        assert!(evicted.0 != honest && (1..=9).map(apart).any(|attacker| attacker == evicted.1));
    }
}

#[test]
fn attackers_in_the_network_of_the_honest_keep_nobody_out() {
    let mut admission = Admission::default();
    let attackers = [1, 2, 3, 4, 5, 6, 7].map(|host| ip(&format!("10.77.0.{host}")));
    for _ in 0..1_000 {
        for attacker in attackers {
            let _ = admission.admit(0, attacker, false);
        }
    }
    assert_eq!(admission.len(), MAX_OF_NETWORK);
    let honest = ip("10.77.0.9");
    for _ in 0..20 {
        let newcomer = admit(&mut admission, honest);
        assert!(attackers.contains(&newcomer.evicted.expect("it is full").1));
        // While it is being proven, others drip on.
        for _ in 0..50 {
            let dripping = attackers.map(|attacker| admit(&mut admission, attacker).evicted);
            assert!(dripping.iter().flatten().all(|(ticket, _)| *ticket != newcomer.ticket));
        }
        admission.hello_complete(newcomer.ticket);
    }
}

#[test]
fn a_network_and_an_address_have_a_quota() {
    let mut admission = Admission::default();
    let own = fill(&mut admission, ip("10.0.0.1"), MAX_OF_ADDRESS);
    assert_eq!(admit(&mut admission, ip("::ffff:10.0.0.1")).evicted, Some((own[0], ip("10.0.0.1"))));
    for host in 1..MAX_OF_NETWORK / MAX_OF_ADDRESS {
        fill(&mut admission, ip(&format!("10.0.0.{}", host + 1)), MAX_OF_ADDRESS);
    }
    let another = admit(&mut admission, ip("10.0.0.99"));
    assert!(another.evicted.is_some(), "its network is full");
    for host in 0..MAX_STRANGERS - MAX_OF_NETWORK {
        fill(&mut admission, ip(&format!("10.0.1.{host}")), 1);
    }
    assert!(admit(&mut admission, ip("10.0.1.200")).evicted.is_some(), "all are full");

    // Every address of a /64 may be one host's.
    let mut admission = Admission::default();
    for host in 0..MAX_OF_NETWORK {
        fill(&mut admission, ip(&format!("fd00::{host:x}")), 1);
    }
    assert!(admit(&mut admission, ip("fd00::ffff")).evicted.is_some());
    assert!(admit(&mut admission, ip("fd00:0:0:1::1")).evicted.is_none());
}

#[test]
fn those_who_stall_after_their_hello_share_the_room_with_newcomers() {
    let mut admission = Admission::default();
    let attackers = [1, 2, 3, 4, 5, 6, 7, 8, 9].map(apart);
    for attacker in attackers {
        for _ in 0..MAX_OF_ADDRESS {
            // The last does not get as many.
            if let Ok(admitted) = admission.admit(0, attacker, false) {
                admission.hello_complete(admitted.ticket);
            }
        }
        assert!(admission.admit(0, attackers[0], false).is_err(), "it does not displace its own");
    }
    for newcomer in 0..30 {
        let admitted = admit(&mut admission, apart(100 + newcomer));
        assert!(attackers.contains(&admitted.evicted.expect("it is full").1));
        admission.hello_complete(admitted.ticket);
    }
    // Once everybody has the same, nobody displaces anybody.
    let mut admission = Admission::default();
    for number in 0..all() {
        let ticket = fill(&mut admission, apart(number), 1).remove(0);
        admission.hello_complete(ticket);
    }
    assert_eq!(admission.admit(0, apart(999), false), Err(Full::All));
}

#[test]
fn known_addresses_have_a_share_that_strangers_cannot_use() {
    let mut admission = Admission::default();
    for number in 0..all() {
        let ticket = fill(&mut admission, apart(number), 1).remove(0);
        admission.hello_complete(ticket);
    }
    for number in 0..32 {
        let admitted = admission.admit(0, apart(1_000 + number / 4), true).expect("a reserved share");
        assert_eq!(admitted.evicted, None);
    }
    assert_eq!(admission.admit(0, apart(2_000), true), Err(Full::All), "all of them are in use");
    // One address cannot use them up.
    let mut admission = Admission::default();
    for _ in 0..1_000 {
        let _ = admission.admit(0, apart(1), true);
    }
    assert_eq!(admission.len(), MAX_OF_KNOWN_ADDRESS + MAX_OF_ADDRESS);
    let ticket = admission.admit(0, apart(2), true).expect("a reserved share").ticket;
    admission.end(ticket);
    assert_eq!(admission.len(), MAX_OF_KNOWN_ADDRESS + MAX_OF_ADDRESS);
}

#[test]
fn an_attack_is_reported_until_it_has_been_quiet_for_a_while() {
    let mut admission = Admission::default();
    fill(&mut admission, apart(1), MAX_OF_ADDRESS);
    assert_eq!(admission.pressure(1_000), None);
    for now_ms in [1_000, 2_000, 3_000] {
        let _ = admission.admit(now_ms, apart(1), false);
    }
    let pressure = Pressure { since_ms: 1_000, last_ms: 3_000, displaced: 3, address: apart(1) };
    assert_eq!(admission.pressure(3_000 + QUIET_MS - 1), Some(pressure));
    assert_eq!(admission.pressure(3_000 + QUIET_MS), None);
    let _ = admission.admit(90_000, apart(1), false);
    assert_eq!(
        admission.pressure(90_000).map(|pressure| (pressure.since_ms, pressure.displaced)),
        Some((90_000, 1))
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever comes and goes, no ring holds more than its quota, and whoever is alone with its address is admitted
    /// as long as somebody has not sent a whole ClientHello.
    #[test]
    fn no_ring_exceeds_its_quota(steps in prop::collection::vec((0..12_u32, 0..6_u8), 1..1_000)) {
        let mut admission = Admission::default();
        let mut open: BTreeMap<Ticket, (IpAddr, bool)> = BTreeMap::new();
        for (host, what) in steps {
            let address = IpAddr::V4((0x0a00_0001 + ((host % 3) << 8) + host).into());
            let oldest = open.first_key_value().map(|(ticket, _)| *ticket);
            match (what, oldest) {
                (0, Some(ticket)) => {
                    admission.end(ticket);
                    open.remove(&ticket);
                }
                (1, Some(_)) => {
                    if let Some((ticket, (_, complete))) = open.iter_mut().find(|(_, (_, complete))| !*complete) {
                        admission.hello_complete(*ticket);
                        *complete = true;
                    }
                }
                _ => {
                    let known = what == 2;
                    let room = open.values().any(|(_, complete)| !complete) || open.len() < MAX_OF_NETWORK;
                    let alone = open.values().all(|(other, _)| *other != address);
                    match admission.admit(0, address, known) {
                        Ok(Admitted { ticket, evicted }) => {
                            if let Some((evicted, of)) = evicted {
                                prop_assert_eq!(open.remove(&evicted).map(|(address, _)| address), Some(of));
                            }
                            prop_assert!(open.insert(ticket, (address, false)).is_none());
                        }
                        Err(_) => prop_assert!(!(room && alone)),
                    }
                }
            }
            prop_assert_eq!(admission.len(), open.len());
            let strangers: Vec<_> = admission.strangers().collect();
            prop_assert!(strangers.len() <= MAX_STRANGERS && open.len() - strangers.len() <= MAX_KNOWN);
            for ring in [|entry: &Entry| entry.address, |entry: &Entry| entry.network].iter().zip([MAX_OF_ADDRESS, MAX_OF_NETWORK]) {
                let (key, most) = ring;
                let mut counts: BTreeMap<IpAddr, usize> = BTreeMap::new();
                strangers.iter().for_each(|(_, entry)| *counts.entry(key(entry)).or_default() += 1);
                prop_assert!(counts.values().all(|count| *count <= most));
            }
        }
    }
}
