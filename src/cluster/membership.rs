//! This daemon's membership in the cluster: joining, leaving, and reloading its keys and secrets.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

use pmd_epmd::descriptors::Descriptors;
use pmd_protocol::HostName;
use pmd_protocol::limits::MAX_ADDRESSES;
use pmd_protocol::peer::NodeId;
use pmd_protocol::peer::frame::Reason;
use tokio::sync::watch;

use super::core::Core;
use super::decisions::DecisionsError;
use super::joiner_handle::Joiner;
use super::revocation_file::RevocationFileError;
use super::revoke::Revoker;
use super::rotator::Rotator;
use crate::auth::cookie::{CookieError, Cookies};
use crate::auth::error::TlsError;
use crate::auth::tls::{ALPN_LINK, Tls};
use crate::base::permit::Permit;
use crate::config::cluster::ClusterSettings;
use crate::directory::cluster::ClusterDirectory;
use crate::link::dial::{DialError, Dialer};
use crate::link::handshake::HandshakeError;
use crate::link::inbox::Ended;
use crate::link::known_addresses::KnownAddresses;
use crate::link::local_identity::LocalIdentity;
use crate::link::session::Links;

/// Time for a leaving daemon to notify all members.
pub const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Timeout for resolving a host name.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// The warning about a secret that was not generated, where beacons are sent.
const WEAK_SECRET: &str = "whoever records the beacons of broadcast discovery can try to guess the cluster secret, because \
                           pmd has not generated it: pmd cookie rotate generates a strong one";

/// A daemon's membership in a cluster.
#[derive(Debug)]
pub struct Cluster {
    pub(super) local: Arc<LocalIdentity>,
    pub(super) core: Core,
    pub(super) directory: Arc<ClusterDirectory>,
    pub(super) dialer: Dialer,
    pub(super) known: Arc<KnownAddresses>,
    pub(super) links: Links,
    pub(super) joiner: Joiner,
    pub(super) rotator: Rotator,
    pub(super) revoker: Revoker,
    /// Whether this daemon may expel members and replace the secret of the others.
    pub(super) is_administrator: bool,
    pub(super) descriptors: Arc<Descriptors>,
    /// Changes with every membership change.
    pub(super) members: watch::Receiver<u64>,
    /// Changes whenever a peer has sent a summary of its registry.
    pub(super) summaries: watch::Receiver<u64>,
    /// The file of the cluster secret.
    pub(super) cookie_file: PathBuf,
    /// The default port for addresses without one.
    pub(super) port: u16,
    /// Whether it sends beacons.
    pub(super) broadcasts: bool,
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
    /// It is not known who was expelled.
    #[error(transparent)]
    Decisions(#[from] DecisionsError),
    /// It is not known which certificates are revoked.
    #[error(transparent)]
    Revocations(#[from] RevocationFileError),
    /// It is not known whether the cluster secret was replaced.
    #[error("cannot read {}: {reason}", .path.display())]
    Rotation {
        /// The file.
        path: PathBuf,
        /// The reason.
        reason: String,
    },
    /// Its metadata is too long.
    #[error("this host's metadata is too long")]
    Metadata,
    /// A system call failed.
    #[error("cannot start the cluster: {0}")]
    System(#[from] std::io::Error),
}

impl ClusterError {
    /// How to fix the error.
    #[must_use]
    pub fn hint(&self) -> String {
        match self {
            ClusterError::Tls(error) => error.hint(),
            ClusterError::Cookie(error) => error.hint(),
            ClusterError::Decisions(error) => error.hint(),
            ClusterError::Revocations(error) => error.hint(),
            ClusterError::Rotation { path, .. } => format!(
                "move {} away: the daemon then uses the secret in its file, and forgets who may still come with an older one",
                path.display()
            ),
            ClusterError::Metadata => "shorten the [metadata] table in the configuration file".into(),
            ClusterError::System(_) => "check the host's limits on threads and memory".into(),
        }
    }
}

/// Why joining failed.
#[derive(Debug, thiserror::Error)]
pub enum JoinError {
    /// The name has no address.
    #[error("{host} has no address: {reason}")]
    Unresolvable {
        /// The name.
        host: String,
        /// The resolver's error.
        reason: String,
    },
    /// The text is not a valid address.
    #[error("{0:?} is not an address such as db1, db1:4369, 10.0.0.5 or [fd00::5]:4369")]
    Malformed(String),
    /// The daemon could not be reached, or one side rejected the other.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Joining took too long.
    #[error("timed out")]
    Timeout,
    /// This daemon left the cluster while it was joining.
    #[error("this daemon left the cluster in the meantime")]
    Left,
    /// All descriptors are in use.
    #[error("no file descriptor available for another connection")]
    Full,
    /// The daemon is shutting down.
    #[error(transparent)]
    Ended(#[from] Ended),
}

/// A daemon that was joined.
#[derive(Debug, Clone)]
pub struct Partner {
    /// The daemon's id.
    pub id: NodeId,
    /// The daemon's host name.
    pub host: HostName,
    /// The address that answered.
    pub address: SocketAddr,
}

impl Cluster {
    /// This daemon's identity.
    pub fn local(&self) -> &Arc<LocalIdentity> {
        &self.local
    }

    /// The handle to the core thread.
    pub fn core(&self) -> &Core {
        &self.core
    }

    /// The handle to the joiner, which looks for other daemons.
    pub fn joiner(&self) -> &Joiner {
        &self.joiner
    }

    /// The handle to rotations of the cluster secret.
    pub fn rotator(&self) -> &Rotator {
        &self.rotator
    }

    /// The handle to lists of revoked certificates.
    pub fn revoker(&self) -> &Revoker {
        &self.revoker
    }

    /// The dialer for connections to other daemons.
    pub fn dialer(&self) -> &Dialer {
        &self.dialer
    }

    /// The warning about a secret that may be guessed from this daemon's beacons, while that is so.
    pub fn weak_secret(&self) -> Option<&'static str> {
        (self.broadcasts && self.local.cookies().is_guessable()).then_some(WEAK_SECRET)
    }

    /// When the file of the cluster secret was last changed, in milliseconds since the Unix epoch.
    pub async fn secret_stored_ms(&self) -> Option<u64> {
        let path = self.cookie_file.clone();
        let modified = tokio::task::spawn_blocking(move || std::fs::metadata(path)?.modified()).await.ok()?;
        let since = modified.ok()?.duration_since(UNIX_EPOCH).ok()?;
        u64::try_from(since.as_millis()).ok()
    }

    /// The addresses of members and of daemons that an operator has named.
    pub fn known_addresses(&self) -> &Arc<KnownAddresses> {
        &self.known
    }

    /// The registrations of other hosts.
    pub fn directory(&self) -> &Arc<ClusterDirectory> {
        &self.directory
    }

    /// Watches for membership changes.
    pub fn watch_members(&self) -> watch::Receiver<u64> {
        self.members.clone()
    }

    /// Watches for summaries of peers' registries.
    pub fn watch_summaries(&self) -> watch::Receiver<u64> {
        self.summaries.clone()
    }

    /// Joins the daemon at `asked` because a user wants it; returns once both have proven that they belong together. A
    /// daemon that has left is a member again from then on, whether or not the other one answers: if all daemons have
    /// left, one has to be the first to return.
    ///
    /// # Errors
    ///
    /// If nothing answers there, or one side rejects the other.
    pub async fn join(&self, asked: &str) -> Result<Partner, JoinError> {
        let departures = self.local.departures();
        if !self.local.rejoin(departures) {
            return Err(JoinError::Left);
        }
        self.reach(asked, departures, true).await
    }

    /// Joins the daemon at `asked` for a daemon that looks for its cluster on its own. Unlike [`join`](Self::join), it
    /// never undoes a user's decision to leave. `is_seed` is whether the address comes from the configuration or from
    /// a user.
    ///
    /// # Errors
    ///
    /// As for [`join`](Self::join), and if this daemon has left.
    pub async fn rejoin(&self, asked: &str, is_seed: bool) -> Result<Partner, JoinError> {
        let departures = self.local.departures();
        if self.local.has_left() {
            return Err(JoinError::Left);
        }
        self.reach(asked, departures, is_seed).await
    }

    async fn reach(&self, asked: &str, departures: u64, is_named: bool) -> Result<Partner, JoinError> {
        let addresses = self.resolve(asked).await?;
        if is_named {
            self.known.add(&addresses);
        }
        let permit = Permit::take(&self.descriptors).ok_or(JoinError::Full)?;
        let mut peer = self.dialer.reach(&addresses, None, ALPN_LINK).await?;
        if self.local.has_left() || self.local.departures() != departures {
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

    /// Resolves `asked`: `HOST`, `HOST:PORT`, `ADDRESS` or `[IPV6]:PORT`.
    ///
    /// # Errors
    ///
    /// If it is not a valid address, or a name without addresses.
    pub async fn resolve(&self, asked: &str) -> Result<Vec<SocketAddr>, JoinError> {
        let (host, port) = split(asked, self.port).ok_or_else(|| JoinError::Malformed(asked.to_owned()))?;
        let unresolvable = |reason: String| JoinError::Unresolvable { host: host.to_owned(), reason };
        let found = tokio::time::timeout(RESOLVE_TIMEOUT, tokio::net::lookup_host((host, port))).await;
        let found = found.map_err(|_| unresolvable("the system's resolver did not answer".into()))?;
        let found: BTreeSet<SocketAddr> = found.map_err(|error| unresolvable(error.to_string()))?.collect();
        if found.is_empty() {
            return Err(unresolvable("the name exists but has no address".into()));
        }
        // IPv4 sorts first, as in the addresses that daemons advertise.
        Ok(found.into_iter().take(MAX_ADDRESSES).collect())
    }

    /// Leaves the cluster: tells all members that this daemon leaves, and closes its links. Returns the number of other
    /// members.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn leave(&self) -> Result<usize, Ended> {
        // Before the core has left, because it then decides anew whether this host keeps its alias.
        self.directory().unsettle_own_alias();
        self.depart().await
    }

    /// The same for a daemon that only stops: it will return to this cluster, and keeps its alias.
    ///
    /// # Errors
    ///
    /// If the daemon is shutting down.
    pub async fn depart(&self) -> Result<usize, Ended> {
        self.local.leave();
        let (members, told) = self.core.leave().await?;
        tracing::info!(members, "leaving the cluster");
        // A member that was not notified in time detects the departure like a crash.
        let _ = tokio::time::timeout(LEAVE_TIMEOUT, told).await;
        Ok(members)
    }

    /// Reloads the cluster secret and the certificate. Returns the names of what changed.
    ///
    /// # Errors
    ///
    /// If one of them cannot be used; nothing is changed then.
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
        // A new secret that could not be stored: the file still has the old one, which strangers may know.
        let transition = self.local.transition();
        let is_old = transition.as_ref().is_some_and(|transition| {
            cookies.current() == Some(&transition.old)
                && self.local.cookies().current() == Some(&transition.new)
        });
        if !is_old && self.local.set_cookies(Arc::new(cookies)) {
            changed.push("cookie");
        }
        Ok(changed)
    }
}

impl JoinError {
    /// Whether the address leads to this daemon itself.
    #[must_use]
    pub fn is_this_daemon(&self) -> bool {
        let is_this_daemon = |source: &HandshakeError| {
            // The side that was dialled notices first and sends the reason.
            matches!(
                source,
                HandshakeError::Oneself | HandshakeError::Refused { reason: Reason::Duplicate, .. }
            )
        };
        matches!(self, JoinError::Dial(DialError::Handshake { source, .. }) if is_this_daemon(source))
    }
}

/// Splits an address as typed by a user into host and port.
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
