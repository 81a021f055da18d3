//! The environment variables that set configuration keys.
//!
//! `PMD_*` are pmd's own. `ERL_EPMD_PORT`, `ERL_EPMD_ADDRESS` and `ERL_EPMD_RELAXED_COMMAND_CHECK` are stock epmd's, so
//! that an environment made for one serves the other; pmd's own take precedence.

use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;
use super::types::Port;
use super::value::FromVariable;

/// Stock epmd's variable for the port.
pub const PORT: &str = "ERL_EPMD_PORT";
/// Stock epmd's variable for the addresses.
pub const ADDRESS: &str = "ERL_EPMD_ADDRESS";
/// pmd's own variable for them.
pub const BIND: &str = "PMD_BIND";
/// Stock epmd's variable that allows KILL and STOP when it is set, to whatever value.
pub const RELAXED: &str = "ERL_EPMD_RELAXED_COMMAND_CHECK";
/// The variable for the control socket.
pub const SOCKET: &str = "PMD_SOCKET";
/// The variable that names the configuration file.
pub const CONFIG: &str = "PMD_CONFIG";
/// The variable for the one directory of a user's pmd.
pub const HOME: &str = "PMD_HOME";

/// Where variables come from: the process's environment, or a test's.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// A variable that sets a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variable {
    /// Its value is the key's. If it is empty, it counts as not set.
    Value(&'static str),
    /// The key is `true` if it is set, even to nothing.
    Presence(&'static str),
}

impl Variable {
    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Variable::Value(name) | Variable::Presence(name) => name,
        }
    }
}

/// Reads a variable of this process.
pub fn of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// The value of the first of these variables that is set.
///
/// # Errors
///
/// If it is no such value.
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

/// The port alone, for commands that need nothing else.
///
/// # Errors
///
/// If the variable holds no port.
pub fn port(variables: Lookup<'_>) -> Result<Option<Port>, ConfigError> {
    first(variables, &[Variable::Value(PORT)])
}

/// A path; a variable that is empty counts as not set.
pub fn path(variables: Lookup<'_>, name: &str) -> Option<PathBuf> {
    variables(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}
