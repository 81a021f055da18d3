//! Services, of this host and of the cluster.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::control::json;
use crate::directory::services::Metadata;

/// `GET /v1/services`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceList {
    /// The name of the host that the services run on.
    pub host: String,
    /// The services, by name.
    pub services: Vec<ServiceInfo>,
}

/// A registered service. The answer to `POST /v1/services`, the first line of the one to `POST
/// /v1/services/hold`, and the answer to `DELETE /v1/services/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServiceInfo {
    /// Its name.
    pub name: String,
    /// The TCP port it listens on.
    pub port: u16,
    /// What its owner says about it.
    pub metadata: Metadata,
    /// When it registered first.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
    /// When it is dropped unless it registers again.
    #[serde(default, skip_serializing_if = "Option::is_none", with = "json::rfc3339_ms_option")]
    pub expires_at: Option<Timestamp>,
    /// Whether it lives as long as a connection.
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
    /// What its owner says about it.
    #[serde(default)]
    pub metadata: Metadata,
    /// Milliseconds until it is dropped unless it registers again; not for a service that is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl_ms: Option<u64>,
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
    /// What its owner says about it.
    pub metadata: Metadata,
    /// When it registered first, by that host's clock.
    #[serde(with = "json::rfc3339_ms")]
    pub registered_at: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_without_an_end_has_no_key_for_it() {
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
