//! Assigns loopback addresses to nodes on other hosts.
//!
//! A node on this host dials a remote node at such an address, on the daemon's own port, so the daemon needs no other
//! port, and a local program may use any. A node keeps its address until all addresses are taken; then the one that was
//! looked up least recently gives its address to the next. This is a state machine without I/O.

use std::collections::{BTreeMap, HashMap};
use std::net::Ipv4Addr;

use crate::base::first_choice::first_choice;
use crate::config::ranges::LoopbackRange;
use crate::directory::Target;

/// Maximum number of addresses that are assigned at a time: far more than the nodes that nodes of one host connect to.
const MAX_ASSIGNED: usize = 16_384;
/// The same if each address needs a listening socket, and so a descriptor.
const MAX_LISTENING: usize = 1_024;

#[derive(Debug, Clone)]
struct Assigned<T> {
    target: Target,
    /// When it was looked up last, as a number that increases with each lookup.
    asked: u64,
    /// What its user keeps with it.
    kept: T,
}

/// The addresses of nodes on other hosts. With each, its user keeps a `T`, which is dropped when the address is assigned to
/// another node.
#[derive(Debug)]
pub struct NodeAddresses<T> {
    range: LoopbackRange,
    most: usize,
    by_address: HashMap<Ipv4Addr, Assigned<T>>,
    by_target: HashMap<Target, Ipv4Addr>,
    /// The addresses in the order of their last lookups.
    order: BTreeMap<u64, Ipv4Addr>,
    lookups: u64,
}

impl<T> NodeAddresses<T> {
    /// No address of this range is assigned yet. Each needs a listening socket unless they are `covered` by one.
    #[must_use]
    pub fn new(range: LoopbackRange, covered: bool) -> NodeAddresses<T> {
        let size = usize::try_from(range.size()).unwrap_or(usize::MAX);
        NodeAddresses {
            range,
            most: size.min(if covered { MAX_ASSIGNED } else { MAX_LISTENING }),
            by_address: HashMap::new(),
            by_target: HashMap::new(),
            order: BTreeMap::new(),
            lookups: 0,
        }
    }

    /// The address of a node that is looked up, and what is kept with it: the result of `make`, if the address is new.
    ///
    /// # Errors
    ///
    /// That of `make`; then the node has no address.
    pub fn assign<E>(
        &mut self,
        target: &Target,
        make: impl FnOnce(Ipv4Addr) -> Result<T, E>,
    ) -> Result<Ipv4Addr, E> {
        self.lookups += 1;
        if let Some(address) = self.by_target.get(target) {
            if let Some(assigned) = self.by_address.get_mut(address) {
                self.order.remove(&assigned.asked);
                assigned.asked = self.lookups;
                self.order.insert(self.lookups, *address);
            }
            return Ok(*address);
        }
        if self.by_address.len() >= self.most
            && let Some((_, oldest)) = self.order.pop_first()
            && let Some(assigned) = self.by_address.remove(&oldest)
        {
            self.by_target.remove(&assigned.target);
        }
        let start = first_choice(&format!("{}\0{}", target.host, target.name));
        let is_free = |address: &Ipv4Addr| !self.by_address.contains_key(address);
        let address = (0..self.range.size())
            .map(|offset| self.range.nth(start.wrapping_add(offset)))
            .find(is_free)
            .unwrap_or_else(|| self.range.nth(start));
        let kept = make(address)?;
        self.by_address.insert(address, Assigned { target: target.clone(), asked: self.lookups, kept });
        self.by_target.insert(target.clone(), address);
        self.order.insert(self.lookups, address);
        Ok(address)
    }

    /// The node that has this address.
    #[must_use]
    pub fn behind(&self, address: Ipv4Addr) -> Option<&Target> {
        self.by_address.get(&address).map(|assigned| &assigned.target)
    }

    /// The number of nodes that have an address.
    #[must_use]
    pub fn count(&self) -> usize {
        self.by_address.len()
    }

    /// What is kept with each address.
    pub fn kept(&self) -> impl Iterator<Item = &T> {
        self.by_address.values().map(|assigned| &assigned.kept)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::convert::Infallible;

    use pmd_protocol::peer::{Kind, NodeId};
    use proptest::prelude::*;

    use super::*;

    fn target(name: &str) -> Target {
        Target { origin: NodeId::MIN, host: "far".into(), kind: Kind::NAME, name: name.into(), pinned: None }
    }

    fn assign(addresses: &mut NodeAddresses<()>, name: &str) -> Ipv4Addr {
        addresses.assign(&target(name), |_| Ok::<(), Infallible>(())).unwrap_or(Ipv4Addr::UNSPECIFIED)
    }

    #[test]
    fn a_node_keeps_its_address() {
        let mut addresses = NodeAddresses::new(LoopbackRange::NODES, true);
        let bar = assign(&mut addresses, "bar");
        let baz = assign(&mut addresses, "baz");
        assert_ne!(bar, baz);
        assert_eq!(assign(&mut addresses, "bar"), bar);
        assert_eq!(addresses.behind(bar), Some(&target("bar")));
        assert_eq!(addresses.behind(Ipv4Addr::LOCALHOST), None);
        assert_eq!(addresses.count(), 2);
        assert_eq!(
            assign(&mut NodeAddresses::new(LoopbackRange::NODES, true), "bar"),
            bar,
            "also after a restart"
        );
    }

    #[test]
    fn the_node_that_was_looked_up_least_recently_gives_its_address_up() {
        let mut addresses = NodeAddresses::new("127.1.2.4/30".parse().expect("two addresses"), true);
        let one = assign(&mut addresses, "one");
        let two = assign(&mut addresses, "two");
        assign(&mut addresses, "one");
        assert_eq!(assign(&mut addresses, "three"), two);
        assert_eq!(addresses.behind(one), Some(&target("one")));
        assert_eq!(addresses.behind(two), Some(&target("three")));
    }

    #[test]
    fn a_node_whose_address_is_of_no_use_gets_none() {
        let mut addresses: NodeAddresses<()> = NodeAddresses::new(LoopbackRange::NODES, true);
        assert_eq!(addresses.assign(&target("bar"), |_| Err("in use")), Err("in use"));
        assert_eq!(addresses.count(), 0);
        assert!(addresses.by_target.is_empty() && addresses.order.is_empty());
    }

    proptest! {
        #[test]
        fn no_two_nodes_have_one_address(names in prop::collection::vec("[a-d]{1,2}", 1..80)) {
            let mut addresses = NodeAddresses::new("127.9.0.0/29".parse().expect("a range"), true);
            for name in &names {
                let address = assign(&mut addresses, name);
                prop_assert_eq!(addresses.behind(address), Some(&target(name)));
                let distinct: BTreeSet<&Target> =
                    addresses.by_address.values().map(|assigned| &assigned.target).collect();
                prop_assert_eq!(distinct.len(), addresses.count());
                prop_assert_eq!(addresses.order.len(), addresses.count());
                prop_assert!(addresses.count() <= 6);
            }
        }
    }
}
