use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::SeedableRng;
use rand::rngs::StdRng;

use super::*;

const A: &str = "10.0.0.1:4369";

fn candidates() -> (Candidates, StdRng) {
    (Candidates::new("prod", 4369), StdRng::seed_from_u64(1))
}

fn id(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

fn beacon(address: &str, number: u8) -> Find {
    Find { cluster: Some("prod".into()), id: Some(id(number)), ..Find::at(address) }
}

fn foreign(address: &str) -> Find {
    Find { cluster: Some("test".into()), ..Find::at(address) }
}

#[test]
fn an_address_is_returned_once_however_it_is_written() {
    let (mut candidates, mut rng) = candidates();
    for text in ["10.0.0.1", "10.0.0.1:4369", "::ffff:10.0.0.1"] {
        candidates.found(0, "dns", Find::at(text), &mut rng).expect("an address");
    }
    assert_eq!(candidates.due(0), [A]);
    assert_eq!(candidates.due(1_000_000), [""; 0]);
    assert_eq!(candidates.poll_timeout(), None);
    assert!(candidates.found(0, "dns", Find::at("no host"), &mut rng).is_err());
}

#[test]
fn pauses_grow_until_a_link_is_established() {
    let (mut candidates, mut rng) = candidates();
    let mut now = 0;
    candidates.found(now, seeds::NAME, Find::at(A), &mut rng).expect("an address");
    for longest in [1000, 2000, 4000, 8000, 16_000, 32_000, 60_000, 60_000] {
        assert_eq!(candidates.due(now), [A]);
        candidates.failed(now, A, &mut rng);
        let then = candidates.poll_timeout().expect("another try");
        assert!((longest / 2..=longest).contains(&(then - now)), "{longest}: {}", then - now);
        assert_eq!(candidates.due(then - 1), [""; 0]);
        now = then;
    }
    assert_eq!(candidates.due(now), [A]);
    candidates.joined(now, A, id(1));
    assert_eq!(candidates.due(now + 1_000_000), [""; 0]);
    assert!(candidates.list(now)[0].member);

    candidates.member_lost(now, id(1), &mut rng);
    assert_eq!(candidates.due(now + MAX_SPREAD_MS), [A]);
    candidates.failed(now, A, &mut rng);
    assert!(candidates.poll_timeout().expect("another try") <= now + 1000);
}

#[test]
fn the_own_address_is_not_dialled_again() {
    let (mut candidates, mut rng) = candidates();
    candidates.found(0, "dns", Find::at(A), &mut rng).expect("an address");
    assert_eq!(candidates.due(0), [A]);
    candidates.mark_this_daemon(A);
    assert_eq!(candidates.list(0), []);
    for now in (0..3_600_000).step_by(60_000) {
        candidates.found(now, "dns", Find::at(A), &mut rng).expect("an address");
        candidates.found(now, "broadcast", beacon(A, 3), &mut rng).expect("an address");
        assert_eq!(candidates.due(now), [""; 0]);
    }
}

#[test]
fn other_clusters_are_listed_and_never_dialled() {
    let (mut candidates, mut rng) = candidates();
    let other_cookie = Find { other_cookie: true, ..beacon("10.0.0.2", 2) };
    candidates.found(5, "broadcast", foreign(A), &mut rng).expect("an address");
    candidates.found(5, "broadcast", other_cookie, &mut rng).expect("an address");
    assert_eq!(candidates.due(1000), [""; 0]);
    let list = candidates.list(1005);
    assert_eq!(list.len(), 2);
    assert_eq!((list[0].cluster.as_deref(), list[0].heard_ms), (Some("test"), 1000));
    assert!(list[1].other_cookie && !list[1].member);
    // The loss of a member with that id does not change this.
    candidates.member_found(id(2));
    candidates.member_lost(0, id(2), &mut rng);
    assert_eq!(candidates.due(10_000), [""; 0]);
}

#[test]
fn a_dial_cannot_be_prevented_without_the_cookie() {
    let (mut candidates, mut rng) = candidates();
    candidates.found(0, seeds::NAME, Find::at(A), &mut rng).expect("an address");
    candidates.found(0, "broadcast", foreign(A), &mut rng).expect("an address");
    // An attacker replays the beacon of a member from the seed's address.
    candidates.member_found(id(9));
    candidates.found(0, "broadcast", beacon(A, 9), &mut rng).expect("an address");
    assert_eq!(candidates.due(0), [A]);
    assert_eq!(candidates.list(0)[0].source, seeds::NAME);
}

#[test]
fn a_named_address_is_dialled_at_once() {
    let (mut candidates, mut rng) = candidates();
    candidates.found(0, "dns", Find::at(A), &mut rng).expect("an address");
    for now in [0, 0, 0, 0] {
        assert_eq!(candidates.due(now), [A]);
        candidates.failed(now, A, &mut rng);
        assert_eq!(candidates.due(now), [""; 0]);
        candidates.found(now, "dns", Find::at(A), &mut rng).expect("an address");
        assert_eq!(candidates.due(now), [""; 0]);
        candidates.found(now, seeds::NAME, Find::at(A), &mut rng).expect("an address");
    }
    assert_eq!(candidates.due(0), [A]);
    candidates.joined(0, A, id(1));
    candidates.found(0, seeds::NAME, Find::at(A), &mut rng).expect("an address");
    assert_eq!(candidates.due(100_000), [""; 0], "there is a link");

    // The beacon of a member names an address at which the member was not found.
    candidates.member_found(id(2));
    candidates.found(0, "broadcast", beacon("b", 2), &mut rng).expect("an address");
    assert_eq!(candidates.due(100_000), [""; 0]);
    candidates.found(0, seeds::NAME, Find::at("b"), &mut rng).expect("an address");
    candidates.member_found(id(2));
    assert_eq!(candidates.due(0), ["b:4369"]);
}

#[test]
fn a_foreign_address_is_dialled_once_it_is_of_this_cluster() {
    let (mut candidates, mut rng) = candidates();
    candidates.found(0, "broadcast", foreign(A), &mut rng).expect("an address");
    candidates.found(0, "broadcast", beacon(A, 1), &mut rng).expect("an address");
    assert_eq!(candidates.due(0), [A]);
}

#[test]
fn a_member_is_not_dialled_at_another_address() {
    let (mut candidates, mut rng) = candidates();
    candidates.member_found(id(1));
    candidates.found(0, "broadcast", beacon("[fe80::1%2]", 1), &mut rng).expect("an address");
    assert_eq!(candidates.due(100_000), [""; 0]);
    assert!(candidates.list(0)[0].member);
    candidates.member_lost(0, id(1), &mut rng);
    assert_eq!(candidates.due(MAX_SPREAD_MS), ["[fe80::1%2]:4369"]);
    // It becomes a member by gossip while it is being dialled.
    candidates.member_found(id(1));
    candidates.failed(0, "[fe80::1%2]:4369", &mut rng);
    assert_eq!(candidates.due(100_000), [""; 0]);
}

#[test]
fn a_newcomer_is_dialled_by_few_members_of_a_large_cluster() {
    let early = (0..1000).filter(|seed| {
        let (mut candidates, _) = candidates();
        (0..1000_u16).for_each(|number| {
            let mut bytes = [1; 32];
            bytes[..2].copy_from_slice(&number.to_be_bytes());
            candidates.member_found(NodeId::new(bytes));
        });
        let mut rng = StdRng::seed_from_u64(*seed);
        candidates.found(0, "broadcast", beacon(A, 200), &mut rng).expect("an address");
        // Gossip takes about this long to reach all members.
        !candidates.due(200).is_empty()
    });
    let early = early.count();
    assert!((1..100).contains(&early), "{early}");
}

#[test]
fn replayed_beacons_do_not_increase_the_dial_rate() {
    let (mut candidates, mut rng) = candidates();
    candidates.found(0, "broadcast", beacon(A, 1), &mut rng).expect("an address");
    let mut dials = 0;
    for now in 0..60_000 {
        let number = u8::try_from(now % 250).expect("small");
        candidates.found(now, "broadcast", beacon(A, number), &mut rng).expect("an address");
        for address in candidates.due(now) {
            dials += 1;
            candidates.joined(now, &address, id(255));
        }
    }
    assert_eq!(dials, 1);
}

#[test]
fn addresses_not_found_again_are_forgotten_except_seeds() {
    let (mut candidates, mut rng) = candidates();
    candidates.found(0, seeds::NAME, Find::at("seed"), &mut rng).expect("an address");
    for host in ["gone", "there", "dialled"] {
        candidates.found(0, "dns", Find::at(host), &mut rng).expect("an address");
    }
    assert_eq!(candidates.due(0).len(), 4);
    for host in ["gone", "there", "seed"] {
        candidates.failed(0, host, &mut rng);
    }
    candidates.found(FORGET_MS - 1, "dns", Find::at("there"), &mut rng).expect("an address");
    let hosts = |list: Vec<Listed>| list.into_iter().map(|listed| listed.address).collect::<Vec<_>>();
    assert_eq!(hosts(candidates.list(FORGET_MS - 1)).len(), 4);
    // An address that is being dialled is kept.
    assert_eq!(hosts(candidates.list(FORGET_MS)), ["dialled:4369", "seed:4369", "there:4369"]);
    candidates.failed(FORGET_MS, "dialled", &mut rng);
    assert_eq!(candidates.due(FORGET_MS), ["seed:4369", "there:4369"]);
}

#[test]
fn a_forgotten_address_is_not_dialled_twice_at_once() {
    let (mut candidates, mut rng) = candidates();
    candidates.found(0, seeds::NAME, Find::at(A), &mut rng).expect("an address");
    candidates.forget(A);
    assert_eq!(candidates.due(0), [""; 0]);
    candidates.found(0, seeds::NAME, Find::at(A), &mut rng).expect("an address");
    assert_eq!(candidates.due(0), [A]);
    candidates.forget(A);
    assert_eq!(candidates.list(0), []);
    candidates.found(0, "dns", Find::at(A), &mut rng).expect("an address");
    assert_eq!(candidates.due(0), [""; 0]);
    candidates.forget(A);
    candidates.failed(0, A, &mut rng);
    assert_eq!(candidates.due(100_000), [""; 0]);
    candidates.found(0, "dns", Find::at(A), &mut rng).expect("an address");
    assert_eq!(candidates.due(0), [A]);
}

#[test]
fn a_flood_without_the_cookie_displaces_no_other_finds() {
    let (mut candidates, mut rng) = candidates();
    candidates.found(0, seeds::NAME, Find::at("seed"), &mut rng).expect("an address");
    candidates.found(0, "dns", Find::at("found"), &mut rng).expect("an address");
    for port in 1..=3000 {
        let find = foreign(&format!("10.9.9.9:{port}"));
        candidates.found(port, "broadcast", find, &mut rng).expect("an address");
    }
    assert_eq!(candidates.list(3000).len(), MAX_CANDIDATES);
    assert_eq!(candidates.due(3000), ["found:4369", "seed:4369"]);
    // Foreign addresses are displaced first, even if others are older.
    candidates.failed(3000, "found", &mut rng);
    candidates.found(3000, "dns", Find::at("one-more"), &mut rng).expect("an address");
    assert!(candidates.list(3000).iter().any(|listed| listed.address == "found:4369"));
    assert_eq!(candidates.due(6000), ["one-more:4369", "found:4369"]);
    for port in 1..=3000 {
        let find = Find::at(format!("10.8.8.8:{port}"));
        candidates.found(3000 + port, "dns", find, &mut rng).expect("an address");
    }
    let list = candidates.list(6000);
    assert_eq!(list.len(), MAX_CANDIDATES);
    // The seed and the address that is being dialled stay; of the others, the newest.
    assert!(["found:4369", "seed:4369"].iter().all(|name| list.iter().any(|one| one.address == *name)));
    assert!(list.iter().all(|one| one.heard_ms < MAX_CANDIDATES as u64 || !one.address.starts_with("10.")));
    candidates.found(9000, "broadcast", foreign(A), &mut rng).expect("an address");
    assert!(candidates.list(9000).iter().all(|one| one.address != A), "there is nothing it may displace");
}

#[test]
fn concurrent_dials_are_limited() {
    let (mut candidates, mut rng) = candidates();
    for port in 1..=100 {
        candidates.found(port, "dns", Find::at(format!("10.0.0.1:{port}")), &mut rng).expect("an address");
    }
    let first = candidates.due(1000);
    assert_eq!(first.len(), MAX_DIALS);
    assert_eq!(first[0], "10.0.0.1:1", "the one waiting longest");
    assert_eq!((candidates.due(1000), candidates.poll_timeout()), (Vec::new(), None));
    candidates.failed(1000, &first[0], &mut rng);
    assert_eq!(candidates.due(1000), [format!("10.0.0.1:{}", MAX_DIALS + 1)]);
}

#[derive(Clone, Debug)]
enum Step {
    Found(u16, u8, bool),
    Wait(u64),
    Due,
    Failed(u16),
    Joined(u16, u8),
    ThisDaemon(u16),
    Member(u8),
    Lost(u8),
    Forget(u16),
}

fn step() -> impl Strategy<Value = Step> {
    let address = 1..40_u16;
    let daemon = 0..8_u8;
    prop_oneof![
        4 => (1..2000_u16, daemon.clone(), any::<bool>()).prop_map(|(a, kind, old)| Step::Found(a, kind, old)),
        4 => (address.clone(), daemon.clone(), any::<bool>()).prop_map(|(a, kind, old)| Step::Found(a, kind, old)),
        3 => (0..100_000_u64).prop_map(Step::Wait),
        4 => Just(Step::Due),
        3 => address.clone().prop_map(Step::Failed),
        2 => (address.clone(), daemon.clone()).prop_map(|(a, d)| Step::Joined(a, d)),
        1 => address.clone().prop_map(Step::ThisDaemon),
        1 => daemon.clone().prop_map(Step::Member),
        1 => daemon.prop_map(Step::Lost),
        1 => address.prop_map(Step::Forget),
    ]
}

proptest! {
    #[test]
    fn no_address_is_dialled_twice_at_once_and_no_foreign_one_ever(
        steps in prop::collection::vec(step(), 1..400),
        seed: u64,
    ) {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut candidates = Candidates::new("prod", 4369);
        let mut now = 0;
        let mut dialling = BTreeSet::new();
        let mut dialable = BTreeSet::new();
        let name = |address: u16| format!("10.0.0.1:{address}");
        for step in steps {
            match step {
                Step::Found(address, kind, trusted) => {
                    let (source, find) = match kind {
                        0 => (seeds::NAME, Find::at(name(address))),
                        1 => ("dns", Find::at(name(address))),
                        2 => ("broadcast", foreign(&name(address))),
                        3 => ("broadcast", Find { other_cookie: true, ..beacon(&name(address), 1) }),
                        _ if trusted => ("broadcast", beacon(&name(address), kind)),
                        _ => ("exec", Find::at(name(address))),
                    };
                    if source != "broadcast" || (kind > 3 && trusted) {
                        dialable.insert(name(address));
                    }
                    candidates.found(now, source, find, &mut rng).expect("an address");
                }
                Step::Wait(ms) => now += ms,
                Step::Due => {
                    let expected = candidates.poll_timeout().is_some_and(|then| then <= now);
                    let due = candidates.due(now);
                    prop_assert!(expected || due.is_empty());
                    for address in due {
                        prop_assert!(dialable.contains(&address), "{address} is of another cluster");
                        prop_assert!(dialling.insert(address.clone()), "{address} is being dialled");
                    }
                    prop_assert!(dialling.len() <= MAX_DIALS);
                    prop_assert!(candidates.poll_timeout().is_none_or(|then| then > now || dialling.len() == MAX_DIALS));
                }
                Step::Failed(address) => {
                    if dialling.remove(&name(address)) {
                        candidates.failed(now, &name(address), &mut rng);
                        prop_assert!(!candidates.due(now + millis(REDIAL.pause(1)) / 2 - 1).contains(&name(address)) );
                        // Addresses that were returned instead.
                        dialling.extend(candidates.entries.iter().filter(|(_, entry)| entry.dialling).map(|(a, _)| a.to_string()));
                    }
                }
                Step::Joined(address, daemon) => {
                    if dialling.remove(&name(address)) {
                        candidates.joined(now, &name(address), id(daemon));
                    }
                }
                Step::ThisDaemon(address) => {
                    if dialling.remove(&name(address)) {
                        candidates.mark_this_daemon(&name(address));
                    }
                }
                Step::Member(daemon) => candidates.member_found(id(daemon)),
                Step::Lost(daemon) => candidates.member_lost(now, id(daemon), &mut rng),
                Step::Forget(address) => candidates.forget(&name(address)),
            }
            prop_assert!(candidates.entries.len() <= MAX_CANDIDATES);
        }
    }
}
