//! Claims: names that one member of the cluster holds at a time, decided by the voters that the configuration names.
//!
//! ```text
//!   control API ── commands ──▶ driver (its own thread) ──▶ holder ── requests ──▶ voter on this or another host
//!   other members ── frames ──▶   └─ voter, if this host is one ── records ──▶ store, fsynced before a frame leaves
//! ```
//!
//! The decisions are in [`pmd_core::claims`]. Without `voters` nothing of this runs. A fault in here ends the claims of
//! this daemon, and nothing else.

mod connection;
mod driver;
mod handle;
mod own_voter;
mod store;

use std::sync::Arc;

use tokio::runtime::Handle;

use crate::auth::tls::ALPN_CLAIMS;
use crate::base::permit::Permit;
use crate::base::stats::Counters;
use crate::base::supervise::Supervisor;
use crate::config::cluster::ClusterSettings;
use crate::directory::cluster::ClusterDirectory;
use crate::link::dial::Dialer;
use crate::link::handshake::ProvenPeer;
use crate::link::local_identity::LocalIdentity;
use crate::link::protocol::{Protocol, Serving};

pub use pmd_core::claims::holder::Loss;

pub use handle::{Claims, Failed, HeldClaim, State, VoterView};

/// What claims depend on.
#[derive(Debug)]
pub struct Parts<'a> {
    /// The settings.
    pub settings: &'a ClusterSettings,
    /// This daemon.
    pub local: &'a Arc<LocalIdentity>,
    /// The other members.
    pub directory: &'a Arc<ClusterDirectory>,
    /// Dials the voters.
    pub dialer: &'a Dialer,
    /// Counts what members do wrong.
    pub counters: &'a Arc<Counters>,
    /// Starts the thread and the tasks.
    pub supervisor: &'a Supervisor,
}

/// Starts claims, if there are voters.
///
/// # Errors
///
/// If the thread cannot be started.
pub fn start(parts: &Parts<'_>) -> std::io::Result<Option<Arc<Claims>>> {
    let hosts = parts.settings.voters.clone();
    if hosts.is_empty() {
        return Ok(None);
    }
    let runtime = Handle::current();
    let (claims, commands) = Claims::new(hosts.clone(), Arc::clone(parts.local), runtime.clone());
    let own_host = parts.local.host().as_str().to_lowercase();
    let own = hosts.iter().position(|host| *host == own_host);
    let setup = driver::Setup {
        hosts,
        own: own.and_then(|own| u8::try_from(own).ok()),
        file: parts.settings.claims_file.clone(),
        local: Arc::clone(parts.local),
        directory: Arc::clone(parts.directory),
        dialer: parts.dialer.clone(),
        counters: Arc::clone(parts.counters),
        claims: Arc::clone(&claims),
        commands,
        runtime,
    };
    let shutdown = parts.supervisor.shutdown().clone();
    let thread = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
    parts.supervisor.thread("claims", move || driver::supervised(&thread, setup, &shutdown))?;
    Ok(Some(claims))
}

/// The protocol of connections to a voter.
#[derive(Debug)]
pub struct ClaimsProtocol(pub Arc<Claims>);

impl Protocol for ClaimsProtocol {
    fn alpn(&self) -> &'static [u8] {
        ALPN_CLAIMS
    }

    fn serve(&self, peer: ProvenPeer, permit: Permit) -> Serving {
        let claims = Arc::clone(&self.0);
        Box::pin(async move {
            connection::serve_accepted(peer, &claims).await;
            drop(permit);
        })
    }
}
