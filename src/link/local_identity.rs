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
use crate::auth::revocation::{CertificateIds, Serial, VerifiedLists};
use crate::auth::tls::Tls;

/// What a peer has proven, and may be put out for.
#[derive(Debug, Clone)]
pub struct Credentials {
    /// Its id.
    pub id: NodeId,
    /// Its certificates, if an authority has issued them.
    pub certificates: Option<Arc<CertificateIds>>,
}

impl Credentials {
    /// The serial number of its certificate that is revoked.
    pub fn revoked<'a>(&'a self, lists: &VerifiedLists) -> Option<&'a Serial> {
        lists.revoked(self.certificates.as_deref()?)
    }
}

/// A member has refused this daemon for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Barred {
    /// Whether because its certificate is revoked; otherwise it was expelled.
    pub is_revoked: bool,
    /// What the member said.
    pub text: String,
}

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
    /// The latest list of revoked certificates of each authority.
    revocations: watch::Sender<Arc<VerifiedLists>>,
    /// What a member said when it last refused this daemon because it was expelled, or its certificate revoked.
    barred: Mutex<Option<Barred>>,
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
            revocations: watch::Sender::default(),
            barred: Mutex::default(),
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

    /// Waits until one of these peers is expelled, or its certificate revoked.
    pub async fn until_barred(&self, peers: &[Credentials]) {
        let (mut decisions, mut lists) = (self.watch_decisions(), self.revocations.subscribe());
        let is_expelled = |all: &Arc<BTreeMap<NodeId, Expulsion>>| {
            peers.iter().any(|peer| all.get(&peer.id).is_some_and(|decision| decision.expelled))
        };
        let is_revoked = |lists: &Arc<VerifiedLists>| peers.iter().any(|peer| peer.revoked(lists).is_some());
        // Neither can fail: `self` owns the senders.
        tokio::select! {
            _ = decisions.wait_for(is_expelled) => {}
            _ = lists.wait_for(is_revoked) => {}
        }
    }

    /// The latest list of revoked certificates of each authority.
    pub fn revocations(&self) -> Arc<VerifiedLists> {
        Arc::clone(&self.revocations.borrow())
    }

    /// Replaces the lists of revoked certificates.
    pub fn set_revocations(&self, lists: VerifiedLists) {
        self.revocations.send_replace(Arc::new(lists));
    }

    /// The serial number of this daemon's certificate, if its authority has revoked it.
    pub fn own_revocation(&self) -> Option<Serial> {
        let tls = self.tls();
        self.revocations().revoked(tls.own_certificates()?).cloned()
    }

    /// The latest decision about each member that was ever expelled, with notification of changes.
    pub fn watch_decisions(&self) -> watch::Receiver<Arc<BTreeMap<NodeId, Expulsion>>> {
        self.decisions.subscribe()
    }

    /// Replaces the decisions.
    pub fn set_decisions(&self, decisions: BTreeMap<NodeId, Expulsion>) {
        self.decisions.send_replace(Arc::new(decisions));
    }

    /// Records what a member said when it refused this daemon as expelled or revoked, or that a member has accepted it.
    pub fn set_barred(&self, said: Option<Barred>) {
        *self.barred.lock().unwrap_or_else(PoisonError::into_inner) = said;
    }

    /// What a member said when it last refused this daemon as expelled or revoked, unless another one has accepted it since.
    pub fn barred(&self) -> Option<Barred> {
        self.barred.lock().unwrap_or_else(PoisonError::into_inner).clone()
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
