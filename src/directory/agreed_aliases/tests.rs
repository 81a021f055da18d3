use proptest::prelude::*;

use super::*;

const ME: NodeId = NodeId::new([5; 32]);
const HOLD: u64 = 60_000;

fn id(number: u8) -> NodeId {
    NodeId::new([number; 32])
}

fn range() -> LoopbackRange {
    "127.1.2.0/29".parse().expect("six addresses")
}

fn new(own: NodeId, now_ms: u64) -> AgreedAliases {
    AgreedAliases::new(range(), own, HOLD, now_ms, "")
}

fn alias(address: Ipv4Addr, since_ms: u64) -> Option<Alias> {
    Some(Alias { address, since_ms })
}

/// An address that is not that of the host itself.
fn another(aliases: &AgreedAliases) -> Ipv4Addr {
    let own = aliases.own().address;
    (0..).map(|number| range().nth(number)).find(|address| *address != own).expect("there are six")
}

#[test]
fn the_own_alias_depends_on_the_id_alone_and_is_kept_across_restarts() {
    let first = new(ME, 7);
    assert_eq!(first.own().address, new(ME, 9).own().address);
    let mut moved = new(ME, 7);
    moved.publish(0, id(1), alias(first.own().address, 0));
    let Review::Moved(to) = moved.review(0, 8, true) else { panic!("the other one is older") };
    assert_ne!(to.address, first.own().address);
    assert_eq!(moved.review(SETTLE_MS, 8, true), Review::Settled);
    let mut again = AgreedAliases::new(range(), ME, HOLD, 99, &moved.write());
    assert_eq!((again.own(), again.review(0, 0, true)), (to, Review::Settled));
    assert_eq!(again.write(), moved.write());
    let other_range =
        AgreedAliases::new("127.9.0.0/16".parse().expect("a range"), ME, HOLD, 99, &moved.write());
    assert!(other_range.own().address.to_string().starts_with("127.9."), "the range was changed");
}

#[test]
fn of_two_new_hosts_the_younger_gives_its_alias_up_at_once() {
    let (mut older, mut younger) = (new(ME, 1), new(ME, 2));
    let address = older.own().address;
    older.publish(0, id(6), alias(address, 2));
    younger.publish(0, id(4), alias(address, 1));
    assert_eq!(older.review(0, 0, true), Review::Open);
    let Review::Moved(to) = younger.review(0, 5, true) else { panic!("it is younger") };
    assert_eq!((younger.of(id(4)), to.since_ms), (Some(address), 5));
    older.publish(5, id(6), Some(to));
    assert_eq!(older.of(id(6)), Some(to.address));
    assert_eq!(older.review(SETTLE_MS, SETTLE_MS, true), Review::Settled);
    assert!(older.clashes().is_empty());
}

#[test]
fn a_new_host_gives_way_to_one_that_does_not_even_if_it_is_older() {
    let mut aliases = new(ME, 1);
    let address = aliases.own().address;
    aliases.publish(0, id(6), alias(address, 2));
    assert_eq!(aliases.review(0, 0, true), Review::Open);
    assert_eq!(aliases.review(SETTLE_MS - 1, 0, true), Review::Open);
    assert!(matches!(aliases.review(SETTLE_MS, 0, true), Review::Moved(_)));
    assert_eq!(aliases.of(id(6)), Some(address));
}

#[test]
fn a_liar_takes_no_alias_that_was_seen_before_whatever_it_says_about_its_age() {
    let mut victim = new(ME, 1_000);
    victim.publish(0, id(6), None);
    victim.review(0, 0, true);
    assert_eq!(victim.review(SETTLE_MS, 0, true), Review::Settled);
    let address = victim.own().address;
    victim.publish(SETTLE_MS, id(1), alias(address, 0));
    assert_eq!(victim.review(SETTLE_MS, 0, true), Review::Settled);
    assert_eq!((victim.own().address, victim.holder(address)), (address, None));
    let clash = Clash { address, by: vec![id(1)], own: true, holder: Some(ME) };
    assert_eq!(victim.clashes(), [clash]);

    let mut other = new(id(7), 0);
    let held = another(&other);
    other.publish(0, id(2), alias(held, 1_000));
    other.publish(SETTLE_MS, id(1), alias(held, 0));
    assert_eq!(other.holder(held), Some(id(2)));
    assert_eq!(other.of(id(1)), None);
    // Not while the victim has failed either, nor after a restart of this daemon.
    other.gone(SETTLE_MS, id(2));
    assert_eq!(other.holder(held), None);
    let mut again = AgreedAliases::new(range(), id(7), HOLD, 20_000, &other.write());
    again.publish(20_000, id(1), alias(held, 0));
    again.publish(20_001, id(2), alias(held, 1_000));
    assert_eq!(again.holder(held), Some(id(2)));
    // It may have the alias once the victim has been expelled.
    again.expel(20_002, id(2));
    assert_eq!(again.holder(held), Some(id(1)));
}

#[test]
fn two_that_are_seen_at_the_same_time_both_get_nothing_until_one_gives_up() {
    let mut aliases = new(ME, 0);
    let address = another(&aliases);
    for order in [[1, 2], [2, 1]] {
        for number in order {
            aliases.publish(100, id(number), alias(address, u64::from(number)));
        }
        assert_eq!(aliases.holder(address), None);
        assert_eq!(aliases.clashes().len(), 1);
        aliases.publish(200, id(2), None);
        assert_eq!((aliases.holder(address), aliases.clashes().len()), (Some(id(1)), 0));
        aliases.publish(300, id(1), None);
    }
}

#[test]
fn an_expelled_host_has_no_alias() {
    let mut aliases = new(ME, 0);
    let address = another(&aliases);
    aliases.publish(0, id(1), alias(address, 0));
    aliases.publish(SETTLE_MS, id(2), alias(address, 0));
    aliases.expel(SETTLE_MS, id(1));
    assert_eq!(aliases.holder(address), Some(id(2)));
}

#[test]
fn who_is_gone_when_it_is_expelled_loses_its_alias_too() {
    let mut aliases = new(ME, 0);
    let address = another(&aliases);
    aliases.publish(0, id(1), alias(address, 0));
    aliases.publish(SETTLE_MS, id(2), alias(address, 0));
    aliases.gone(SETTLE_MS, id(1));
    assert_eq!(aliases.holder(address), None);
    aliases.expel(SETTLE_MS, id(1));
    assert_eq!(aliases.holder(address), Some(id(2)));
}

#[test]
fn only_aliases_in_the_range_of_this_host_count() {
    let mut aliases = new(ME, 0);
    for wrong in ["127.0.0.1", "10.0.0.1", "127.1.2.9"] {
        aliases.publish(0, id(1), alias(wrong.parse().expect("an address"), 0));
        assert_eq!((aliases.of(id(1)), aliases.published().len()), (None, 1), "{wrong}");
    }
}

#[test]
fn a_liar_does_not_chase_a_new_host_for_ever() {
    let mut aliases = new(ME, 1_000);
    let mut moves = 0;
    loop {
        aliases.publish(moves, id(1), alias(aliases.own().address, 0));
        match aliases.review(moves, 2_000, true) {
            Review::Moved(_) => moves += 1,
            _ => break,
        }
    }
    assert_eq!(moves, u64::from(MOVES));
    assert_eq!(aliases.review(moves + SETTLE_MS, 0, true), Review::Settled);
}

#[test]
fn who_leaves_is_new_in_the_next_cluster() {
    let mut aliases = new(ME, 1);
    aliases.review(0, 0, true);
    assert_eq!(aliases.review(SETTLE_MS, 0, true), Review::Settled);
    aliases.clear(0);
    let mut stopped = AgreedAliases::new(range(), ME, HOLD, 1, &aliases.write());
    assert_eq!(stopped.review(0, 0, true), Review::Settled, "it only stopped");
    aliases.unsettle();
    aliases.publish(0, id(1), alias(aliases.own().address, 0));
    assert!(matches!(aliases.review(0, 0, true), Review::Moved(_)));
}

/// A cluster of honest hosts, each with what it knows, in which every change reaches all others.
fn converge(hosts: &mut [AgreedAliases], now_ms: u64) {
    for at in (now_ms..=now_ms + 40 * SETTLE_MS).step_by(1_000) {
        for number in 0..hosts.len() {
            hosts[number].review(at, at, true);
            let (own, from) = (hosts[number].own(), hosts[number].own.id);
            for other in hosts.iter_mut().filter(|other| other.own.id != from) {
                other.publish(at, from, Some(own));
            }
        }
    }
}

proptest! {
    /// Ten addresses for up to six hosts, so that most runs have clashes.
    #[test]
    fn honest_hosts_agree_and_a_host_that_joins_them_takes_no_alias(
        ids in prop::collection::btree_set(any::<u8>(), 2..7),
        ages in prop::collection::vec(0_u64..5, 7),
    ) {
        let range: LoopbackRange = "127.1.2.0/28".parse().expect("fourteen addresses");
        let start = |number: u8, age| AgreedAliases::new(range, id(number), HOLD, age, "");
        let mut hosts: Vec<_> = ids.iter().zip(&ages).map(|(number, age)| start(*number, *age)).collect();
        let newcomer = hosts.pop().expect("two");
        converge(&mut hosts, 0);
        let before: Vec<_> = hosts.iter().map(AgreedAliases::own).collect();
        hosts.push(newcomer);
        converge(&mut hosts, 1_000_000);
        let after: Vec<_> = hosts.iter().map(AgreedAliases::own).collect();
        prop_assert_eq!(after.get(..before.len()).expect("one more"), &before[..]);
        let distinct: BTreeSet<_> = after.iter().map(|alias| alias.address).collect();
        prop_assert_eq!(distinct.len(), hosts.len());
        for host in &hosts {
            prop_assert!(host.clashes().is_empty());
            for other in hosts.iter().filter(|other| other.own.id != host.own.id) {
                prop_assert_eq!(host.of(other.own.id), Some(other.own().address));
            }
        }
    }
}

#[test]
fn who_changes_its_alias_all_the_time_has_none_for_an_hour() {
    let mut aliases = AgreedAliases::new(LoopbackRange::ALIASES, ME, HOLD, 0, "");
    let nth = |number: u32| alias(LoopbackRange::ALIASES.nth(number), 0);
    let mut times = 0;
    for number in 0..3 * MOVES {
        aliases.publish(0, id(1), nth(number));
        times += u32::from(aliases.claimed.contains_key(&id(1)));
        aliases.gone(0, id(1));
    }
    assert_eq!(times, MOVES + 1, "returning does not help");
    aliases.publish(MOVES_MS - 1, id(1), nth(0));
    assert_eq!(aliases.published().len(), 1);
    aliases.publish(MOVES_MS, id(1), nth(1));
    assert_eq!(aliases.published().len(), 2);
}

#[test]
fn hosts_that_are_gone_for_good_do_not_use_up_a_small_range() {
    let mut aliases = new(ME, 0);
    let all = || (0..range().size()).map(|number| range().nth(number));
    for (number, address) in (10..).zip(all()) {
        aliases.publish(0, id(number), alias(address, 0));
    }
    for number in 10..16 {
        aliases.gone(0, id(number));
    }
    let taken = aliases.own().address;
    aliases.publish(0, id(1), alias(taken, 0));
    let Review::Moved(to) = aliases.clone().review(0, HOLD, true) else { panic!("the other one is older") };
    assert_ne!(to.address, taken, "those that are gone have expired");
    assert!(aliases.forget_expired(HOLD) && !aliases.forget_expired(HOLD));
    assert!(!aliases.write().lines().any(|line| line.starts_with(ALIAS)), "{}", aliases.write());
}

#[test]
fn who_waits_for_an_alias_gets_it_when_its_daemon_has_been_gone_for_too_long() {
    let mut aliases = new(ME, 0);
    let address = another(&aliases);
    aliases.publish(0, id(1), alias(address, 0));
    aliases.publish(SETTLE_MS, id(2), alias(address, 0));
    aliases.gone(SETTLE_MS, id(1));
    assert!(!aliases.forget_expired(SETTLE_MS + HOLD - 1));
    assert_eq!(aliases.holder(address), None);
    assert!(aliases.forget_expired(SETTLE_MS + HOLD));
    assert_eq!(aliases.holder(address), Some(id(2)));
}
