//! The environment variables that a node needs to reach other hosts of the cluster.

use crate::config::{environment, settings};
use crate::control::api::TunnelList;

/// The variable that holds the path of a node's resolver configuration.
const INETRC: &str = "ERL_INETRC";

/// The variables and their values.
pub fn variables(tunnels: &TunnelList) -> Vec<(&'static str, String)> {
    let mut variables = vec![(INETRC, tunnels.inetrc.display().to_string())];
    if tunnels.port != settings::PORT {
        variables.push((environment::PORT, tunnels.port.to_string()));
    }
    variables
}
