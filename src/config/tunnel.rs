//! Settings of aliases and tunnels.

use std::path::PathBuf;

use super::keys::RawConfig;
use super::paths::Paths;
use super::rules::{AllowRule, Mode, TunnelRule};
use super::types::AliasRange;

/// Settings of aliases and tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// The addresses that stand for other hosts.
    pub range: AliasRange,
    /// The rules in force until the file is read again.
    pub policy: TunnelPolicy,
    /// Whether this host relays tunnels between hosts that cannot reach each other.
    pub relay: bool,
    /// The hosts file for Erlang nodes.
    pub hosts_file: PathBuf,
    /// The resolver file for Erlang nodes, which names the hosts file.
    pub inetrc: PathBuf,
    /// The file that remembers each host's alias.
    pub aliases: PathBuf,
}

impl TunnelSettings {
    /// What `raw` says about them, for the daemon on `port`.
    pub(super) fn from_raw(raw: &RawConfig, port: u16, paths: &Paths) -> TunnelSettings {
        // Nodes read these files whatever directory they run in.
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

/// The rules about tunnels. They can change while the daemon runs, and then apply to new tunnels.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TunnelPolicy {
    /// How hosts are reached that no rule matches.
    pub mode: Mode,
    /// How other hosts are reached; the first rule that matches counts.
    pub rules: Vec<TunnelRule>,
    /// Which hosts may reach what on this host.
    pub allow: Vec<AllowRule>,
}

impl TunnelPolicy {
    /// What `raw` says about them.
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
