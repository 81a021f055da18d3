//! Whether a host needs tunnels: those with `tunnel = "when-needed"` are left to plain Erlang if that works.
//!
//! It works if the host's name means, without pmd, an address that its daemon advertises, and one of its nodes accepts a
//! connection there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::directory::cluster::ClusterDirectory;

/// How often a host is tried again.
const AGAIN: Duration = Duration::from_secs(60);
/// Time for an attempt.
const TIMEOUT: Duration = Duration::from_secs(3);
/// Nodes that are tried on one host.
const NODES: usize = 3;

/// What is known of the hosts in question.
#[derive(Debug)]
pub struct Reachable {
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
    /// Nothing is known yet: tunnels are used.
    pub fn new(directory: Arc<ClusterDirectory>) -> Reachable {
        Reachable { directory, known: Arc::default(), tried: BTreeMap::new() }
    }

    /// Whether plain Erlang works with this host.
    pub fn is_plain(&self, host: &str) -> bool {
        self.known.plain.lock().unwrap_or_else(PoisonError::into_inner).contains(host)
    }

    /// Waits until more is known.
    pub async fn changed(&self) {
        self.known.news.notified().await;
    }

    /// Tries the hosts whose turn it is.
    pub fn check(&mut self, hosts: BTreeSet<String>) {
        self.tried.retain(|host, _| hosts.contains(host));
        self.known.plain.lock().unwrap_or_else(PoisonError::into_inner).retain(|host| hosts.contains(host));
        for host in hosts {
            let names = self.directory.names_on(&host);
            let is_due = self.tried.get(&host).is_none_or(|tried| tried.elapsed() >= AGAIN);
            // Without a node there is nothing to be tried.
            if !is_due || names.is_empty() {
                continue;
            }
            self.tried.insert(host.clone(), Instant::now());
            let ports: Vec<u16> = names.values().take(NODES).map(|(_, registered)| registered.port).collect();
            let own = names.into_values().flat_map(|(origin, _)| self.directory.addresses_of(&origin));
            let own: BTreeSet<_> = own.map(|address| address.ip().to_canonical()).collect();
            let known = Arc::clone(&self.known);
            tokio::spawn(async move {
                let attempt = async {
                    for port in ports {
                        let Ok(found) = tokio::net::lookup_host((host.as_str(), port)).await else {
                            return false;
                        };
                        // Erlang takes the first, as it comes.
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
