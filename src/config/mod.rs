//! Flags, environment and the configuration file become [`Settings`](settings::Settings).
//!
//! Each source is read into the same all-optional form, [`RawConfig`](keys::RawConfig); the first source that gives a
//! key a value wins:
//!
//! ```text
//!   flags  >  environment  >  configuration file  >  defaults
//! ```
//!
//! Every value is checked where it is read, so that the error can name the file and line, the variable or the flag that
//! it came from. Everything here is plain data. What acts on it is elsewhere: rules are matched by
//! [`tunnel`](crate::tunnel), plugins built by [`discovery`](crate::discovery).

pub mod address;
pub mod cluster;
pub mod discovery;
pub mod environment;
pub mod file;
pub mod keys;
pub mod paths;
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
    /// The file is no TOML, or has an unknown key or an invalid value.
    #[error("{}:{line}: {message}", .path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong in that line.
        message: String,
        /// What was probably meant.
        hint: Option<String>,
    },
    /// An environment variable has an invalid value.
    #[error("the environment variable {variable}={value} cannot be used: {reason}")]
    Environment {
        /// Its name.
        variable: &'static str,
        /// Its value.
        value: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A value is invalid, whichever source it came from.
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
    /// How to fix it.
    pub fn hint(&self) -> String {
        match self {
            ConfigError::Missing { .. } => {
                "create it, or leave out --config and PMD_CONFIG: without a file the defaults apply".into()
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
