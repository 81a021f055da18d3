//! Reading the configuration file again while the daemon runs.
//!
//! Today nothing of it can be changed without a restart; that the file is right, and what a restart would bring,
//! is worth knowing before the restart.

use super::api;
use crate::config::settings::Settings;
use crate::config::{ConfigError, file};

/// Reads the file again and compares it with what the daemon was started with.
pub fn reload(settings: &Settings) -> Result<api::Reloaded, ConfigError> {
    let now = match &settings.config_file {
        // A file that has been removed says as little as an empty one.
        Some(path) => file::read(path, false)?.unwrap_or_default(),
        None => settings.from_file.clone(),
    };
    Ok(api::Reloaded {
        config_file: settings.config_file.clone(),
        applied: Vec::new(),
        needs_restart: file::changed(&settings.from_file, &now),
    })
}
