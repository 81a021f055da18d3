//! Services, of this host and of the cluster.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::control::json;
use crate::directory::services::Metadata;

/// `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceList {
    /// The name of this host.
    pub host: String,
    /// The services, by name.
    pub services: Vec<ServiceInfo>,
}

/// A registered service: the answer to `POST /v1/services` and `DELETE /v1/services/NAME`, and the first line of the
/// answer to `POST /v1/services/hold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// The TCP port it listens on.
    pub port: u16,
    /// Its metadata.
    pub metadata: Metadata,
    /// When it first registered.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
    /// When it expires unless it is renewed.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::rfc3339_ms_option")]
    pub expires_at: Option<Timestamp>,
    /// Whether it ends with a connection.
    pub held: bool,
}

/// The body of `POST /v1/services` and `POST /v1/services/hold`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewService {
    /// Its name.
    pub name: String,
    /// The TCP port it listens on.
    pub port: u16,
    /// Its metadata.
    #[serde(default)]
    pub metadata: Metadata,
    /// Milliseconds until it expires unless it is renewed; not for a service that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
}

/// The last line of the answer to `POST /v1/services/hold`, if the service ends before the daemon.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceEnded {
    /// Why the service is no longer registered.
    pub ended: String,
}

/// `GET /v1/services?scope=cluster`: services on all hosts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterServiceList {
    /// The services, by name and then by host.
    pub services: Vec<ClusterService>,
}

/// A service somewhere in the cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClusterService {
    /// Its name.
    pub name: String,
    /// The host it runs on.
    pub host: String,
    /// The id of that host's daemon.
    pub node_id: String,
    /// The TCP port it listens on.
    pub port: u16,
    /// Its metadata.
    pub metadata: Metadata,
    /// When it first registered, by that host's clock.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_that_does_not_expire_omits_the_key() {
        let service = ServiceInfo {
            name: "web".into(),
            port: 80,
            metadata: Metadata::new(),
            registered_at: json::timestamp(0),
            expires_at: None,
            held: false,
        };
        let json = serde_json::to_string(&service).expect("it is plain data");
        assert_eq!(
            json,
            r#"{"name":"web","port":80,"metadata":{},"registered_at":"1970-01-01T00:00:00.000Z","held":false}"#
        );
        assert_eq!(serde_json::from_str::<ServiceInfo>(&json).expect("it is right"), service);
    }
}
