//! Settings of aliases and tunnels.

use std::path::PathBuf;

use super::keys::RawConfig;
use super::paths::Paths;
use super::rules::{AllowRule, Mode, TunnelRule};
use super::types::AliasRange;

/// Settings of aliases and tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// The range from which other hosts get their aliases.
    pub range: AliasRange,
    /// The rules that apply until the next reload.
    pub policy: TunnelPolicy,
    /// Whether this host relays tunnels between members that cannot reach each other.
    pub relay: bool,
    /// The hosts file for Erlang nodes.
    pub hosts_file: PathBuf,
    /// The resolver file (inetrc) for Erlang nodes, which refers to the hosts file.
    pub inetrc: PathBuf,
    /// The file in which the hosts' aliases are saved.
    pub aliases: PathBuf,
}

impl TunnelSettings {
    /// The settings in `raw`, for the daemon on `port`.
    pub(super) fn from_raw(raw: &RawConfig, port: u16, paths: &Paths) -> TunnelSettings {
        // Nodes that read these files run in other directories.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let [hosts_file, inetrc, aliases] = paths.aliases(port).map(absolute);
        TunnelSettings {
            range: raw.alias_range(),
            policy: TunnelPolicy::from_raw(raw),
            relay: raw.relay(),
            hosts_file,
            inetrc,
            aliases,
        }
    }
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
