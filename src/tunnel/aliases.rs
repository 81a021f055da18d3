//! Assigns an alias, a loopback address, to each other host.
//!
//! That is the one on which all hosts [agree](crate::directory::agreed_aliases). A host whose daemon is of an older version
//! publishes none, and one whose alias is contested has none: it gets the address that its name hashes to, or the next free
//! one, which may differ between hosts. A host that returns gets its old alias while it is remembered. This is a state
//! machine; its caller handles files and the clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use crate::base::first_choice::first_choice;
use crate::config::ranges::LoopbackRange;

/// How long a host that was a member when this daemon stopped stays listed after the restart, until it is a member
/// again. All other names disappear with their host: one that lingers would outlive whoever claimed it.
pub const AWAITED_S: u64 = 60;
/// Maximum number of absent hosts that are remembered.
const REMEMBERED: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Assigned {
    address: Ipv4Addr,
    /// When the host was last a member, in seconds since the Unix epoch.
    seen_s: u64,
    /// Whether it is a member now.
    here: bool,
    /// Whether it left the cluster, as opposed to vanishing.
    left: bool,
    /// Whether it was a member when this daemon stopped, and has not been one since.
    awaited: bool,
}

/// The aliases of all hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aliases {
    range: LoopbackRange,
    hosts: BTreeMap<String, Assigned>,
    taken: BTreeSet<Ipv4Addr>,
    /// Members without an alias, because the range is used up.
    without: BTreeSet<String>,
}

/// What hosts have published about their aliases.
#[derive(Debug, Clone, Copy)]
pub struct Published<'a> {
    /// The alias of each host, as far as it is agreed on.
    pub agreed: &'a BTreeMap<String, Ipv4Addr>,
    /// All of them, that of this host included: no other host gets any of these.
    pub all: &'a BTreeSet<Ipv4Addr>,
}

impl Aliases {
    /// Creates an empty assignment.
    #[must_use]
    pub fn new(range: LoopbackRange) -> Aliases {
        Aliases { range, hosts: BTreeMap::new(), taken: BTreeSet::new(), without: BTreeSet::new() }
    }

    /// Parses the output of [`render`](Self::render) at the time `now_s`. Malformed lines are ignored: the file may
    /// come from another version, and a lost alias is assigned again.
    #[must_use]
    pub fn parse(range: LoopbackRange, text: &str, now_s: u64) -> Aliases {
        let mut aliases = Aliases::new(range);
        for line in text.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(address), Some(host), Some(seen), Some(state)) =
                (words.next(), words.next(), words.next(), words.next())
            else {
                continue;
            };
            let (Ok(address), Ok(seen_s)) = (address.parse::<Ipv4Addr>(), seen.parse::<u64>()) else {
                continue;
            };
            if !range.contains(address) || aliases.hosts.len() >= REMEMBERED || !aliases.taken.insert(address)
            {
                continue;
            }
            // A host that was a member when the file was written was one until this daemon stopped, and probably still
            // is.
            let seen_s = if state == "here" { now_s } else { seen_s };
            let awaited = state == "here";
            let assigned = Assigned { address, seen_s, here: false, left: state == "left", awaited };
            if let Some(before) = aliases.hosts.insert(host.to_owned(), assigned) {
                aliases.taken.remove(&before.address);
            }
        }
        aliases
    }

    /// Renders the aliases as text for [`parse`](Self::parse).
    #[must_use]
    pub fn render(&self) -> String {
        let state = |assigned: &Assigned| match assigned {
            Assigned { here: true, .. } => "here",
            Assigned { left: true, .. } => "left",
            _ => "gone",
        };
        self.hosts
            .iter()
            .map(|(host, assigned)| {
                format!("{} {host} {} {}\n", assigned.address, assigned.seen_s, state(assigned))
            })
            .collect()
    }

    /// Follows the cluster: `members` are its hosts at the time `now_s`, `left` those that left since the last call, and
    /// `published` what they say about their aliases. Returns whether anything changed.
    pub fn update(
        &mut self,
        now_s: u64,
        members: &BTreeSet<String>,
        left: &BTreeSet<String>,
        published: Published<'_>,
    ) -> bool {
        let before = self.clone();
        let Published { agreed, all } = published;
        let is_right = |host: &String, address: &Ipv4Addr| match agreed.get(host) {
            Some(agreed) => agreed == address,
            None => !all.contains(address),
        };
        // A host that publishes an alias and is no member here has none: the rules say that it is not reached by tunnels.
        let is_wanted = |host: &String| members.contains(host) || !agreed.contains_key(host);
        self.hosts.retain(|host, assigned| is_wanted(host) && is_right(host, &assigned.address));
        self.taken = self.hosts.values().map(|assigned| assigned.address).collect();
        for (host, assigned) in &mut self.hosts {
            let here = members.contains(host);
            if here || assigned.here {
                assigned.seen_s = if here && assigned.here { assigned.seen_s } else { now_s };
            }
            assigned.left = !here && (assigned.left || left.contains(host));
            assigned.awaited &= !here && !assigned.left;
            assigned.here = here;
        }
        self.without.clear();
        for host in members.iter().filter(|host| is_safe_name(host)) {
            if !self.hosts.contains_key(host) {
                self.assign(host, now_s, published);
            }
        }
        self.forget();
        *self != before
    }

    fn assign(&mut self, host: &str, now_s: u64, published: Published<'_>) {
        let start = first_choice(host);
        let is_free = |address: &Ipv4Addr| !self.taken.contains(address) && !published.all.contains(address);
        let agreed = published.agreed.get(host).copied();
        let free = agreed
            .or_else(|| {
                let mut all = (0..self.range.size()).map(|offset| self.range.nth(start.wrapping_add(offset)));
                all.find(is_free)
            })
            .or_else(|| self.evict());
        match free {
            Some(address) => {
                self.taken.insert(address);
                let assigned = Assigned { address, seen_s: now_s, here: true, left: false, awaited: false };
                self.hosts.insert(host.to_owned(), assigned);
            }
            None => {
                self.without.insert(host.to_owned());
            }
        }
    }

    /// Frees the address of the host that has been absent for longest.
    fn evict(&mut self) -> Option<Ipv4Addr> {
        let absent = self.hosts.iter().filter(|(_, assigned)| !assigned.here);
        let host = absent.min_by_key(|(_, assigned)| assigned.seen_s)?.0.clone();
        let assigned = self.hosts.remove(&host)?;
        self.taken.remove(&assigned.address);
        Some(assigned.address)
    }

    fn forget(&mut self) {
        let gone = self.hosts.values().filter(|assigned| !assigned.here).count();
        for _ in REMEMBERED..gone {
            let _ = self.evict();
        }
    }

    /// The alias of a host.
    #[must_use]
    pub fn address(&self, host: &str) -> Option<Ipv4Addr> {
        self.hosts.get(host).map(|assigned| assigned.address)
    }

    /// All hosts with their aliases.
    pub fn all(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.hosts.iter().map(|(host, assigned)| (host.as_str(), assigned.address))
    }

    /// The hosts whose names resolve to their aliases at the time `now_s`.
    pub fn listed(&self, now_s: u64) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.hosts
            .iter()
            .filter(move |(_, assigned)| {
                assigned.here || (assigned.awaited && now_s.saturating_sub(assigned.seen_s) < AWAITED_S)
            })
            .map(|(host, assigned)| (host.as_str(), assigned.address))
    }

    /// Members without an alias, because the range is used up.
    pub fn without(&self) -> impl Iterator<Item = &str> {
        self.without.iter().map(String::as_str)
    }
}

/// Whether this name is safe in a hosts file. It comes from another host, and must not break the syntax, look like an
/// address or refer to this host, as `localhost` and the usual `ip6-localhost`, `ip6-allnodes` and so on do.
#[must_use]
pub fn is_safe_name(host: &str) -> bool {
    // Empty parts include the one after a trailing dot, which resolvers ignore.
    let is_ordinary = |part: &str| !part.is_empty() && !part.eq_ignore_ascii_case("localhost");
    host.split('.').all(is_ordinary)
        && !host.get(..4).is_some_and(|start| start.eq_ignore_ascii_case("ip6-"))
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && host.parse::<Ipv4Addr>().is_err()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn set(hosts: &[&str]) -> BTreeSet<String> {
        hosts.iter().map(|host| (*host).to_owned()).collect()
    }

    fn none() -> BTreeSet<String> {
        BTreeSet::new()
    }

    static NO_AGREED: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
    static NO_ALIAS: BTreeSet<Ipv4Addr> = BTreeSet::new();
    const PUBLISHED: Published<'_> = Published { agreed: &NO_AGREED, all: &NO_ALIAS };

    #[test]
    fn a_host_has_the_alias_that_is_agreed_on_and_no_other_gets_a_published_one() {
        let mut aliases = Aliases::new(LoopbackRange::ALIASES);
        aliases.update(0, &set(&["old", "new"]), &none(), PUBLISHED);
        let (olds, news) = (aliases.address("old").expect("one"), aliases.address("new").expect("one"));
        // The new one publishes the address that was the old one's here.
        let agreed = BTreeMap::from([("new".to_owned(), olds)]);
        let own = Ipv4Addr::new(127, 77, 9, 9);
        let all = BTreeSet::from([olds, own]);
        let published = Published { agreed: &agreed, all: &all };
        assert!(aliases.update(1, &set(&["old", "new"]), &none(), published));
        assert_eq!(aliases.address("new"), Some(olds));
        assert!(aliases.address("old").is_some_and(|address| !all.contains(&address)));
        assert!(!aliases.update(2, &set(&["old", "new"]), &none(), published), "nothing has changed");
        // It gives the alias up, and is of an older version from now on.
        assert!(aliases.update(3, &set(&["new"]), &none(), Published { agreed: &NO_AGREED, all: &all }));
        assert_eq!(aliases.address("new"), Some(news));
        // A host that is not reached by tunnels has none.
        aliases.update(4, &none(), &none(), published);
        assert_eq!(aliases.address("new"), None);
    }

    #[test]
    fn a_host_that_returns_gets_its_old_address() {
        let mut aliases = Aliases::new(LoopbackRange::ALIASES);
        assert!(aliases.update(0, &set(&["a", "b"]), &none(), PUBLISHED));
        let address = aliases.address("a");
        assert!(address.is_some());
        assert!(!aliases.update(5, &set(&["a", "b"]), &none(), PUBLISHED), "nothing has changed");
        aliases.update(10, &set(&["b"]), &none(), PUBLISHED);
        let mut again = Aliases::parse(LoopbackRange::ALIASES, &aliases.render(), 20);
        again.update(20, &set(&["a", "b", "c"]), &none(), PUBLISHED);
        assert_eq!(again.address("a"), address);
    }

    #[test]
    fn names_disappear_with_their_host_and_a_restart_waits_for_it() {
        let mut aliases = Aliases::new(LoopbackRange::ALIASES);
        aliases.update(0, &set(&["dies", "leaves", "stays"]), &none(), PUBLISHED);
        aliases.update(10, &set(&["stays"]), &set(&["leaves"]), PUBLISHED);
        let listed = |aliases: &Aliases, now| -> Vec<String> {
            aliases.listed(now).map(|(host, _)| host.to_owned()).collect()
        };
        assert_eq!(listed(&aliases, 10), ["stays"]);
        let restart = 10_000_000;
        let mut again = Aliases::parse(LoopbackRange::ALIASES, &aliases.render(), restart);
        again.update(restart, &none(), &none(), PUBLISHED);
        assert_eq!(listed(&again, restart), ["stays"], "it was there when this daemon ended");
        assert!(listed(&again, restart + AWAITED_S).is_empty(), "it did not come back");
        again.update(restart + 1, &set(&["stays"]), &none(), PUBLISHED);
        again.update(restart + 2, &none(), &none(), PUBLISHED);
        assert!(listed(&again, restart + 2).is_empty(), "it came back and is gone");
    }

    #[test]
    fn the_host_absent_for_longest_is_evicted_when_all_addresses_are_taken() {
        let mut aliases = Aliases::new("127.1.2.4/30".parse().expect("two addresses"));
        aliases.update(0, &set(&["old"]), &none(), PUBLISHED);
        aliases.update(1, &set(&["new"]), &none(), PUBLISHED);
        aliases.update(2, &set(&["new", "newer"]), &none(), PUBLISHED);
        assert_eq!(aliases.address("old"), None);
        aliases.update(3, &set(&["new", "newer", "one too many"]), &none(), PUBLISHED);
        assert_eq!(aliases.without().count(), 0, "the name is not safe");
        aliases.update(4, &set(&["new", "newer", "more"]), &none(), PUBLISHED);
        assert_eq!(aliases.without().collect::<Vec<_>>(), ["more"]);
    }

    #[test]
    fn unsafe_names_are_rejected() {
        for wrong in [
            "localhost",
            "LOCALHOST",
            "localhost.x",
            "a.localhost",
            "10.0.0.1",
            "a b",
            "a\nb",
            "#",
            "",
            ".x",
            "db5.",
            "localhost.",
            "a..b",
            "ip6-localhost",
            "IP6-allnodes",
        ] {
            assert!(!is_safe_name(wrong), "{wrong:?}");
        }
        assert!(is_safe_name("db-1_x.example.org"));
    }

    proptest! {
        #[test]
        fn addresses_are_unique_and_stable(
            rounds in prop::collection::vec(prop::collection::btree_set("[a-f]{1,2}", 0..12), 1..12)
        ) {
            let range: LoopbackRange = "127.9.0.0/26".parse().expect("a range");
            let mut aliases = Aliases::new(range);
            let mut first: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
            for (now, members) in (0..).zip(&rounds) {
                aliases.update(now, members, &none(), PUBLISHED);
                aliases = Aliases::parse(range, &aliases.render(), now);
                aliases.update(now, members, &none(), PUBLISHED);
                let addresses: BTreeSet<Ipv4Addr> = aliases.all().map(|(_, address)| address).collect();
                prop_assert_eq!(addresses.len(), aliases.all().count());
                prop_assert!(addresses.iter().all(|address| range.contains(*address)));
                for member in members {
                    let Some(address) = aliases.address(member) else { continue };
                    if aliases.all().count() < 40 {
                        prop_assert_eq!(*first.entry(member.clone()).or_insert(address), address);
                    }
                }
            }
        }

        #[test]
        fn any_text_is_harmless(text in ".{0,200}") {
            let _ = Aliases::parse(LoopbackRange::ALIASES, &text, 0);
        }
    }
}
