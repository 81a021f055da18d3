//! Rereads the configuration, the cluster secret and the certificates while the daemon runs.
//!
//! The secret and the certificates apply to new links, the tunnel rules to new tunnels. All other keys need a restart;
//! a reload checks that they are valid and reports which of them have changed.

use std::path::PathBuf;
use std::sync::Arc;

use super::api;
use crate::cluster::membership::{Cluster, ClusterError};
use crate::config::cluster::ClusterSettings;
use crate::config::keys::RawConfig;
use crate::config::tunnel::TunnelPolicy;
use crate::config::{ConfigError, file};
use crate::tunnel::state::Tunnels;

/// Why a reload failed. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration file is invalid.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cluster secret or a certificate cannot be used.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl ReloadError {
    /// What to do next.
    pub fn hint(&self) -> String {
        match self {
            ReloadError::Config(error) => error.hint(),
            ReloadError::Cluster(error) => error.hint(),
        }
    }
}

/// Rereads the configuration.
#[derive(Debug)]
pub struct Reloader {
    /// The path of the configuration file, if the daemon has one.
    pub config_file: Option<PathBuf>,
    /// Its content when the daemon started.
    pub from_file: RawConfig,
    /// The cluster, its tunnels and its settings; none if the daemon is not a member of one.
    pub member: Option<(Arc<Cluster>, Arc<Tunnels>, ClusterSettings)>,
}

impl Reloader {
    /// Rereads everything and logs the outcome. Blocks on file I/O.
    ///
    /// # Errors
    ///
    /// If anything is invalid. Nothing has changed then.
    pub fn reload(&self) -> Result<api::Reloaded, ReloadError> {
        let done = self.apply();
        match &done {
            Ok(done) => {
                if done.applied.is_empty() && done.needs_restart.is_empty() {
                    tracing::info!("reloaded: no changes");
                }
                if !done.applied.is_empty() {
                    tracing::info!("reloaded: applied {}", done.applied.join(", "));
                }
                if !done.needs_restart.is_empty() {
                    let keys = done.needs_restart.join(", ");
                    tracing::warn!("reloaded: these keys have changed and need a restart: {keys}");
                }
            }
            Err(error) => tracing::error!("reload failed, nothing has changed: {error}"),
        }
        done
    }

    fn apply(&self) -> Result<api::Reloaded, ReloadError> {
        let now = match &self.config_file {
            // A file that was removed counts as empty.
            Some(path) => file::read(path, false)?.unwrap_or_default(),
            None => self.from_file.clone(),
        };
        let mut needs_restart = self.from_file.changes(&now);
        let mut applied = Vec::new();
        if let Some((cluster, tunnels, settings)) = &self.member {
            applied = cluster.reload(settings)?;
            let policy = TunnelPolicy::from_raw(&now);
            applied.extend(tunnels.policy().changes(&policy));
            needs_restart.retain(|key| !key.live);
            tunnels.set_policy(policy);
        }
        Ok(api::Reloaded {
            config_file: self.config_file.clone(),
            applied: applied.into_iter().map(str::to_owned).collect(),
            needs_restart: needs_restart.iter().map(|key| key.name.to_owned()).collect(),
        })
    }
}
