//! The keys of the configuration file, each declared once.
//!
//! From a declaration the macro generates the field of [`RawConfig`], the code that merges sources, reads environment
//! variables and reports changes on reload, the accessor with the default, and the entry in `docs/reference.md`.

use std::path::{Path, PathBuf};

use pmd_core::tuning::{GossipTuning, PhiTuning};
use serde::{Deserialize, Serialize};

use super::ConfigError;
use super::environment::{self, Lookup, Variable};
use super::ranges::{LoopbackRange, PortRange};
use super::rules::{AllowRule, Mode, TunnelRule};
use super::types::{
    EpmdAccess, HOLD_NAMES, Metadata, PACKET_TIMEOUT, Peer, PhiThreshold, Port, ROTATE_GRACE, WebAccess,
};
use super::value::{Addresses, Seconds, Value, Within};

/// A key of the configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Key {
    /// Its name.
    pub name: &'static str,
    /// Whether a new value takes effect on reload.
    pub live: bool,
}

/// The reference entry of a key.
#[derive(Debug, Clone)]
pub struct KeyReference {
    /// The key.
    pub key: Key,
    /// The type of its value.
    pub kind: String,
    /// The unit of its value.
    pub unit: Option<&'static str>,
    /// The default value.
    pub default: String,
    /// The environment variables that set it; the first one that is set is used.
    pub variables: Vec<Variable>,
    /// The description, in Markdown.
    pub about: &'static str,
}

/// Declares the keys in this form, where everything in braces is optional:
///
/// ```text
/// /// The description of the key.
/// key: Type {
///     unit: "s",                  the unit, for the reference
///     default: value,             the accessor returns this unless a value is configured
///     otherwise: "none",          the reference shows this instead of the default value
///     variables: [Value("PMD_KEY")],  the first one that is set is used
///     live: true,                 a new value takes effect on reload
/// }
/// ```
macro_rules! keys {
    ($(
        $(#[doc = $about:literal])+
        $key:ident: $type:ty {
            $(unit: $unit:literal,)?
            $(default: $default:expr,)?
            $(otherwise: $otherwise:literal,)?
            $(variables: [$($variable:expr),+],)?
            $(live: $live:literal,)?
        }
    )+) => {
        /// The values from one source. Each key is optional, and each value is validated on its own.
        #[derive(Debug, Clone, Default, PartialEq, Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct RawConfig {
            $($(#[doc = $about])+ pub $key: Option<$type>,)+
        }

        impl RawConfig {
            /// Every key.
            pub const KEYS: &'static [Key] = &[$(Key { name: stringify!($key), live: false $(|| $live)? },)+];

            /// Fills the keys that this source does not set from `other`.
            #[must_use]
            pub fn or(self, other: RawConfig) -> RawConfig {
                RawConfig { $($key: self.$key.or(other.$key),)+ }
            }

            /// Reads the values from environment variables.
            ///
            /// # Errors
            ///
            /// If a variable has an invalid value.
            pub fn from_environment(variables: Lookup<'_>) -> Result<RawConfig, ConfigError> {
                Ok(RawConfig {
                    $($($key: environment::first(variables, &[$($variable),+])?,)?)+
                    ..RawConfig::default()
                })
            }

            /// Resolves relative paths against `folder`, the folder of the configuration file.
            #[must_use]
            pub fn in_folder(self, folder: &Path) -> RawConfig {
                RawConfig { $($key: self.$key.map(|value| value.in_folder(folder)),)+ }
            }

            /// The keys whose values differ.
            #[must_use]
            pub fn changes(&self, other: &RawConfig) -> Vec<Key> {
                let differs = [$(self.$key != other.$key),+];
                RawConfig::KEYS.iter().zip(differs).filter_map(|(key, differs)| differs.then_some(*key)).collect()
            }

            /// The reference entries of all keys.
            #[must_use]
            pub fn reference() -> Vec<KeyReference> {
                let entries = [$((
                    concat!($($about, "\n"),+),
                    <$type>::kind(),
                    either([$($unit)?]),
                    either([$($otherwise.to_owned(),)? $(shown::<$type>(&$default),)?].map(String::from)),
                    vec![$($($variable),+)?],
                )),+];
                RawConfig::KEYS.iter().zip(entries).map(|(key, (about, kind, unit, default, variables))| KeyReference {
                    key: *key, kind, unit, default: default.unwrap_or_default(), variables, about,
                }).collect()
            }

            $($(
                #[doc = concat!("The value of `", stringify!($key), "`, or its default.")]
                #[must_use]
                pub fn $key(&self) -> $type {
                    self.$key.as_ref().map_or_else(|| $default, Clone::clone)
                }
            )?)+
        }
    };
}

/// The first of the optional parts of a declaration that are present.
fn either<T, const N: usize>(parts: [T; N]) -> Option<T> {
    parts.into_iter().next()
}

/// Formats a value for the reference, as TOML.
fn shown<T: Serialize>(value: &T) -> String {
    match toml::Value::try_from(value) {
        Ok(toml::Value::Array(list)) if list.is_empty() => "none".to_owned(),
        Ok(toml::Value::Table(table)) if table.is_empty() => "none".to_owned(),
        Ok(value) => format!("`{value}`"),
        Err(error) => error.to_string(),
    }
}

keys! {
    /// The TCP port for EPMD, links between daemons and the status page.
    port: Port {
        default: Port::EPMD,
        variables: [Variable::Value(environment::PORT)],
    }

    /// Addresses to listen on, besides the loopback addresses.
    bind: Addresses {
        default: Addresses::default(),
        otherwise: "all addresses",
        variables: [Variable::Value(environment::BIND), Variable::Value(environment::ADDRESS)],
    }

    /// Whether KILL is accepted while nodes are registered, and from every user of this host. STOP is accepted only
    /// with `true`.
    relaxed_command_check: bool {
        default: false,
        variables: [Variable::Value("PMD_RELAXED_COMMAND_CHECK"), Variable::Presence(environment::RELAXED)],
    }

    /// How long a connection may take to complete its request.
    packet_timeout_secs: Seconds {
        unit: "s",
        default: Seconds(PACKET_TIMEOUT),
        variables: [Variable::Value("PMD_PACKET_TIMEOUT")],
    }

    /// Threads that serve the EPMD port.
    threads: Within<1, 64> {
        default: default_threads(),
        otherwise: "half the cores, at most 4",
    }

    /// The control socket, to which the command line connects.
    socket: PathBuf {
        otherwise: "`pmd-PORT.sock` in the directory for sockets",
        variables: [Variable::Value(environment::SOCKET)],
    }

    /// The group that may use the control socket, besides its owner.
    control_group: String {
        otherwise: "none",
        variables: [Variable::Value("PMD_CONTROL_GROUP")],
    }

    /// Key-value pairs announced to the cluster and shown by `pmd nodes`.
    metadata: Metadata {
        default: Metadata::new(),
    }

    /// The name of this host in the cluster: the part after the `@` of its Erlang nodes.
    host_name: String {
        otherwise: "the system's host name",
        variables: [Variable::Value("PMD_HOST_NAME")],
    }

    /// The name of the cluster. Daemons of different clusters do not talk to each other.
    cluster: String {
        default: "pmd".to_owned(),
        variables: [Variable::Value("PMD_CLUSTER")],
    }

    /// The file of the cluster secret.
    cookie_file: PathBuf {
        otherwise: "`cookie` in the directory for secrets",
        variables: [Variable::Value("PMD_COOKIE_FILE")],
    }

    /// The addresses at which other daemons can reach this one, in order of preference, with or without a port.
    advertise: Vec<String> {
        default: Vec::new(),
        otherwise: "the addresses it listens on",
        variables: [Variable::Value("PMD_ADVERTISE")],
    }

    /// Daemons to join, as `HOST` or `HOST:PORT`. Each is retried until it answers.
    join: Vec<String> {
        default: Vec::new(),
        variables: [Variable::Value("PMD_JOIN")],
    }

    /// Whether the daemon takes part in the cluster, too, if it is started under the name `epmd`, as Erlang does. By
    /// default only if `PMD_JOIN` or `PMD_CLUSTER` is set.
    epmd_joins: bool {
        otherwise: "if `PMD_JOIN` or `PMD_CLUSTER` is set",
        variables: [Variable::Value("PMD_EPMD_JOINS")],
    }

    /// Daemons to join, as in `join`, but one table each: `address`, and `auto_connect = false` to skip it.
    peer: Vec<Peer> {
        default: Vec::new(),
    }

    /// Discovery plugins that find other daemons: `broadcast`, `broadcast:PORT`, `dns:NAME`, `dns:NAME:PORT` or
    /// `exec:COMMAND`.
    discovery: Vec<String> {
        default: Vec::new(),
        variables: [Variable::Value("PMD_DISCOVERY")],
    }

    /// Which hosts may look up names over the EPMD protocol: all hosts, the hosts of live members, or only this host.
    /// Registrations are accepted only from this host.
    epmd_access: EpmdAccess {
        default: EpmdAccess::default(),
    }

    /// Whether another member may tell this daemon to leave the cluster (`pmd leave HOST` there).
    leave_on_request: bool {
        default: true,
    }

    /// The ids of the daemons that may expel members and replace the cluster secret; `*` means every member. List the
    /// administrators' hosts here, so that an intruder on another host cannot expel anybody.
    administrators: Vec<String> {
        default: vec!["*".to_owned()],
    }

    /// The host names of the daemons that decide who holds a claim (`pmd claim`), the same list on every host. Three
    /// tolerate the loss of one, five that of two. Without it, there are no claims. At the first start, all of them must be
    /// there once.
    voters: Vec<String> {
        default: Vec::new(),
        variables: [Variable::Value("PMD_VOTERS")],
    }

    /// How long a member that was away while the cluster secret was replaced may return with the old one, once.
    rotate_grace_secs: Seconds {
        unit: "s",
        default: Seconds(ROTATE_GRACE),
    }

    /// How long a daemon that has failed keeps its host name, and a daemon that has failed or left its alias. Until then,
    /// another daemon that claims the name (a host whose key was lost, or an impostor) or the alias is shown and not used.
    /// With a CA, whose certificates say whose a name is, this is for aliases only.
    hold_names_secs: Seconds {
        unit: "s",
        default: Seconds(HOLD_NAMES),
    }

    /// Who may see the status page: clients on loopback addresses, nobody, or all clients.
    web: WebAccess {
        default: WebAccess::default(),
    }

    /// The certificate of the cluster's certificate authority (CA). If it is set, daemons accept only peers whose
    /// certificate this CA issued.
    ca_cert_path: PathBuf {
        otherwise: "none: each daemon generates its own key",
    }

    /// This daemon's certificate, issued by the cluster's CA.
    cert_path: PathBuf {
        otherwise: "`HOST.pem` in the directory for secrets",
    }

    /// The private key of that certificate.
    key_path: PathBuf {
        otherwise: "`HOST.key` in the directory for secrets",
    }

    /// The range of loopback addresses used as aliases of other hosts.
    alias_range: LoopbackRange {
        default: LoopbackRange::ALIASES,
    }

    /// The range of loopback addresses at which nodes on this host dial nodes on other hosts, one for each node in use.
    /// Nothing listens there but pmd, on its own port.
    node_range: LoopbackRange {
        default: LoopbackRange::NODES,
    }

    /// The ports of the entries: listeners on aliases, for clients that cannot be given an address for each node.
    entry_ports: PortRange {
        otherwise: "4500 ports below the system's ephemeral ports",
    }

    /// When other hosts are reached through tunnels: always, only if Erlang cannot reach them directly, or never.
    tunnel: Mode {
        default: Mode::default(),
        live: true,
    }

    /// Overrides `tunnel` for some hosts, one table each: `host`, a pattern for full or short names, and `mode`. The
    /// first matching rule applies. In a pattern, `*` matches any characters and `?` exactly one.
    tunnel_rule: Vec<TunnelRule> {
        default: Vec::new(),
        live: true,
    }

    /// Which hosts may reach which nodes and services of this host through tunnels, one table each: a pattern for
    /// `host` and one for `name`. Without any such table, all members may reach everything.
    allow: Vec<AllowRule> {
        default: Vec::new(),
        live: true,
    }

    /// Whether this host relays tunnels between members that cannot reach each other.
    relay: bool {
        default: false,
    }

    /// The interval between heartbeats.
    heartbeat_interval_secs: Within<1, 60> {
        unit: "s",
        default: Within::clamped(PhiTuning::DEFAULT.interval_ms / 1000),
    }

    /// The interval between comparisons of the registry with a random peer.
    sync_interval_secs: Within<1, { u64::MAX }> {
        unit: "s",
        default: Within::clamped(GossipTuning::DEFAULT.exchange_ms / 1000),
    }

    /// The phi (suspicion level of the accrual failure detector) at which a silent peer is probed.
    phi_threshold: PhiThreshold {
        default: PhiThreshold::DEFAULT,
    }

    /// The number of heartbeats from which phi is computed.
    phi_window_size: Within<10, 10_000> {
        default: Within::clamped(PhiTuning::DEFAULT.window.try_into().unwrap_or(u64::MAX)),
    }

    /// The lower bound for the standard deviation of heartbeat intervals.
    phi_min_std_deviation_ms: Within<10, { u64::MAX }> {
        unit: "ms",
        default: Within::clamped(PhiTuning::DEFAULT.min_deviation_ms),
    }
}

/// Half the cores, up to four: most clients run on the same host, so more threads would only compete with them for
/// cores.
fn default_threads() -> Within<1, 64> {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    Within::clamped((cores / 2).min(4).try_into().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn port(number: i64) -> Option<Port> {
        Port::try_from(number).ok()
    }

    #[test]
    fn the_first_source_wins_value_by_value() {
        let first = RawConfig { port: port(1), ..RawConfig::default() };
        let second = RawConfig { port: port(2), relaxed_command_check: Some(true), ..RawConfig::default() };
        let both = first.or(second);
        assert_eq!((both.port, both.relaxed_command_check), (port(1), Some(true)));
    }

    #[test]
    fn an_unset_key_has_its_default() {
        let raw = RawConfig { port: port(1), ..RawConfig::default() };
        assert_eq!(
            (Some(raw.port()), raw.tunnel(), raw.cluster()),
            (port(1), Mode::Always, "pmd".to_owned())
        );
    }

    #[test]
    fn changed_keys_are_reported() {
        let before = RawConfig { port: port(1), tunnel: Some(Mode::Never), ..RawConfig::default() };
        let after = RawConfig { port: port(1), web: Some(WebAccess::Off), ..RawConfig::default() };
        let (web, tunnel) = (Key { name: "web", live: false }, Key { name: "tunnel", live: true });
        assert_eq!(before.changes(&after), [web, tunnel]);
    }

    #[test]
    fn the_reference_explains_every_key() {
        let reference = RawConfig::reference();
        assert_eq!(reference.len(), RawConfig::KEYS.len());
        for entry in reference {
            assert!(entry.about.trim().ends_with('.') && !entry.kind.is_empty(), "{entry:?}");
            assert!(!entry.default.is_empty(), "{entry:?}");
            let unit = entry.key.name.rsplit('_').next().filter(|last| ["secs", "ms"].contains(last));
            assert_eq!(unit.map(|unit| unit.trim_end_matches("ecs")), entry.unit, "{entry:?}");
        }
    }

    fn from_environment(set: &[(&str, &str)]) -> Result<RawConfig, String> {
        let lookup = |name: &str| {
            set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        RawConfig::from_environment(&lookup).map_err(|error| error.to_string())
    }

    #[test]
    fn pmds_own_variables_take_precedence_over_those_of_stock() {
        let stock = [
            (environment::ADDRESS, "10.0.0.1, ::1"),
            (environment::RELAXED, ""),
            (environment::PORT, "5000"),
        ];
        let raw = from_environment(&stock).expect("valid");
        assert_eq!(raw.bind.map(|list| list.0.len()), Some(2));
        assert_eq!((raw.relaxed_command_check, raw.port), (Some(true), port(5000)));
        let raw = from_environment(&[
            (environment::ADDRESS, "10.0.0.1"),
            ("PMD_BIND", "10.0.0.2"),
            (environment::RELAXED, "1"),
            ("PMD_RELAXED_COMMAND_CHECK", "no"),
        ])
        .expect("valid");
        assert_eq!(raw.bind, Some(Addresses(vec!["10.0.0.2".parse().expect("an address")])));
        assert_eq!(raw.relaxed_command_check, Some(false));
    }

    #[test]
    fn an_empty_environment_sets_no_keys() {
        assert_eq!(from_environment(&[]), Ok(RawConfig::default()));
        assert_eq!(
            from_environment(&[(environment::PORT, ""), ("PMD_SOCKET", "")]),
            Ok(RawConfig::default())
        );
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_variable() {
        assert_eq!(
            from_environment(&[(environment::PORT, "epmd")]),
            Err("invalid environment variable ERL_EPMD_PORT=epmd: a port is a number from 1 to 65535"
                .to_owned())
        );
        assert!(from_environment(&[("PMD_PACKET_TIMEOUT", "0s")]).is_err());
        assert!(from_environment(&[("PMD_RELAXED_COMMAND_CHECK", "maybe")]).is_err());
    }
}
