//! This daemon's membership of a cluster: joining, leaving, and what it is known by.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::HostName;
use pmd_protocol::limits::MAX_ADDRESSES;
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::Reason;
use tokio::sync::watch;

use super::core::Core;
use super::joiner_handle::Joiner;
use crate::auth::cookie::{CookieError, Cookies};
use crate::auth::error::TlsError;
use crate::auth::tls::{ALPN_LINK, Tls};
use crate::base::permit::Permit;
use crate::config::cluster::ClusterSettings;
use crate::directory::cluster::ClusterDirectory;
use crate::link::dial::{DialError, Dialer};
use crate::link::handshake::HandshakeError;
use crate::link::inbox::Ended;
use crate::link::local_identity::LocalIdentity;
use crate::link::session::Links;

/// Time for a daemon that leaves to tell everybody.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Time for the system's resolver to find the addresses of a name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// A daemon's membership of a cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(super) local: Arc<LocalIdentity>,
    pub(super) core: Core,
    pub(super) directory: Arc<ClusterDirectory>,
    pub(super) dialer: Dialer,
    pub(super) links: Links,
    pub(super) joiner: Joiner,
    pub(super) descriptors: Arc<Descriptors>,
    /// Changes whenever a member comes or goes.
    pub(super) members: watch::Receiver<u64>,
    /// The port that daemons listen on unless an address says otherwise.
    pub(super) port: u16,
}

/// Why a daemon cannot take part in a cluster.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// Its key or certificate cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The cluster secret cannot be used.
    #[error(transparent)]
    Cookie(#[from] CookieError),
    /// Its metadata is too long.
    #[error("this host's metadata is too long to be shared")]
    Metadata,
    /// The system refused something.
    #[error("the cluster cannot be started: {0}")]
    System(#[from] std::io::Error),
}

impl ClusterError {
    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            ClusterError::Tls(error) => error.hint(),
            ClusterError::Cookie(error) => error.hint(),
            ClusterError::Metadata => "shorten the table [metadata] of the configuration file".into(),
            ClusterError::System(_) => "check the system's reason".into(),
        }
    }
}

/// Why a daemon was not joined.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The name has no address.
    #[error("{host} has no address: {reason}")]
    Unresolvable {
        /// The name.
        host: String,
        /// The resolver's reason.
        reason: String,
    },
    /// It is no address.
    #[error("{0:?} is not an address such as db1, db1:4369, 10.0.0.5 or [fd00::5]:4369")]
    Malformed(String),
    /// See [`DialError`].
    #[error(transparent)]
    Dial(#[from] DialError),
    /// It took too long.
    #[error("no answer in time")]
    Timeout,
    /// This daemon has left the cluster meanwhile.
    #[error("this daemon has left the cluster meanwhile")]
    Left,
    /// All descriptors are in use.
    #[error("no free descriptor for another connection")]
    Full,
    /// The daemon is shutting down.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// A daemon that was joined.
#[derive(Debug, Clone)]
pub struct Partner {
    /// Its id.
    pub id: NodeId,
    /// Its host name.
    pub host: HostName,
    /// The address that answered.
    pub address: SocketAddr,
}

impl Cluster {
    /// This daemon, as its peers know it.
    pub fn local(&self) -> &Arc<LocalIdentity> {
        &self.local
    }

    /// The core thread.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The joiner, which looks for other daemons.
    pub fn joiner(&self) -> &Joiner {
        &self.joiner
    }

    /// Dials other daemons.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// What is registered on other hosts.
    pub fn directory(&self) -> &Arc<ClusterDirectory> {
        &self.directory
    }

    /// Changes whenever a member comes or goes.
    pub fn watch_members(&self) -> watch::Receiver<u64> {
        self.members.clone()
    }

    /// Joins the daemon at `asked`; returns when both have proven that they belong together.
    ///
    /// # Errors
    ///
    /// If none answers, or one side rejects the other.
    pub async fn join(&self, asked: &str) -> Result<Partner, JoinError> {
        let departures = self.local.departures();
        let addresses = self.resolve(asked).await?;
        let permit = Permit::take(&self.descriptors).ok_or(JoinError::Full)?;
        let mut peer = self.dialer.reach(&addresses, None, ALPN_LINK).await?;
        if !self.local.come_back(departures) {
            return Err(JoinError::Left);
        }
        peer.departures = departures;
        let partner = Partner { id: peer.hello.id, host: peer.host.clone(), address: peer.address };
        let links = self.links.clone();
        tokio::spawn(async move {
            links.serve(peer, true).await;
            drop(permit);
        });
        Ok(partner)
    }

    /// The addresses that `asked` means: `HOST`, `HOST:PORT`, `ADDRESS` or `[IPV6]:PORT`.
    ///
    /// # Errors
    ///
    /// If it is no address, or a name that has none.
    pub async fn resolve(&self, asked: &str) -> Result<Vec<SocketAddr>, JoinError> {
        let (host, port) = split(asked, self.port).ok_or_else(|| JoinError::Malformed(asked.to_owned()))?;
        let unresolvable = |reason: String| JoinError::Unresolvable { host: host.to_owned(), reason };
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, port))).await;
        let found = found.map_err(|_| unresolvable("the system's resolver does not answer".into()))?;
        let found: BTreeSet<SocketAddr> = found.map_err(|error| unresolvable(error.to_string()))?.collect();
        if found.is_empty() {
            return Err(unresolvable("the name is known, but has no address".into()));
        }
        // IPv4 sorts first, as in what daemons tell of themselves.
        Ok(found.into_iter().take(MAX_ADDRESSES).collect())
    }

    /// Tells everybody that this daemon leaves, and closes its links. Returns how many other members there were.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn leave(&self) -> Result<usize, Ended> {
        self.local.leave();
        let (members, told) = self.core.leave().await?;
        tracing::info!(members, "leaving the cluster");
        // A member that has not been told by then finds out as after a crash.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, told).await;
        Ok(members)
    }

    /// Reads cluster secret and certificates again. Returns what has changed.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used; nothing has changed then.
    pub fn reload(&self, settings: &ClusterSettings) -> Result<Vec<&'static str>, ClusterError> {
        let tls = Tls::load(&settings.identity, settings.host.as_str())?;
        if tls.id() != self.local.tls().id() {
            return Err(TlsError::OtherKey.into());
        }
        let cookies = Cookies::read(&settings.cookie_file)?;
        let mut changed = Vec::new();
        if tls.certificate() != self.local.tls().certificate() && tls.checks_names() {
            changed.push("certificate");
        }
        self.local.set_tls(Arc::new(tls));
        if self.local.set_cookies(Arc::new(cookies)) {
            changed.push("cookie");
        }
        Ok(changed)
    }
}

impl JoinError {
    /// Whether this daemon itself answers there.
    #[must_use]
    pub fn is_oneself(&self) -> bool {
        let oneself = |source: &HandshakeError| {
            // The side that was dialled notices first, and says so.
            matches!(
                source,
                HandshakeError::Oneself | HandshakeError::Refused { reason: Reason::Duplicate, .. }
            )
        };
        matches!(self, JoinError::Dial(DialError::Handshake { source, .. }) if oneself(source))
    }
}

/// Host and port of an address as people write it.
fn split(asked: &str, default: u16) -> Option<(&str, u16)> {
    let asked = asked.trim();
    if let Some(rest) = asked.strip_prefix('[') {
        let (host, port) = rest.split_once(']')?;
        let port = match port.strip_prefix(':') {
            Some(port) => port.parse().ok()?,
            None if port.is_empty() => default,
            None => return None,
        };
        return Some((host, port)).filter(|(host, port)| !host.is_empty() && *port != 0);
    }
    let (host, port) = match asked.rsplit_once(':') {
        // More than one colon: an IPv6 address without brackets.
        Some((host, _)) if host.contains(':') => (asked, default),
        Some((host, port)) => (host, port.parse().ok()?),
        None => (asked, default),
    };
    Some((host, port)).filter(|(host, port)| !host.is_empty() && *port != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_may_have_a_port() {
        for (asked, meant) in [
            ("db1", Some(("db1", 4369))),
            ("db1:5000", Some(("db1", 5000))),
            ("10.0.0.1", Some(("10.0.0.1", 4369))),
            ("fd00::1", Some(("fd00::1", 4369))),
            ("[fd00::1]", Some(("fd00::1", 4369))),
            ("[fd00::1]:5000", Some(("fd00::1", 5000))),
            ("", None),
            (":5000", None),
            ("db1:port", None),
            ("db1:0", None),
            ("db1:70000", None),
            ("[fd00::1]x", None),
            ("[]:5000", None),
        ] {
            assert_eq!(split(asked, 4369), meant, "{asked}");
        }
    }
}
