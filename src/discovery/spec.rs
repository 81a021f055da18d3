//! Builds plugins from their [specifications](crate::config::discovery) in the configuration.

use super::Discovery;
use super::broadcast::{BeaconSettings, Broadcast};
use super::dns::Dns;
use super::exec::Exec;
use crate::config::discovery::Spec;
use crate::config::types::Port;

/// Builds the plugin for a specification. A UDP port in the specification overrides that of `beacons`.
pub fn plugin(spec: &Spec, beacons: &BeaconSettings) -> Box<dyn Discovery> {
    match spec {
        Spec::Broadcast { port } => Box::new(Broadcast::new(BeaconSettings {
            beacon_port: port.map_or(beacons.beacon_port, Port::get),
            ..beacons.clone()
        })),
        Spec::Dns { name, port } => Box::new(Dns::new(name.clone(), port.map_or(beacons.port, Port::get))),
        Spec::Exec { command } => Box::new(Exec::new(command.clone())),
    }
}
