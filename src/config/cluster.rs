//! A daemon's cluster settings.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use pmd_core::membership::expulsions::Administrators;
use pmd_core::tuning::{PhiTuning, Tuning};
use pmd_protocol::HostName;
use pmd_protocol::limits::{MAX_ADDRESSES, MAX_CLUSTER_NAME, MAX_VOTERS};
use pmd_protocol::peer::NodeId;

use super::ConfigError;
use super::discovery::{Spec, SpecError};
use super::keys::RawConfig;
use super::paths::Paths;
use super::tunnel::TunnelSettings;
use super::types::{EpmdAccess, IdentitySource, WebAccess};

/// A daemon's cluster settings.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// The name of the cluster.
    pub name: String,
    /// The name of this host in the cluster.
    pub host: HostName,
    /// The file of the cluster secret.
    pub cookie_file: PathBuf,
    /// How this daemon proves its identity.
    pub identity: IdentitySource,
    /// The addresses at which others can reach this daemon; empty means those of the network interfaces.
    pub advertise: Vec<SocketAddr>,
    /// The daemons to join, as written in the configuration.
    pub seeds: Vec<String>,
    /// The discovery plugins.
    pub discovery: Vec<Spec>,
    /// Which hosts may look up names over EPMD.
    pub epmd_access: EpmdAccess,
    /// Whether another member may tell this daemon to leave.
    pub leave_on_request: bool,
    /// Whose decisions to expel members count.
    pub administrators: Administrators,
    /// The file that remembers those decisions.
    pub decisions_file: PathBuf,
    /// The file that remembers the latest rotation of the cluster secret.
    pub rotation_file: PathBuf,
    /// Remembers the lists of revoked certificates.
    pub revocations_file: PathBuf,
    /// How long a member that was away during a rotation may return with the old secret.
    pub rotate_grace: Duration,
    /// How long a daemon that has failed keeps its host name.
    pub hold_names: Duration,
    /// The file that remembers whose host name is whose.
    pub names_file: PathBuf,
    /// The host names of the voters, in lower case and in order; empty if there are no claims.
    pub voters: Vec<String>,
    /// The file in which a voter keeps what it has promised.
    pub claims_file: PathBuf,
    /// Who may see the status page.
    pub web: WebAccess,
    /// Aliases and tunnels.
    pub tunnel: TunnelSettings,
    /// The core's intervals, limits and thresholds.
    pub tuning: Tuning,
}

impl ClusterSettings {
    /// Whether the daemon sends beacons.
    #[must_use]
    pub fn broadcasts(&self) -> bool {
        self.discovery.iter().any(|spec| matches!(spec, Spec::Broadcast { .. }))
    }

    /// The cluster settings in `raw`, for the daemon on `port` of the host named `host`.
    pub(super) fn from_raw(
        raw: &RawConfig,
        host: &str,
        port: u16,
        paths: &Paths,
    ) -> Result<ClusterSettings, ConfigError> {
        let wrong = |key: &'static str, value: &str, reason: String| ConfigError::Value {
            key,
            value: value.to_owned(),
            reason,
        };
        let name = raw.cluster();
        if name.is_empty() || name.len() > MAX_CLUSTER_NAME || name.chars().any(char::is_control) {
            let reason =
                format!("a cluster name has 1 to {MAX_CLUSTER_NAME} bytes and no control characters");
            return Err(wrong("cluster", &name, reason));
        }
        let host_name: HostName = host.parse().map_err(|_| {
            wrong("host_name", host, "it is not a valid host name; set host_name to one".to_owned())
        })?;
        let mut advertise = Vec::new();
        for text in raw.advertise.iter().flatten() {
            let address = parse_advertised(text, port).ok_or_else(|| {
                wrong("advertise", text, "it is not an address such as 10.0.0.5 or [fd00::5]:4369".to_owned())
            })?;
            advertise.push(address);
        }
        if advertise.len() > MAX_ADDRESSES {
            return Err(wrong(
                "advertise",
                "",
                format!("at most {MAX_ADDRESSES} addresses can be advertised"),
            ));
        }
        let mut discovery = Vec::new();
        for text in raw.discovery.iter().flatten() {
            let spec: Spec =
                text.parse().map_err(|error: SpecError| wrong("discovery", text, error.to_string()))?;
            discovery.push(spec);
        }
        let peers = raw.peer.iter().flatten().filter(|peer| peer.auto_connect).map(|peer| &peer.address);
        let identity = match &raw.ca_cert_path {
            None => IdentitySource::Auto { key: paths.key(port) },
            Some(ca) => IdentitySource::Authority {
                ca: ca.clone(),
                certificate: raw
                    .cert_path
                    .clone()
                    .unwrap_or_else(|| paths.state().join(format!("{host}.pem"))),
                key: raw.key_path.clone().unwrap_or_else(|| paths.state().join(format!("{host}.key"))),
            },
        };
        Ok(ClusterSettings {
            name,
            host: host_name,
            cookie_file: raw.cookie_file.clone().unwrap_or_else(|| paths.cookie()),
            identity,
            advertise,
            seeds: raw.join.iter().flatten().chain(peers).cloned().collect(),
            discovery,
            epmd_access: raw.epmd_access(),
            leave_on_request: raw.leave_on_request(),
            administrators: administrators(&raw.administrators()).map_err(|text| {
                wrong(
                    "administrators",
                    &text,
                    "it is neither * nor the id of a daemon, 64 hexadecimal digits".to_owned(),
                )
            })?,
            decisions_file: paths.decisions(port),
            rotation_file: paths.rotation(port),
            revocations_file: paths.revocations(port),
            hold_names: raw.hold_names_secs().0,
            names_file: paths.names(port),
            voters: voters(&raw.voters())?,
            claims_file: paths.claims(port),
            rotate_grace: raw.rotate_grace_secs().0,
            web: raw.web(),
            tunnel: TunnelSettings::from_raw(raw, port, paths)?,
            tuning: tuning(raw),
        })
    }
}

/// The names of the voters, in lower case and in order.
fn voters(names: &[String]) -> Result<Vec<String>, ConfigError> {
    let wrong =
        |value: &str, reason: String| ConfigError::Value { key: "voters", value: value.to_owned(), reason };
    let mut voters = Vec::new();
    for name in names {
        let host: HostName =
            name.parse().map_err(|_| wrong(name, "it is not a valid host name".to_owned()))?;
        voters.push(host.as_str().to_lowercase());
    }
    voters.sort();
    voters.dedup();
    if voters.len() > MAX_VOTERS {
        return Err(wrong(&names.join(", "), format!("at most {MAX_VOTERS} hosts can vote")));
    }
    Ok(voters)
}

/// Those named in `texts`.
///
/// # Errors
///
/// The first text that is not an id.
fn administrators(texts: &[String]) -> Result<Administrators, String> {
    if texts.iter().any(|text| text == "*") {
        return Ok(Administrators::All);
    }
    let ids = texts.iter().map(|text| text.parse::<NodeId>().map_err(|_| text.clone()));
    Ok(Administrators::Only(ids.collect::<Result<_, _>>()?))
}

fn tuning(raw: &RawConfig) -> Tuning {
    let mut tuning = Tuning::default();
    tuning.membership.phi = PhiTuning {
        interval_ms: raw.heartbeat_interval_secs().get() * 1_000,
        threshold: raw.phi_threshold().get(),
        window: raw.phi_window_size().count(),
        min_deviation_ms: raw.phi_min_std_deviation_ms().get(),
    };
    tuning.gossip.exchange_ms = raw.sync_interval_secs().get().saturating_mul(1_000);
    tuning
}

fn parse_advertised(text: &str, port: u16) -> Option<SocketAddr> {
    let address = match text.parse::<SocketAddr>() {
        Ok(address) => address,
        Err(_) => {
            let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
            SocketAddr::new(bare.parse::<IpAddr>().ok()?, port)
        }
    };
    // An unspecified address or port 0 cannot be dialled.
    (!address.ip().is_unspecified() && address.port() != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_may_have_a_port_and_can_be_dialled() {
        for (text, address) in [
            ("10.0.0.1", Some("10.0.0.1:4369")),
            ("10.0.0.1:5000", Some("10.0.0.1:5000")),
            ("fd00::1", Some("[fd00::1]:4369")),
            ("[fd00::1]", Some("[fd00::1]:4369")),
            ("[fd00::1]:5000", Some("[fd00::1]:5000")),
            ("0.0.0.0", None),
            ("10.0.0.1:0", None),
            ("host", None),
        ] {
            assert_eq!(
                parse_advertised(text, 4369).map(|address| address.to_string()).as_deref(),
                address,
                "{text}"
            );
        }
    }
}
