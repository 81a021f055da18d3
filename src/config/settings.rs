//! What a daemon runs with: validated, complete, and the same whether it came from flags, the environment, a
//! file, or stock epmd's own options.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::ConfigError;
use super::cluster::ClusterSettings;
use super::paths::Paths;
use super::raw::RawConfig;
use super::types::Metadata;

/// How long a connection may take to complete its request: stock epmd's default.
pub const PACKET_TIMEOUT: Duration = Duration::from_secs(60);

/// The port unless another one is asked for: that of every epmd.
pub const PORT: u16 = pmd_protocol::limits::DEFAULT_PORT;

/// How many old names are remembered at least, as by stock epmd.
pub const OLD_NAMES: usize = 1000;
/// How many it remembers with any `-d`.
pub const OLD_NAMES_DEBUG: usize = 5;

/// Settings of one daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The port number that clients are told; its low 16 bits are listened on.
    pub port: i32,
    /// Addresses to listen on beside the loopback addresses; empty means all addresses.
    pub bind: Vec<IpAddr>,
    /// Whether KILL is obeyed while nodes are registered, and STOP at all.
    pub relaxed_command_check: bool,
    /// How long a connection may take to complete its request.
    pub packet_timeout: Duration,
    /// Threads that may serve the EPMD port.
    pub threads: usize,
    /// Pause before every round of accepts; a test aid of stock epmd.
    pub delay_accept: Duration,
    /// Pause before every write; a test aid of stock epmd.
    pub delay_write: Duration,
    /// How many old names are remembered at least.
    pub old_names: usize,
    /// Where the control socket is, or would be.
    pub socket: PathBuf,
    /// The group that may use the control socket beside its owner.
    pub control_group: Option<String>,
    /// What this host says about itself.
    pub metadata: Metadata,
    /// What this host is called: what stands behind the `@` of its Erlang nodes.
    pub host: String,
    /// The daemon's part in a cluster; none for one that was started by the name `epmd`.
    pub cluster: Option<ClusterSettings>,
    /// The configuration file, which need not exist; none if there is no place for one.
    pub config_file: Option<PathBuf>,
    /// What the configuration file said when the daemon started.
    pub from_file: RawConfig,
}

impl Settings {
    /// The defaults for a daemon on `port` with its control socket at `socket`.
    pub fn new(port: i32, socket: PathBuf) -> Settings {
        Settings {
            port,
            bind: Vec::new(),
            relaxed_command_check: false,
            packet_timeout: PACKET_TIMEOUT,
            threads: default_threads(),
            delay_accept: Duration::ZERO,
            delay_write: Duration::ZERO,
            old_names: OLD_NAMES,
            socket,
            control_group: None,
            metadata: Metadata::new(),
            host: host_name(),
            cluster: None,
            config_file: None,
            from_file: RawConfig::default(),
        }
    }

    /// The settings that all sources together make: `raw` is what they say, the strongest first.
    ///
    /// # Errors
    ///
    /// If values are right each by itself, and together are not.
    pub fn from_raw(raw: RawConfig, paths: &Paths) -> Result<Settings, ConfigError> {
        let port = raw.port.map_or(PORT, |port| port.get());
        let host = raw.host_name.clone().unwrap_or_else(host_name);
        let cluster = ClusterSettings::from_raw(&raw, &host, port, paths)?;
        let socket = raw.socket.unwrap_or_else(|| paths.socket(port));
        let defaults = Settings::new(port.into(), socket);
        Ok(Settings {
            bind: raw.bind.unwrap_or(defaults.bind),
            relaxed_command_check: raw.relaxed_command_check.unwrap_or(defaults.relaxed_command_check),
            packet_timeout: raw.packet_timeout.unwrap_or(defaults.packet_timeout),
            threads: raw.threads.unwrap_or(defaults.threads),
            control_group: raw.control_group,
            metadata: raw.metadata.unwrap_or_default(),
            host,
            cluster: Some(cluster),
            ..defaults
        })
    }

    /// The port that is really listened on.
    pub fn listen_port(&self) -> u16 {
        let [.., high, low] = self.port.to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// What this host calls itself, as `hostname` prints it.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Half the cores, up to four: those who ask a port mapper run on the same host for the most part, and a second
/// thread that takes turns with them costs more than it brings.
fn default_threads() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    (cores / 2).clamp(1, 4)
}
