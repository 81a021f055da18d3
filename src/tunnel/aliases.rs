//! The loopback address that stands for another host: always the same one, on this host and most often on all.
//!
//! A host begins with the address that its name hashes to; if another host has that, with the next free one. What a
//! host had, it gets again, for as long as it is remembered. A state machine without files and without a clock.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use sha2::{Digest, Sha256};

use crate::config::types::AliasRange;

/// For how long the name of a host that has gone without a farewell still means its alias: somebody who looks for it
/// shall be told at once that it is not there, and not wait for an address that does not answer.
pub const LISTED_S: u64 = 3_600;
/// Hosts that are gone and remembered.
const REMEMBERED: usize = 4_096;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Assigned {
    address: Ipv4Addr,
    /// When it was a member last, in seconds since the Unix epoch.
    seen_s: u64,
    /// Whether it is one now.
    here: bool,
    /// Whether it has said farewell.
    left: bool,
}

/// Which host has which address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Aliases {
    range: AliasRange,
    hosts: BTreeMap<String, Assigned>,
    taken: BTreeSet<Ipv4Addr>,
    /// Hosts without an address, because there is none left.
    without: BTreeSet<String>,
}

impl Aliases {
    /// Nobody has an address yet.
    #[must_use]
    pub fn new(range: AliasRange) -> Aliases {
        Aliases { range, hosts: BTreeMap::new(), taken: BTreeSet::new(), without: BTreeSet::new() }
    }

    /// What [`render`](Self::render) has written, at the time `now_s`. Lines that make no sense are left out: the file
    /// may be of another version, and an alias can always be given anew.
    #[must_use]
    pub fn parse(range: AliasRange, text: &str, now_s: u64) -> Aliases {
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
            // Who was there at the last change was there until this daemon ended, and most likely is now.
            let seen_s = if state == "here" { now_s } else { seen_s };
            let assigned = Assigned { address, seen_s, here: false, left: state == "left" };
            if let Some(before) = aliases.hosts.insert(host.to_owned(), assigned) {
                aliases.taken.remove(&before.address);
            }
        }
        aliases
    }

    /// As text, for [`parse`](Self::parse).
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

    /// The hosts that are members at the time `now_s`, and those that have left since the last call. Whether anything
    /// has changed.
    pub fn update(&mut self, now_s: u64, members: &BTreeSet<String>, left: &BTreeSet<String>) -> bool {
        let before = self.clone();
        for (host, assigned) in &mut self.hosts {
            let here = members.contains(host);
            if here || assigned.here {
                assigned.seen_s = if here && assigned.here { assigned.seen_s } else { now_s };
            }
            assigned.left = !here && (assigned.left || left.contains(host));
            assigned.here = here;
        }
        self.without.clear();
        for host in members.iter().filter(|host| is_a_name(host)) {
            if !self.hosts.contains_key(host) {
                self.assign(host, now_s);
            }
        }
        self.forget();
        *self != before
    }

    fn assign(&mut self, host: &str, now_s: u64) {
        let start = Self::hash(host);
        let free = (0..self.range.size())
            .map(|offset| self.range.nth(start.wrapping_add(offset)))
            .find(|address| !self.taken.contains(address))
            .or_else(|| self.take_away());
        match free {
            Some(address) => {
                self.taken.insert(address);
                let assigned = Assigned { address, seen_s: now_s, here: true, left: false };
                self.hosts.insert(host.to_owned(), assigned);
            }
            None => {
                self.without.insert(host.to_owned());
            }
        }
    }

    /// The address of the host that has been gone for longest.
    fn take_away(&mut self) -> Option<Ipv4Addr> {
        let longest_gone = self.hosts.iter().filter(|(_, assigned)| !assigned.here);
        let host = longest_gone.min_by_key(|(_, assigned)| assigned.seen_s)?.0.clone();
        let assigned = self.hosts.remove(&host)?;
        self.taken.remove(&assigned.address);
        Some(assigned.address)
    }

    fn forget(&mut self) {
        let gone = self.hosts.values().filter(|assigned| !assigned.here).count();
        for _ in REMEMBERED..gone {
            let _ = self.take_away();
        }
    }

    fn hash(host: &str) -> u32 {
        let digest: [u8; 32] = Sha256::digest(host.as_bytes()).into();
        let [a, b, c, d, ..] = digest;
        u32::from_be_bytes([a, b, c, d])
    }

    /// The address of a host.
    #[must_use]
    pub fn address(&self, host: &str) -> Option<Ipv4Addr> {
        self.hosts.get(host).map(|assigned| assigned.address)
    }

    /// All hosts with their addresses.
    pub fn all(&self) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.hosts.iter().map(|(host, assigned)| (host.as_str(), assigned.address))
    }

    /// The hosts whose names mean their aliases at the time `now_s`.
    pub fn listed(&self, now_s: u64) -> impl Iterator<Item = (&str, Ipv4Addr)> {
        self.hosts
            .iter()
            .filter(move |(_, assigned)| {
                assigned.here || (!assigned.left && now_s.saturating_sub(assigned.seen_s) < LISTED_S)
            })
            .map(|(host, assigned)| (host.as_str(), assigned.address))
    }

    /// Members that there was no address for.
    pub fn without(&self) -> impl Iterator<Item = &str> {
        self.without.iter().map(String::as_str)
    }
}

/// Whether a host can be called this in a hosts file: others have chosen it, and it must not be taken for anything else
/// there, nor for this host.
#[must_use]
pub fn is_a_name(host: &str) -> bool {
    let short = host.split('.').next().unwrap_or_default();
    !short.is_empty()
        && host.bytes().all(|byte| byte.is_ascii_alphanumeric() || b".-_".contains(&byte))
        && host.parse::<Ipv4Addr>().is_err()
        && !short.eq_ignore_ascii_case("localhost")
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

    #[test]
    fn a_host_that_comes_back_has_the_address_that_it_had() {
        let mut aliases = Aliases::new(AliasRange::default());
        assert!(aliases.update(0, &set(&["a", "b"]), &none()));
        let address = aliases.address("a");
        assert!(address.is_some());
        assert!(!aliases.update(5, &set(&["a", "b"]), &none()), "nothing has changed");
        aliases.update(10, &set(&["b"]), &none());
        let mut again = Aliases::parse(AliasRange::default(), &aliases.render(), 20);
        again.update(20, &set(&["a", "b", "c"]), &none());
        assert_eq!(again.address("a"), address);
    }

    #[test]
    fn names_are_listed_until_somebody_leaves_or_is_long_gone() {
        let mut aliases = Aliases::new(AliasRange::default());
        aliases.update(0, &set(&["dies", "leaves", "stays"]), &none());
        aliases.update(10, &set(&["stays"]), &set(&["leaves"]));
        let listed = |aliases: &Aliases, now| -> Vec<String> {
            aliases.listed(now).map(|(host, _)| host.to_owned()).collect()
        };
        assert_eq!(listed(&aliases, 11), ["dies", "stays"]);
        assert_eq!(listed(&aliases, 10 + LISTED_S), ["stays"]);
        let again = Aliases::parse(AliasRange::default(), &aliases.render(), 10_000_000);
        assert_eq!(listed(&again, 10_000_000), ["stays"], "it was there when this daemon ended");
    }

    #[test]
    fn the_longest_gone_gives_way_when_all_addresses_are_taken() {
        let mut aliases = Aliases::new("127.1.2.4/30".parse().expect("two addresses"));
        aliases.update(0, &set(&["old"]), &none());
        aliases.update(1, &set(&["new"]), &none());
        aliases.update(2, &set(&["new", "newer"]), &none());
        assert_eq!(aliases.address("old"), None);
        aliases.update(3, &set(&["new", "newer", "one too many"]), &none());
        assert_eq!(aliases.without().count(), 0, "it is no name");
        aliases.update(4, &set(&["new", "newer", "more"]), &none());
        assert_eq!(aliases.without().collect::<Vec<_>>(), ["more"]);
    }

    #[test]
    fn what_is_no_name_gets_no_line() {
        for wrong in ["localhost", "localhost.x", "10.0.0.1", "a b", "a\nb", "#", "", ".x"] {
            assert!(!is_a_name(wrong), "{wrong:?}");
        }
        assert!(is_a_name("db-1_x.example.org"));
    }

    proptest! {
        #[test]
        fn no_two_hosts_have_one_address_and_none_moves(
            rounds in prop::collection::vec(prop::collection::btree_set("[a-f]{1,2}", 0..12), 1..12)
        ) {
            let range: AliasRange = "127.9.0.0/26".parse().expect("a range");
            let mut aliases = Aliases::new(range);
            let mut first: BTreeMap<String, Ipv4Addr> = BTreeMap::new();
            for (now, members) in (0..).zip(&rounds) {
                aliases.update(now, members, &none());
                aliases = Aliases::parse(range, &aliases.render(), now);
                aliases.update(now, members, &none());
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
            let _ = Aliases::parse(AliasRange::default(), &text, 0);
        }
    }
}
