//! Settings of aliases and tunnels.

use std::ops::RangeInclusive;
use std::path::PathBuf;

use super::ConfigError;
use super::keys::RawConfig;
use super::paths::Paths;
use super::ranges::{LoopbackRange, PortRange};
use super::rules::{AllowRule, Mode, TunnelRule};

/// The ephemeral ports of Linux by default (`net.ipv4.ip_local_port_range`).
const EPHEMERAL: RangeInclusive<u16> = 32_768..=60_999;

/// Settings of aliases and tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// The range from which other hosts get their aliases.
    pub range: LoopbackRange,
    /// The range of the addresses at which nodes on other hosts are dialled.
    pub node_range: LoopbackRange,
    /// The ports of the entries on aliases.
    pub entry_ports: PortRange,
    /// The rules that apply until the next reload.
    pub policy: TunnelPolicy,
    /// Whether this host relays tunnels between members that cannot reach each other.
    pub relay: bool,
    /// The hosts file for Erlang nodes.
    pub hosts_file: PathBuf,
    /// The resolver file (inetrc) for Erlang nodes, which refers to the hosts file.
    pub inetrc: PathBuf,
    /// The epmd module for Erlang nodes.
    pub module: PathBuf,
    /// The file in which the hosts' aliases are saved.
    pub aliases: PathBuf,
}

impl TunnelSettings {
    /// The settings in `raw`, for the daemon on `port`.
    ///
    /// # Errors
    ///
    /// If the ranges of addresses overlap.
    pub(super) fn from_raw(raw: &RawConfig, port: u16, paths: &Paths) -> Result<TunnelSettings, ConfigError> {
        let (range, node_range) = (raw.alias_range(), raw.node_range());
        if range.overlaps(&node_range) {
            return Err(ConfigError::Value {
                key: "node_range",
                value: node_range.to_string(),
                reason: format!("it overlaps alias_range ({range})"),
            });
        }
        // Nodes that read these files run in other directories.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let [hosts_file, inetrc, aliases] = paths.aliases(port).map(absolute);
        Ok(TunnelSettings {
            range,
            node_range,
            entry_ports: raw.entry_ports.unwrap_or_else(|| PortRange::below(&ephemeral_ports())),
            policy: TunnelPolicy::from_raw(raw),
            relay: raw.relay(),
            hosts_file,
            inetrc,
            module: absolute(paths.epmd_module(port)),
            aliases,
        })
    }
}

/// The ports that the kernel chooses from for connections of programs.
fn ephemeral_ports() -> RangeInclusive<u16> {
    let read = || {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?;
        let mut words = text.split_ascii_whitespace();
        Some(words.next()?.parse().ok()?..=words.next()?.parse().ok()?)
    };
    read().unwrap_or(EPHEMERAL)
}

/// The rules for tunnels. Changes while the daemon runs apply to new tunnels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelPolicy {
    /// The mode for hosts that match no rule.
    pub mode: Mode,
    /// The modes for other hosts; the first matching rule applies.
    pub rules: Vec<TunnelRule>,
    /// Which hosts may reach which nodes and services of this host; if empty, all members may reach all of them.
    pub allow: Vec<AllowRule>,
}

impl TunnelPolicy {
    /// The rules in `raw`.
    #[must_use]
    pub fn from_raw(raw: &RawConfig) -> TunnelPolicy {
        TunnelPolicy { mode: raw.tunnel(), rules: raw.tunnel_rule(), allow: raw.allow() }
    }

    /// The keys whose values differ between two policies.
    #[must_use]
    pub fn changes(&self, other: &TunnelPolicy) -> Vec<&'static str> {
        let differs = [
            ("tunnel", self.mode != other.mode),
            ("tunnel_rule", self.rules != other.rules),
            ("allow", self.allow != other.allow),
        ];
        differs.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::rules::Pattern;

    #[test]
    fn the_policy_consists_of_the_keys_that_take_effect_on_reload() {
        let any = Pattern::any;
        let changed = TunnelPolicy {
            mode: Mode::Never,
            rules: vec![TunnelRule { host: any(), mode: Mode::Always }],
            allow: vec![AllowRule { host: any(), name: any() }],
        };
        let live: Vec<&str> = RawConfig::KEYS.iter().filter(|key| key.live).map(|key| key.name).collect();
        assert_eq!(TunnelPolicy::default().changes(&changed), live);
        assert_eq!(changed.changes(&changed), [""; 0]);
    }
}
