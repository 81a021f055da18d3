//! This daemon's identity as its connections need it: name, keys and secrets, all replaceable at run time.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use pmd_core::membership::Identity;
use pmd_protocol::HostName;
use pmd_protocol::peer::frame::Hello;
use pmd_protocol::peer::{Expulsion, NodeId};
use tokio::sync::watch;

use crate::auth::cookie::{Cookies, Transition};
use crate::auth::tls::Tls;

/// The identity of this daemon.
#[derive(Debug)]
pub struct LocalIdentity {
    cluster: String,
    host: HostName,
    identity: watch::Receiver<Identity>,
    tls: RwLock<Arc<Tls>>,
    cookies: watch::Sender<Arc<Cookies>>,
    left: AtomicBool,
    departures: AtomicU64,
    /// A rotation of the secret that is going on, or whose grace is.
    transition: RwLock<Option<Arc<Transition>>>,
    /// The latest decision about each member that was ever expelled.
    decisions: watch::Sender<Arc<BTreeMap<NodeId, Expulsion>>>,
    /// When a member last refused this daemon because it was expelled, and in which words.
    expelled: Mutex<Option<String>>,
}

impl LocalIdentity {
    /// Creates the identity of a daemon in the cluster `cluster` on the host `host`.
    pub fn new(
        cluster: String,
        host: HostName,
        identity: watch::Receiver<Identity>,
        tls: Arc<Tls>,
        cookies: Arc<Cookies>,
    ) -> LocalIdentity {
        let (tls, cookies) = (RwLock::new(tls), watch::Sender::new(cookies));
        LocalIdentity {
            cluster,
            host,
            identity,
            tls,
            cookies,
            left: AtomicBool::new(false),
            departures: AtomicU64::new(0),
            transition: RwLock::default(),
            decisions: watch::Sender::default(),
            expelled: Mutex::default(),
        }
    }

    /// The cluster name.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The host name.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// The daemon's id, which never changes.
    pub fn id(&self) -> NodeId {
        self.identity.borrow().id
    }

    /// The daemon's current identity in the membership.
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// The `Hello` frame that this daemon sends.
    pub fn hello(&self) -> Hello {
        let identity = self.identity();
        Hello {
            id: identity.id,
            generation: identity.generation,
            renewal: identity.renewal,
            host: self.host.as_str().to_owned(),
            cluster: self.cluster.clone(),
            addresses: identity.addresses,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// The daemon's key and certificate, and how it verifies those of its peers.
    pub fn tls(&self) -> Arc<Tls> {
        Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces key and certificate; existing connections are not affected.
    pub fn set_tls(&self, tls: Arc<Tls>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// The cluster secrets that this daemon accepts.
    pub fn cookies(&self) -> Arc<Cookies> {
        Arc::clone(&self.cookies.borrow())
    }

    /// The cluster secrets, with notification of changes.
    pub fn watch_cookies(&self) -> watch::Receiver<Arc<Cookies>> {
        self.cookies.subscribe()
    }

    /// Replaces the cluster secrets; existing connections are not affected. Returns whether they differ.
    pub fn set_cookies(&self, cookies: Arc<Cookies>) -> bool {
        let differ = *self.cookies() != *cookies;
        self.cookies.send_replace(cookies);
        differ
    }

    /// The rotation of the secret that is going on, or whose grace is.
    pub fn transition(&self) -> Option<Arc<Transition>> {
        self.transition.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces the rotation of the secret that is going on.
    pub fn set_transition(&self, transition: Option<Transition>) {
        *self.transition.write().unwrap_or_else(PoisonError::into_inner) = transition.map(Arc::new);
    }

    /// The decision by which a member is expelled.
    pub fn expulsion_of(&self, id: &NodeId) -> Option<Expulsion> {
        self.decisions.borrow().get(id).filter(|decision| decision.expelled).cloned()
    }

    /// Waits until one of these members is expelled.
    pub async fn until_expelled(&self, ids: &[NodeId]) {
        let mut decisions = self.watch_decisions();
        let is_out = |all: &Arc<BTreeMap<NodeId, Expulsion>>| {
            ids.iter().any(|id| all.get(id).is_some_and(|decision| decision.expelled))
        };
        // This cannot fail: `self` owns the sender.
        let _ = decisions.wait_for(is_out).await;
    }

    /// The latest decision about each member that was ever expelled, with notification of changes.
    pub fn watch_decisions(&self) -> watch::Receiver<Arc<BTreeMap<NodeId, Expulsion>>> {
        self.decisions.subscribe()
    }

    /// Replaces the decisions.
    pub fn set_decisions(&self, decisions: BTreeMap<NodeId, Expulsion>) {
        self.decisions.send_replace(Arc::new(decisions));
    }

    /// Records what a member said when it refused this daemon as expelled, or that a member has accepted it.
    pub fn set_expelled(&self, text: Option<String>) {
        *self.expelled.lock().unwrap_or_else(PoisonError::into_inner) = text;
    }

    /// What a member said when it last refused this daemon as expelled, unless another one has accepted it since.
    pub fn expelled(&self) -> Option<String> {
        self.expelled.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether this daemon has left the cluster and rejects all peers.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// How often this daemon has left the cluster. A connection started before the last time must not make it rejoin.
    pub fn departures(&self) -> u64 {
        self.departures.load(Ordering::SeqCst)
    }

    /// Records that this daemon leaves the cluster.
    pub fn leave(&self) {
        self.departures.fetch_add(1, Ordering::SeqCst);
        self.left.store(true, Ordering::SeqCst);
    }

    /// Records that this daemon is a member again, unless it has left since `departures` was read. Returns whether it
    /// is a member now.
    pub fn rejoin(&self, departures: u64) -> bool {
        let same = self.departures() == departures;
        if same {
            self.left.store(false, Ordering::SeqCst);
        }
        same
    }
}
