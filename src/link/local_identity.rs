//! This daemon's own identity, as its connections need it: name, keys and secrets, which may be replaced while it runs.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use pmd_core::membership::Identity;
use pmd_protocol::HostName;
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::{Hello, PROTOCOL};
use tokio::sync::watch;

use crate::auth::cookie::Cookies;
use crate::auth::tls::Tls;

/// This daemon.
#[derive(Debug)]
pub struct LocalIdentity {
    cluster: String,
    host: HostName,
    identity: watch::Receiver<Identity>,
    tls: RwLock<Arc<Tls>>,
    cookies: watch::Sender<Arc<Cookies>>,
    left: AtomicBool,
    departures: AtomicU64,
}

impl LocalIdentity {
    /// A daemon of the cluster named `cluster` on the host named `host`.
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
        }
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// Its host name.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Its id, which never changes.
    pub fn id(&self) -> NodeId {
        self.identity.borrow().id
    }

    /// Its present identity in the membership.
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// Its hello.
    pub fn hello(&self) -> Hello {
        let identity = self.identity();
        Hello {
            protocol: PROTOCOL,
            id: identity.id,
            generation: identity.generation,
            renewal: identity.renewal,
            host: self.host.as_str().to_owned(),
            cluster: self.cluster.clone(),
            addresses: identity.addresses,
            software: env!("CARGO_PKG_VERSION").to_owned(),
        }
    }

    /// Its key, its certificate, and what it requires of those of others.
    pub fn tls(&self) -> Arc<Tls> {
        Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces key and certificate; existing connections are not affected.
    pub fn set_tls(&self, tls: Arc<Tls>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// The cluster secrets that it accepts.
    pub fn cookies(&self) -> Arc<Cookies> {
        Arc::clone(&self.cookies.borrow())
    }

    /// The cluster secrets, with notice of changes.
    pub fn watch_cookies(&self) -> watch::Receiver<Arc<Cookies>> {
        self.cookies.subscribe()
    }

    /// Replaces the cluster secrets; existing connections are not affected. Returns whether they differ.
    pub fn set_cookies(&self, cookies: Arc<Cookies>) -> bool {
        let differ = *self.cookies() != *cookies;
        self.cookies.send_replace(cookies);
        differ
    }

    /// Whether it has left the cluster and admits nobody.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::SeqCst)
    }

    /// How often it has left. A connection that was begun before the last time is not to bring it back.
    pub fn departures(&self) -> u64 {
        self.departures.load(Ordering::SeqCst)
    }

    /// It leaves the cluster.
    pub fn leave(&self) {
        self.departures.fetch_add(1, Ordering::SeqCst);
        self.left.store(true, Ordering::SeqCst);
    }

    /// It joins the cluster again, unless it has left since it had done so `departures` times. Returns whether it is a member
    /// now.
    pub fn come_back(&self, departures: u64) -> bool {
        let same = self.departures() == departures;
        if same {
            self.left.store(false, Ordering::SeqCst);
        }
        same
    }
}
