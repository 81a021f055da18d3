//! Flags, environment and the configuration file become [`Settings`](settings::Settings).
//!
//! Each source is read into the same all-optional form, [`RawConfig`](raw::RawConfig); the first source that
//! says something about a value wins:
//!
//! ```text
//!   flags  >  environment  >  configuration file  >  defaults
//! ```
//!
//! Every value is checked where it is read, so that a message can name the file and line, the variable or the
//! flag that it came from.

pub mod address;
pub mod cluster;
pub mod discovery;
pub mod environment;
pub mod file;
pub mod paths;
pub mod raw;
pub mod rules;
pub mod settings;
pub mod tunnel;
pub mod types;

use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was asked for by name is not there.
    #[error("there is no configuration file {}", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file is there, but cannot be read.
    #[error("cannot read the configuration file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file says something that it cannot say.
    #[error("{}:{line}: {message}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
        /// What could have been meant.
        hint: Option<String>,
    },
    /// A variable of the environment has a value that it cannot have.
    #[error("the environment variable {variable}={value} cannot be used: {reason}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value is not what its key needs, wherever it came from.
    #[error("{key} = {value:?} cannot be used: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
}

impl ConfigError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            ConfigError::Missing { .. } => {
                "create it, or leave --config and PMD_CONFIG away: without a file the defaults hold".into()
            }
            ConfigError::Unreadable { path, .. } => format!("check the permissions of {}", path.display()),
            ConfigError::Invalid { hint: Some(hint), .. } => hint.clone(),
            ConfigError::Invalid { path, line, .. } => format!("correct line {line} of {}", path.display()),
            ConfigError::Environment { variable, .. } => format!("correct or unset {variable}"),
            ConfigError::Value { key, .. } => {
                format!("correct {key} in the configuration file, on the command line or in the environment")
            }
        }
    }
}
