//! Reading the configuration, the cookie and the certificates again while the daemon runs.
//!
//! Cookie and certificates are in force at once, for links that are made from then on, and so are the rules about tunnels,
//! for tunnels that are opened from then on. Of the rest of the configuration file nothing can be changed without a
//! restart; that it is right, and what a restart would bring, is worth knowing before that.

use super::api;
use crate::cluster::ClusterError;
use crate::config::tunnel::TunnelPolicy;
use crate::config::{ConfigError, file};
use crate::daemon::Context;

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// The configuration file is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The cookie or a certificate is.
    #[error(transparent)]
    Cluster(#[from] ClusterError),
}

impl ReloadError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ReloadError::Config(error) => error.hint(),
            ReloadError::Cluster(error) => error.hint(),
        }
    }
}

/// Reads everything again. Reads files, so not for a thread that must not wait.
///
/// # Errors
///
/// If something is wrong; nothing has changed then.
pub fn reload(context: &Context) -> Result<api::Reloaded, ReloadError> {
    let settings = &context.settings;
    let now = match &settings.config_file {
        // A file that has been removed says as little as an empty one.
        Some(path) => file::read(path, false)?.unwrap_or_default(),
        None => settings.from_file.clone(),
    };
    let mut needs_restart = settings.from_file.changes(&now);
    let mut applied = Vec::new();
    if let (Some(cluster), Some(settings)) = (context.cluster.get(), &settings.cluster) {
        applied = cluster.reload(settings)?;
        let policy = TunnelPolicy::from_raw(&now);
        applied.extend(cluster.tunnels().policy().changes(&policy));
        needs_restart.retain(|key| !key.live);
        cluster.tunnels().set_policy(policy);
    }
    Ok(api::Reloaded {
        config_file: settings.config_file.clone(),
        applied: applied.into_iter().map(str::to_owned).collect(),
        needs_restart: needs_restart.iter().map(|key| key.name.to_owned()).collect(),
    })
}
