//! The types of configuration values: plain data with parsing and printing.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use pmd_core::tuning::PhiTuning;
use serde::de::{self, Deserializer};
use serde::{Deserialize, Serialize};

use super::value::{FromVariable, Value, utf8};

/// Key-value pairs that describe a host or a service.
pub type Metadata = BTreeMap<String, String>;

/// How long a connection may take to complete its request; the same as in stock epmd.
pub const PACKET_TIMEOUT: Duration = Duration::from_secs(60);

/// The default time for which a daemon that has failed keeps its host name: longer than a reboot or a repair at once, and
/// short enough that a host that was set up again works without an administrator on the same day.
pub const HOLD_NAMES: Duration = Duration::from_secs(3600);

/// The default time in which a member that was away may return with the old cluster secret: a week, so that a host that is
/// off over a weekend returns by itself.
pub const ROTATE_GRACE: Duration = Duration::from_secs(7 * 24 * 3600);

/// A TCP port that can be listened on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Port(u16);

/// The error for text or a number that is not a [`Port`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a port is a number from 1 to 65535")]
pub struct NotAPort;

impl Port {
    /// The default port of epmd.
    pub const EPMD: Port = Port(pmd_protocol::limits::DEFAULT_PORT);

    /// The number.
    pub fn get(self) -> u16 {
        self.0
    }
}

impl TryFrom<i64> for Port {
    type Error = NotAPort;

    fn try_from(number: i64) -> Result<Port, NotAPort> {
        u16::try_from(number).ok().filter(|port| *port != 0).map(Port).ok_or(NotAPort)
    }
}

impl FromStr for Port {
    type Err = NotAPort;

    fn from_str(text: &str) -> Result<Port, NotAPort> {
        // `parse` alone would accept "+80".
        if text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(NotAPort);
        }
        text.parse().ok().filter(|port| *port != 0).map(Port).ok_or(NotAPort)
    }
}

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Port, D::Error> {
        let number = i64::deserialize(deserializer)?;
        Port::try_from(number).map_err(|error| de::Error::custom(format!("{number}: {error}")))
    }
}

impl Value for Port {
    fn kind() -> String {
        "number from 1 to 65535".to_owned()
    }
}

impl FromVariable for Port {
    fn from_variable(value: &OsStr) -> Result<Port, String> {
        utf8(value)?.trim().parse().map_err(|error: NotAPort| error.to_string())
    }
}

/// A daemon to join.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Peer {
    /// Its address: `HOST` or `HOST:PORT`.
    pub address: String,
    /// Whether to join this daemon.
    #[serde(default = "yes")]
    pub auto_connect: bool,
}

fn yes() -> bool {
    true
}

impl Value for Vec<Peer> {
    fn kind() -> String {
        "tables".to_owned()
    }
}

/// Which hosts may look up names over EPMD. Registrations are accepted only from this host.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum EpmdAccess {
    /// All hosts, as with stock epmd.
    #[default]
    Open,
    /// This host and those of live members.
    Members,
    /// Only this host.
    Local,
}

impl Value for EpmdAccess {
    fn kind() -> String {
        "`\"open\"`, `\"members\"` or `\"local\"`".to_owned()
    }
}

/// Who may see the status page on the EPMD port.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum WebAccess {
    /// Clients on loopback addresses.
    #[default]
    Local,
    /// Nobody: the page is not served.
    Off,
    /// All clients that can reach the port.
    Open,
}

impl Value for WebAccess {
    fn kind() -> String {
        "`\"local\"`, `\"off\"` or `\"open\"`".to_owned()
    }
}

/// The phi at which a silent peer is probed: from 1 to 16.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PhiThreshold(f64);

impl PhiThreshold {
    /// The default of `pmd_core`.
    pub const DEFAULT: PhiThreshold = PhiThreshold(PhiTuning::DEFAULT.threshold);

    /// The number.
    #[must_use]
    pub fn get(self) -> f64 {
        self.0
    }
}

impl Value for PhiThreshold {
    fn kind() -> String {
        "number from 1 to 16, with optional fraction".to_owned()
    }
}

impl<'de> Deserialize<'de> for PhiThreshold {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<PhiThreshold, D::Error> {
        match f64::deserialize(deserializer)? {
            threshold if (1.0..=16.0).contains(&threshold) => Ok(PhiThreshold(threshold)),
            other => Err(de::Error::custom(format!("{other}: it must be from 1 to 16"))),
        }
    }
}

/// Where a daemon's identity comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdentitySource {
    /// The daemon's own key, which is generated if it does not exist.
    Auto {
        /// The file of the key.
        key: PathBuf,
    },
    /// A certificate issued by the cluster's CA.
    Authority {
        /// The file of the CA's certificate.
        ca: PathBuf,
        /// The file of this daemon's certificate, followed by any intermediates.
        certificate: PathBuf,
        /// The file of the certificate's private key.
        key: PathBuf,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_digits_from_1_to_65535() {
        assert_eq!("4369".parse(), Ok(Port(4369)));
        assert_eq!("65535".parse(), Ok(Port(65535)));
        for wrong in ["", "0", "65536", "-1", "+1", " 1", "1 ", "0x10", "epmd", "99999999999999999999"] {
            assert_eq!(wrong.parse::<Port>(), Err(NotAPort), "{wrong:?}");
        }
    }
}
