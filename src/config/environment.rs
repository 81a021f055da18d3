//! The environment variables that set configuration keys.
//!
//! `PMD_*` are pmd's own variables. `ERL_EPMD_PORT`, `ERL_EPMD_ADDRESS` and `ERL_EPMD_RELAXED_COMMAND_CHECK` are stock
//! epmd's, so that pmd works in an environment set up for epmd; pmd's own take precedence.

use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;
use super::types::Port;
use super::value::FromVariable;

/// Stock epmd's variable for the port.
pub const PORT: &str = "ERL_EPMD_PORT";
/// Stock epmd's variable for the addresses.
pub const ADDRESS: &str = "ERL_EPMD_ADDRESS";
/// pmd's own variable for the addresses.
pub const BIND: &str = "PMD_BIND";
/// Stock epmd's variable that allows KILL and STOP if it is set to any value.
pub const RELAXED: &str = "ERL_EPMD_RELAXED_COMMAND_CHECK";
/// The variable for the control socket.
pub const SOCKET: &str = "PMD_SOCKET";
/// The variable for the path of the configuration file.
pub const CONFIG: &str = "PMD_CONFIG";
/// The variable for the directory that replaces the default directories for sockets, configuration and secrets.
pub const HOME: &str = "PMD_HOME";

/// Looks up a variable in the process's environment, or in that of a test.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A variable that sets a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// The key gets the value of the variable. An empty value counts as unset.
    Value(&'static str),
    /// The key is `true` if the variable is set, even if it is empty.
    Presence(&'static str),
}

impl Variable {
    /// The name of the variable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Variable::Value(name) | Variable::Presence(name) => name,
        }
    }
}

/// Looks up a variable in the environment of this process.
pub fn of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The value of the first of these variables that is set.
///
/// # Errors
///
/// If the value is invalid.
pub fn first<T: FromVariable>(variables: Lookup<'_>, names: &[Variable]) -> Result<Option<T>, ConfigError> {
    let set = names.iter().find_map(|variable| match variable {
        Variable::Value(name) => {
            variables(name).filter(|value| !value.is_empty()).map(|value| (*name, value))
        }
        Variable::Presence(name) => variables(name).map(|_| (*name, "true".into())),
    });
    let Some((variable, value)) = set else { return Ok(None) };
    let parsed = T::from_variable(&value);
    parsed.map(Some).map_err(|reason| ConfigError::Environment {
        variable,
        value: value.to_string_lossy().into_owned(),
        reason,
    })
}

/// Only the port, for commands that need nothing else from the environment.
///
/// # Errors
///
/// If the variable is not a valid port.
pub fn port(variables: Lookup<'_>) -> Result<Option<Port>, ConfigError> {
    first(variables, &[Variable::Value(PORT)])
}

/// The path in a variable. An empty value counts as unset.
pub fn path(variables: Lookup<'_>, name: &str) -> Option<PathBuf> {
    variables(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
