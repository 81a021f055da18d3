//! What a daemon needs to take part in a cluster.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use pmd_core::tuning::Tuning;
use pmd_protocol::HostName;
use pmd_protocol::limits::{MAX_ADDRESSES, MAX_CLUSTER_NAME};

use super::ConfigError;
use super::discovery::{Spec, SpecError};
use super::paths::Paths;
use super::raw::RawConfig;
use super::tunnel::TunnelSettings;
use super::types::{EpmdAccess, IdentitySource, WebAccess};

/// The cluster that daemons belong to unless another is named.
pub const CLUSTER: &str = "pmd";

/// Settings of a daemon's part in a cluster.
#[derive(Debug, Clone, PartialEq)]
pub struct ClusterSettings {
    /// The name of the cluster.
    pub name: String,
    /// What this host is called in it.
    pub host: HostName,
    /// The file of the cookie.
    pub cookie_file: PathBuf,
    /// How this daemon proves who it is.
    pub identity: IdentitySource,
    /// Where others are told that they can reach it; empty means what the network interfaces say.
    pub advertise: Vec<SocketAddr>,
    /// Daemons to join, as they were named.
    pub seeds: Vec<String>,
    /// Ways to find others.
    pub discovery: Vec<Spec>,
    /// From where look-ups are answered.
    pub epmd_access: EpmdAccess,
    /// Who may see the status page.
    pub web: WebAccess,
    /// Aliases and tunnels.
    pub tunnel: TunnelSettings,
    /// All numbers of the core.
    pub tuning: Tuning,
}

impl ClusterSettings {
    /// What `raw` says about the cluster, of the daemon on `port` of the host called `host`.
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
        let name = raw.cluster.clone().unwrap_or_else(|| CLUSTER.to_owned());
        if name.is_empty() || name.len() > MAX_CLUSTER_NAME || name.chars().any(char::is_control) {
            let reason =
                format!("the name of a cluster has 1 to {MAX_CLUSTER_NAME} bytes without control characters");
            return Err(wrong("cluster", &name, reason));
        }
        let host_name: HostName = host.parse().map_err(|_| {
            wrong("host_name", host, "it is not the name of a host; set host_name to one".to_owned())
        })?;
        let mut advertise = Vec::new();
        for text in raw.advertise.iter().flatten() {
            let address = parse_advertised(text, port).ok_or_else(|| {
                wrong("advertise", text, "it is not an address such as 10.0.0.5 or [fd00::5]:4369".to_owned())
            })?;
            advertise.push(address);
        }
        if advertise.len() > MAX_ADDRESSES {
            return Err(wrong("advertise", "", format!("at most {MAX_ADDRESSES} addresses are told")));
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
            epmd_access: raw.epmd_access.unwrap_or_default(),
            web: raw.web.unwrap_or_default(),
            tunnel: TunnelSettings::from_raw(raw, port, paths),
            tuning: tuning(raw),
        })
    }
}

fn tuning(raw: &RawConfig) -> Tuning {
    let mut tuning = Tuning::default();
    let phi = &mut tuning.membership.phi;
    if let Some(seconds) = raw.heartbeat_interval_secs {
        phi.interval_ms = seconds.saturating_mul(1_000);
    }
    if let Some(threshold) = raw.phi_threshold {
        phi.threshold = threshold;
    }
    if let Some(window) = raw.phi_window_size {
        phi.window = usize::try_from(window).unwrap_or(usize::MAX);
    }
    if let Some(deviation) = raw.phi_min_std_deviation_ms {
        phi.min_deviation_ms = deviation;
    }
    if let Some(seconds) = raw.sync_interval_secs {
        tuning.spread.exchange_ms = seconds.saturating_mul(1_000);
    }
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
    // An address that leads nowhere must not be told to anybody.
    (!address.ip().is_unspecified() && address.port() != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_advertised_address_may_have_a_port_and_leads_somewhere() {
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
