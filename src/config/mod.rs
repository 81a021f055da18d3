//! Merges flags, environment and the configuration file into [`Settings`](settings::Settings).
//!
//! Each source is read into a [`RawConfig`](keys::RawConfig), in which every key is optional. For each key, the first
//! source that sets it wins:
//!
//! ```text
//!   flags  >  environment  >  configuration file  >  defaults
//! ```
//!
//! Every value is validated where it is read, so that errors can name the file and line, the variable or the flag. The
//! types here are plain data: [`tunnel`](crate::tunnel) matches the rules, and [`discovery`](crate::discovery) builds
//! the plugins.

pub mod address;
pub mod cluster;
pub mod discovery;
pub mod environment;
pub mod file;
pub mod keys;
pub mod paths;
pub mod ranges;
pub mod rules;
pub mod settings;
pub mod tunnel;
pub mod types;
pub mod value;

use std::path::PathBuf;

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file that was named explicitly does not exist.
    #[error("the configuration file {} does not exist", .path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file exists, but cannot be read.
    #[error("cannot read the configuration file {}: {source}", .path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The file is not valid TOML, or has an unknown key or an invalid value.
    #[error("{}:{line}: {message}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong in that line.
        message: String,
        /// How to fix it, if there is more to say than "correct this line".
        hint: Option<String>,
    },
    /// An environment variable has an invalid value.
    #[error("invalid environment variable {variable}={value}: {reason}")]
    Environment {
        /// The variable.
        variable: &'static str,
        /// Its value.
        value: String,
        /// Why the value is invalid.
        reason: String,
    },
    /// The user has no home directory, so there is no place for the files.
    #[error("the user with uid {user} has no home directory for pmd's files")]
    NoHome {
        /// The user's number.
        user: u32,
    },
    /// A value is invalid, whichever source it came from.
    #[error("invalid value {key} = {value:?}: {reason}")]
    Value {
        /// The key.
        key: &'static str,
        /// Its value.
        value: String,
        /// Why the value is invalid.
        reason: String,
    },
}

impl ConfigError {
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            ConfigError::Missing { .. } => {
                "create it, or omit --config and unset PMD_CONFIG to use the defaults".into()
            }
            ConfigError::Unreadable { path, .. } => format!("check the permissions of {}", path.display()),
            ConfigError::Invalid { hint: Some(hint), .. } => hint.clone(),
            ConfigError::Invalid { path, line, .. } => format!("correct line {line} of {}", path.display()),
            ConfigError::Environment { variable, .. } => format!("correct or unset {variable}"),
            ConfigError::NoHome { .. } => {
                "set PMD_HOME to a directory that belongs to this user alone, or set HOME".into()
            }
            ConfigError::Value { key, .. } => {
                format!("correct {key} in the configuration file, on the command line or in the environment")
            }
        }
    }
}
