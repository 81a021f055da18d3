//! The complete, validated settings of a daemon, from flags, the environment, the configuration file or stock epmd's
//! options.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use pmd_epmd::names::table::OLD_NAMES;

use super::ConfigError;
use super::cluster::ClusterSettings;
use super::keys::RawConfig;
use super::paths::Paths;
use super::types::Metadata;

/// The default port of epmd.
pub const PORT: u16 = pmd_protocol::limits::DEFAULT_PORT;

/// Settings of one daemon.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The port number in answers to clients; the daemon listens on its low 16 bits.
    pub port: i32,
    /// Addresses to listen on besides the loopback addresses; empty means all addresses.
    pub bind: Vec<IpAddr>,
    /// Whether KILL is accepted while nodes are registered, and STOP at all.
    pub relaxed_command_check: bool,
    /// How long a connection may take to complete its request.
    pub packet_timeout: Duration,
    /// Threads that serve the EPMD port.
    pub threads: usize,
    /// Delay before every round of accepts; a debugging option of stock epmd.
    pub delay_accept: Duration,
    /// Delay before every write; a debugging option of stock epmd.
    pub delay_write: Duration,
    /// The minimum number of old names to remember.
    pub old_names: usize,
    /// The path of the control socket.
    pub socket: PathBuf,
    /// The group that may use the control socket, besides its owner.
    pub control_group: Option<String>,
    /// Key-value pairs announced to the cluster.
    pub metadata: Metadata,
    /// The name of this host: the part after the `@` of its Erlang nodes.
    pub host: String,
    /// The cluster settings; `None` if the daemon was started under the name `epmd` and is to know its own host alone.
    pub cluster: Option<ClusterSettings>,
    /// The configuration file, which may not exist; `None` if the daemon was started under the name `epmd` and is to
    /// know its own host alone.
    pub config_file: Option<PathBuf>,
    /// The contents of the configuration file when the daemon started.
    pub from_file: RawConfig,
}

impl Settings {
    /// The defaults for a daemon on `port` with its control socket at `socket`.
    pub fn new(port: i32, socket: PathBuf) -> Settings {
        let raw = RawConfig::default();
        Settings {
            port,
            bind: raw.bind().0,
            relaxed_command_check: raw.relaxed_command_check(),
            packet_timeout: raw.packet_timeout_secs().0,
            threads: raw.threads().count(),
            delay_accept: Duration::ZERO,
            delay_write: Duration::ZERO,
            old_names: OLD_NAMES,
            socket,
            control_group: None,
            metadata: raw.metadata(),
            host: host_name(),
            cluster: None,
            config_file: None,
            from_file: raw,
        }
    }

    /// The settings for the merged sources in `raw`.
    ///
    /// # Errors
    ///
    /// If a value is invalid in combination with others, or on this host.
    pub fn from_raw(raw: &RawConfig, paths: &Paths) -> Result<Settings, ConfigError> {
        let port = raw.port().get();
        let host = raw.host_name.clone().unwrap_or_else(host_name);
        let cluster = ClusterSettings::from_raw(raw, &host, port, paths)?;
        let socket = raw.socket.clone().unwrap_or_else(|| paths.socket(port));
        Ok(Settings {
            bind: raw.bind().0,
            relaxed_command_check: raw.relaxed_command_check(),
            packet_timeout: raw.packet_timeout_secs().0,
            threads: raw.threads().count(),
            control_group: raw.control_group.clone(),
            metadata: raw.metadata(),
            host,
            cluster: Some(cluster),
            ..Settings::new(port.into(), socket)
        })
    }

    /// The port that the daemon listens on.
    pub fn listen_port(&self) -> u16 {
        let [.., high, low] = self.port.to_be_bytes();
        u16::from_be_bytes([high, low])
    }
}

/// The system's host name, as `hostname` prints it.
fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
