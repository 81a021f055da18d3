//! Checks whether hosts with `tunnel = "when-needed"` need tunnels.
//!
//! A host needs none if its name resolves without pmd to an address that its daemon advertises, and one of its nodes
//! accepts a connection there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::directory::cluster::ClusterDirectory;
use crate::link::dial_targets::DialTargets;
use crate::link::local_identity::LocalIdentity;

/// Interval between checks of a host.
const AGAIN: Duration = Duration::from_secs(60);
/// Timeout for a check.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Maximum number of nodes that are tried on one host.
const NODES: usize = 3;

/// The results of the checks.
#[derive(Debug)]
pub struct Reachable {
    identity: Arc<LocalIdentity>,
    directory: Arc<ClusterDirectory>,
    known: Arc<Known>,
    tried: BTreeMap<String, Instant>,
}

#[derive(Debug, Default)]
struct Known {
    plain: Mutex<BTreeSet<String>>,
    news: Notify,
}

impl Reachable {
    /// Creates a checker without results; until there are any, tunnels are used.
    pub fn new(identity: Arc<LocalIdentity>, directory: Arc<ClusterDirectory>) -> Reachable {
        Reachable { identity, directory, known: Arc::default(), tried: BTreeMap::new() }
    }

    /// Whether Erlang nodes can reach this host without tunnels.
    pub fn is_plain(&self, host: &str) -> bool {
        self.known.plain.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    /// Waits until a result changes.
    pub async fn changed(&self) {
        self.known.news.notified().await;
    }

    /// Checks the hosts that are due, in the background, and forgets all others.
    pub fn check(&mut self, hosts: BTreeSet<String>) {
        self.tried.retain(|host, _| hosts.contains(host));
        self.known.plain.lock().unwrap_or_else(PoisonError::into_inner).retain(|host| hosts.contains(host));
        for host in hosts {
            let names = self.directory.names_on(&host);
            let is_due = self.tried.get(&host).is_none_or(|tried| tried.elapsed() >= AGAIN);
            // A host without nodes cannot be checked.
            if !is_due || names.is_empty() {
                continue;
            }
            self.tried.insert(host.clone(), Instant::now());
            let ports: Vec<u16> = names.values().take(NODES).map(|(_, registered)| registered.port).collect();
            let own = names.into_values().flat_map(|(origin, _)| self.directory.addresses_of(&origin));
            // The name of a host may resolve to loopback here, and its daemon may advertise that.
            let own = DialTargets::of_member(&self.identity.identity().addresses, &own.collect::<Vec<_>>());
            let own: BTreeSet<_> =
                own.addresses().iter().map(|address| address.ip().to_canonical()).collect();
            let known = Arc::clone(&self.known);
            tokio::spawn(async move {
                let attempt = async {
                    for port in ports {
                        let Ok(found) = tokio::net::lookup_host((host.as_str(), port)).await else {
                            return false;
                        };
                        // Erlang uses the first IPv4 address as well.
                        let Some(address) = found.into_iter().find(std::net::SocketAddr::is_ipv4) else {
                            return false;
                        };
                        if !own.contains(&address.ip().to_canonical()) {
                            return false;
                        }
                        if TcpStream::connect(address).await.is_ok() {
                            return true;
                        }
                    }
                    false
                };
                let plain = tokio::time::timeout(TIMEOUT, attempt).await.unwrap_or(false);
                let mut all = known.plain.lock().unwrap_or_else(PoisonError::into_inner);
                let changed = if plain { all.insert(host) } else { all.remove(&host) };
                drop(all);
                if changed {
                    known.news.notify_one();
                }
            });
        }
    }
}
