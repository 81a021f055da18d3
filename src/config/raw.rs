//! What one source of configuration says: everything optional, each value checked on its own.

use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

use super::rules::{AllowRule, Mode, TunnelRule};
use super::types::{AliasRange, EpmdAccess, Metadata, Peer, Port, WebAccess};

/// What one source says. The names of the fields are the keys of the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct RawConfig {
    /// The port to listen on.
    pub port: Option<Port>,
    /// Addresses to listen on beside the loopback ones: a string, or a list of them. Empty means all.
    #[serde(default, deserialize_with = "addresses")]
    pub bind: Option<Vec<IpAddr>>,
    /// Whether KILL is obeyed while nodes are registered, and STOP at all.
    pub relaxed_command_check: Option<bool>,
    /// Seconds that a connection may take to complete its request.
    #[serde(
        default,
        rename = "packet_timeout_secs",
        deserialize_with = "seconds",
        serialize_with = "as_seconds"
    )]
    pub packet_timeout: Option<Duration>,
    /// Threads that may serve the EPMD port, 1 to 64.
    #[serde(default, deserialize_with = "threads")]
    pub threads: Option<usize>,
    /// Where the control socket is.
    pub socket: Option<PathBuf>,
    /// The group that may use the control socket beside its owner.
    pub control_group: Option<String>,
    /// What this host says about itself.
    pub metadata: Option<Metadata>,
    /// What this host is called in the cluster: what stands behind the `@` of its Erlang nodes.
    pub host_name: Option<String>,
    /// The name of the cluster. Daemons of different clusters do not talk to each other.
    pub cluster: Option<String>,
    /// The file of the cluster's cookie.
    pub cookie_file: Option<PathBuf>,
    /// Where others are told that they can reach this daemon, best first: addresses, with or without a port.
    pub advertise: Option<Vec<String>>,
    /// Addresses of daemons to join.
    pub join: Option<Vec<String>>,
    /// The same, one table each.
    pub peer: Option<Vec<Peer>>,
    /// Ways to find other daemons: `broadcast`, `dns:NAME`, `exec:COMMAND`.
    pub discovery: Option<Vec<String>>,
    /// From where look-ups are answered.
    pub epmd_access: Option<EpmdAccess>,
    /// Who may see the status page.
    pub web: Option<WebAccess>,
    /// The certificate of the cluster's authority. With it, only certificates that it has issued are accepted.
    pub ca_cert_path: Option<PathBuf>,
    /// This daemon's certificate, issued by that authority.
    pub cert_path: Option<PathBuf>,
    /// The key of that certificate.
    pub key_path: Option<PathBuf>,
    /// The loopback addresses that stand for other hosts.
    pub alias_range: Option<AliasRange>,
    /// Whether other hosts are reached through tunnels.
    pub tunnel: Option<Mode>,
    /// The same for some hosts, one table each; the first that matches counts.
    pub tunnel_rule: Option<Vec<TunnelRule>>,
    /// Which hosts may reach what here through tunnels, one table each; without one, all may.
    pub allow: Option<Vec<AllowRule>>,
    /// Whether this host connects others that cannot reach each other.
    pub relay: Option<bool>,
    /// Seconds between heartbeats, 1 to 60.
    #[serde(default, deserialize_with = "heartbeat")]
    pub heartbeat_interval_secs: Option<u64>,
    /// Seconds between comparisons with a random other daemon, at least 1.
    #[serde(default, deserialize_with = "positive")]
    pub sync_interval_secs: Option<u64>,
    /// Suspicion from which a silent daemon is looked into, 1 to 16.
    #[serde(default, deserialize_with = "threshold")]
    pub phi_threshold: Option<f64>,
    /// Heartbeats that the suspicion is computed from, 10 to 10,000.
    #[serde(default, deserialize_with = "window")]
    pub phi_window_size: Option<u64>,
    /// The least deviation of heartbeats that is assumed, in milliseconds, at least 10.
    #[serde(default, deserialize_with = "deviation")]
    pub phi_min_std_deviation_ms: Option<u64>,
}

impl RawConfig {
    /// Every key of the configuration file.
    pub const KEYS: [&'static str; 30] = [
        "port",
        "bind",
        "relaxed_command_check",
        "packet_timeout_secs",
        "threads",
        "socket",
        "control_group",
        "metadata",
        "host_name",
        "cluster",
        "cookie_file",
        "advertise",
        "join",
        "peer",
        "discovery",
        "epmd_access",
        "web",
        "ca_cert_path",
        "cert_path",
        "key_path",
        "alias_range",
        "tunnel",
        "tunnel_rule",
        "allow",
        "relay",
        "heartbeat_interval_secs",
        "sync_interval_secs",
        "phi_threshold",
        "phi_window_size",
        "phi_min_std_deviation_ms",
    ];

    /// What this source says, and where it says nothing, what `other` does.
    pub fn or(self, other: RawConfig) -> RawConfig {
        RawConfig {
            port: self.port.or(other.port),
            bind: self.bind.or(other.bind),
            relaxed_command_check: self.relaxed_command_check.or(other.relaxed_command_check),
            packet_timeout: self.packet_timeout.or(other.packet_timeout),
            threads: self.threads.or(other.threads),
            socket: self.socket.or(other.socket),
            control_group: self.control_group.or(other.control_group),
            metadata: self.metadata.or(other.metadata),
            host_name: self.host_name.or(other.host_name),
            cluster: self.cluster.or(other.cluster),
            cookie_file: self.cookie_file.or(other.cookie_file),
            advertise: self.advertise.or(other.advertise),
            join: self.join.or(other.join),
            peer: self.peer.or(other.peer),
            discovery: self.discovery.or(other.discovery),
            epmd_access: self.epmd_access.or(other.epmd_access),
            web: self.web.or(other.web),
            ca_cert_path: self.ca_cert_path.or(other.ca_cert_path),
            cert_path: self.cert_path.or(other.cert_path),
            key_path: self.key_path.or(other.key_path),
            alias_range: self.alias_range.or(other.alias_range),
            tunnel: self.tunnel.or(other.tunnel),
            tunnel_rule: self.tunnel_rule.or(other.tunnel_rule),
            allow: self.allow.or(other.allow),
            relay: self.relay.or(other.relay),
            heartbeat_interval_secs: self.heartbeat_interval_secs.or(other.heartbeat_interval_secs),
            sync_interval_secs: self.sync_interval_secs.or(other.sync_interval_secs),
            phi_threshold: self.phi_threshold.or(other.phi_threshold),
            phi_window_size: self.phi_window_size.or(other.phi_window_size),
            phi_min_std_deviation_ms: self.phi_min_std_deviation_ms.or(other.phi_min_std_deviation_ms),
        }
    }
}

/// Addresses separated by commas, white space or both: the form of flags and variables.
pub fn parse_addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
    words.map(parse_address).collect()
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address such as 127.0.0.1, 0.0.0.0 or ::1"))
}

/// A time like `30s`, `2m 30s` or `500ms`; a bare number is seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let reason = || format!("{text:?} is not a time such as 500ms, 30s, 2m or 1h30m");
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Duration::from_secs).map_err(|_| reason());
    }
    let signed: jiff::SignedDuration = text.parse().map_err(|_| reason())?;
    Duration::try_from(signed).map_err(|_| reason())
}

fn addresses<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Vec<IpAddr>>, D::Error> {
    struct OneOrMany;

    impl<'de> Visitor<'de> for OneOrMany {
        type Value = Vec<IpAddr>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an IP address, or a list of IP addresses")
        }

        fn visit_str<E: de::Error>(self, text: &str) -> Result<Vec<IpAddr>, E> {
            parse_addresses(text).map_err(E::custom)
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Vec<IpAddr>, A::Error> {
            let mut addresses = Vec::new();
            while let Some(text) = list.next_element::<String>()? {
                addresses.push(parse_address(&text).map_err(de::Error::custom)?);
            }
            Ok(addresses)
        }
    }

    deserializer.deserialize_any(OneOrMany).map(Some)
}

fn threads<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<usize>, D::Error> {
    match usize::deserialize(deserializer)? {
        threads @ 1..=64 => Ok(Some(threads)),
        other => Err(de::Error::custom(format!("{other}: from 1 to 64 threads are possible"))),
    }
}

fn seconds<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    match u64::deserialize(deserializer)? {
        0 => Err(de::Error::custom("0: at least one second is needed")),
        seconds => Ok(Some(Duration::from_secs(seconds))),
    }
}

fn within<'de, D: Deserializer<'de>>(
    deserializer: D,
    range: RangeInclusive<u64>,
) -> Result<Option<u64>, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if range.contains(&number) {
        return Ok(Some(number));
    }
    let (least, most) = (range.start(), range.end());
    Err(de::Error::custom(if *most == u64::MAX {
        format!("{number}: at least {least} is needed")
    } else {
        format!("{number}: from {least} to {most} is possible")
    }))
}

fn heartbeat<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(deserializer, 1..=60)
}

fn positive<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(deserializer, 1..=u64::MAX)
}

fn window<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(deserializer, 10..=10_000)
}

fn deviation<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    within(deserializer, 10..=u64::MAX)
}

fn threshold<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<f64>, D::Error> {
    match f64::deserialize(deserializer)? {
        threshold if (1.0..=16.0).contains(&threshold) => Ok(Some(threshold)),
        other => Err(de::Error::custom(format!("{other}: from 1 to 16 is possible"))),
    }
}

// serde hands the field over by reference.
#[allow(clippy::ref_option)]
fn as_seconds<S: serde::Serializer>(timeout: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    timeout.map(|timeout| timeout.as_secs()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: i64) -> Port {
        Port::try_from(number).expect("a port")
    }

    #[test]
    fn a_duration_has_units_or_is_seconds() {
        for (text, milliseconds) in [("30", 30_000), ("500ms", 500), ("2m", 120_000), ("1h 30m", 5_400_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text:?}");
        }
        for wrong in ["", "-1s", "soon", "1.5.2s", "10 parsecs"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn the_first_source_wins_value_by_value() {
        let first = RawConfig { port: Some(port(1)), ..RawConfig::default() };
        let second =
            RawConfig { port: Some(port(2)), relaxed_command_check: Some(true), ..RawConfig::default() };
        let both = first.or(second);
        assert_eq!((both.port, both.relaxed_command_check), (Some(port(1)), Some(true)));
    }

    #[test]
    fn the_list_of_keys_is_the_list_of_fields() {
        let fields = serde_json::to_value(RawConfig::default()).expect("it is plain data");
        let mut fields: Vec<_> = fields.as_object().expect("a map").keys().map(String::as_str).collect();
        let mut keys = RawConfig::KEYS.to_vec();
        fields.sort_unstable();
        keys.sort_unstable();
        assert_eq!(fields, keys);
    }
}
