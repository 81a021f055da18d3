//! What a daemon needs for aliases and tunnels.

use std::path::PathBuf;

use super::paths::Paths;
use super::raw::RawConfig;
use crate::tunnel::aliases::AliasRange;
use crate::tunnel::rules::{AllowRules, Policy, TunnelRules};

/// Settings of aliases and tunnels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TunnelSettings {
    /// The addresses that stand for other hosts.
    pub range: AliasRange,
    /// Who is reached through tunnels, and who may come in, until the file is read again.
    pub policy: Policy,
    /// Whether this host connects others that cannot reach each other.
    pub relay: bool,
    /// The hosts file for Erlang nodes.
    pub hosts_file: PathBuf,
    /// The resolver file for Erlang nodes, which names the hosts file.
    pub inetrc: PathBuf,
    /// Which host has which alias.
    pub aliases: PathBuf,
}

impl TunnelSettings {
    /// What `raw` says about them, of the daemon on `port`.
    pub(super) fn from_raw(raw: &RawConfig, port: u16, paths: &Paths) -> TunnelSettings {
        // Nodes read them from wherever they run.
        let absolute = |path: PathBuf| std::path::absolute(&path).unwrap_or(path);
        let [hosts_file, inetrc, aliases] = paths.aliases(port).map(absolute);
        TunnelSettings {
            range: raw.alias_range.unwrap_or_default(),
            policy: policy(raw),
            relay: raw.relay.unwrap_or_default(),
            hosts_file,
            inetrc,
            aliases,
        }
    }
}

/// The keys that [`policy`] is made of: new values of them need no restart.
pub const POLICY_KEYS: [&str; 3] = ["tunnel", "tunnel_rule", "allow"];

/// What `raw` says about who goes through tunnels.
#[must_use]
pub fn policy(raw: &RawConfig) -> Policy {
    Policy {
        rules: TunnelRules {
            rules: raw.tunnel_rule.clone().unwrap_or_default(),
            default: raw.tunnel.unwrap_or_default(),
        },
        allow: AllowRules(raw.allow.clone().unwrap_or_default()),
    }
}
