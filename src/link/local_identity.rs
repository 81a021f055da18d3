//! What this daemon is to its peers, as every connection needs to know it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use pmd_core::membership::Identity;
use pmd_protocol::HostName;
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::{Hello, PROTOCOL};
use tokio::sync::watch;

use crate::auth::cookie::Cookies;
use crate::auth::tls::Tls;

/// This daemon. What can change while it runs can be read at any time.
#[derive(Debug)]
pub struct Me {
    cluster: String,
    host: HostName,
    identity: watch::Receiver<Identity>,
    tls: RwLock<Arc<Tls>>,
    cookies: watch::Sender<Arc<Cookies>>,
    left: AtomicBool,
}

impl Me {
    /// A daemon of the cluster called `cluster` on the host called `host`.
    pub fn new(
        cluster: String,
        host: HostName,
        identity: watch::Receiver<Identity>,
        tls: Arc<Tls>,
        cookies: Arc<Cookies>,
    ) -> Me {
        let (tls, cookies) = (RwLock::new(tls), watch::Sender::new(cookies));
        Me { cluster, host, identity, tls, cookies, left: AtomicBool::new(false) }
    }

    /// The name of its cluster.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }

    /// The name of its host.
    pub fn host(&self) -> &HostName {
        &self.host
    }

    /// Its id, which stays.
    pub fn id(&self) -> NodeId {
        self.identity.borrow().id
    }

    /// What the membership calls it at the moment.
    pub fn identity(&self) -> Identity {
        self.identity.borrow().clone()
    }

    /// How it greets.
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

    /// Its key and certificate, and what it asks of others'.
    pub fn tls(&self) -> Arc<Tls> {
        Arc::clone(&self.tls.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Uses another certificate from now on; links that stand are not touched.
    pub fn set_tls(&self, tls: Arc<Tls>) {
        *self.tls.write().unwrap_or_else(PoisonError::into_inner) = tls;
    }

    /// The cookies that it accepts.
    pub fn cookies(&self) -> Arc<Cookies> {
        Arc::clone(&self.cookies.borrow())
    }

    /// The cookies, and when they change.
    pub fn watch_cookies(&self) -> watch::Receiver<Arc<Cookies>> {
        self.cookies.subscribe()
    }

    /// Accepts other cookies from now on; links that stand are not touched. Whether they differ.
    pub fn set_cookies(&self, cookies: Arc<Cookies>) -> bool {
        let differ = *self.cookies() != *cookies;
        self.cookies.send_replace(cookies);
        differ
    }

    /// Whether it has left the cluster and lets nobody in.
    pub fn has_left(&self) -> bool {
        self.left.load(Ordering::Relaxed)
    }

    /// Leaves, or comes back.
    pub fn set_left(&self, left: bool) {
        self.left.store(left, Ordering::Relaxed);
    }
}
