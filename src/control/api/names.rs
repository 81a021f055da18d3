//! Erlang nodes, of this host and of the cluster.

use jiff::Timestamp;
use pmd_protocol::epmd::Alive2;
use serde::{Deserialize, Serialize};

use crate::control::json;

/// `GET /v1/names`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct NameList {
    /// The name of this host.
    pub host: String,
    /// The nodes, newest first.
    pub names: Vec<Name>,
}

/// A registered Erlang node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Name {
    /// The part of the node name before the `@`.
    pub name: String,
    /// Its distribution port.
    pub port: u16,
    /// The creation: distinguishes this registration of the name from earlier ones.
    pub creation: u32,
    /// When it registered.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
    /// Time since it registered.
    pub age_seconds: u64,
    /// 77 for a normal node, 72 and 104 for hidden and C nodes, 110 for Java.
    pub node_type: u8,
    /// The highest distribution version it speaks.
    pub highest_version: u16,
    /// The lowest distribution version it speaks.
    pub lowest_version: u16,
    /// Whether it was taken over from another port mapper and has not registered again yet.
    pub adopted: bool,
}

/// `GET /v1/names?scope=cluster`: Erlang nodes on all hosts; with `&host=HOST` on that one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterNameList {
    /// The nodes, by host and then by name.
    pub names: Vec<ClusterName>,
}

/// An Erlang node somewhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterName {
    /// The part of the node name before the `@`.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The id of that host's daemon.
    pub node_id: String,
    /// Its distribution port.
    pub port: u16,
    /// The creation: distinguishes this registration of the name from earlier ones.
    pub creation: u32,
    /// When it registered, by that host's clock.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
    /// See [`Name::node_type`].
    pub node_type: u8,
    /// See [`Name::highest_version`].
    pub highest_version: u16,
    /// See [`Name::lowest_version`].
    pub lowest_version: u16,
}

/// The body of `POST /v1/names/adopt`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Adopt {
    /// The nodes that were registered with another port mapper.
    pub names: Vec<AdoptedName>,
}

/// A node that was registered with another port mapper.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdoptedName {
    /// The part of the node name before the `@`.
    pub name: String,
    /// Its distribution port.
    pub port: u16,
    /// See [`Name::node_type`].
    pub node_type: u8,
    /// 0 for TCP/IPv4.
    pub protocol: u8,
    /// See [`Name::highest_version`].
    pub highest_version: u16,
    /// See [`Name::lowest_version`].
    pub lowest_version: u16,
    /// The extra field of its registration, in base 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty", with = "json::base16")]
    pub extra: Vec<u8>,
}

impl AdoptedName {
    /// The request that the node itself would register with.
    pub fn as_alive2(&self) -> Alive2<'_> {
        Alive2 {
            port: self.port,
            node_type: self.node_type,
            protocol: self.protocol,
            highest_version: self.highest_version,
            lowest_version: self.lowest_version,
            name: &self.name,
            extra: &self.extra,
        }
    }
}

/// The answer to `POST /v1/names/adopt`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdoptOutcome {
    /// How many were taken over.
    pub adopted: usize,
    /// How many were already registered here.
    pub registered: usize,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_adopted_name_survives_the_wire() {
        let name = AdoptedName {
            name: "rabbit \u{1b}[31m".into(),
            port: 25672,
            node_type: 77,
            protocol: 0,
            highest_version: 6,
            lowest_version: 5,
            extra: vec![0, 1, 0xfe, 0xff],
        };
        let json = serde_json::to_string(&name).expect("it is plain data");
        assert!(json.contains("\"extra\":\"0001feff\""), "{json}");
        assert_eq!(serde_json::from_str::<AdoptedName>(&json).expect("it is right"), name);
        for wrong in ["\"abc\"", "\"zz\"", "\"ä\"", "7"] {
            let json = json.replace("\"0001feff\"", wrong);
            assert!(serde_json::from_str::<AdoptedName>(&json).is_err(), "{wrong}");
        }
    }
}
