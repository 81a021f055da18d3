//! The variables of the environment that count.
//!
//! `PMD_*` are pmd's own. `ERL_EPMD_PORT`, `ERL_EPMD_ADDRESS` and `ERL_EPMD_RELAXED_COMMAND_CHECK` are those of
//! stock epmd, so that an environment made for one serves the other; where both speak, pmd's own win.

use std::ffi::OsString;
use std::path::PathBuf;

use super::ConfigError;
use super::raw::{RawConfig, parse_addresses, parse_duration};
use super::types::Port;

/// Stock epmd's variable for the port.
pub const PORT: &str = "ERL_EPMD_PORT";
/// Stock epmd's variable for the addresses.
pub const ADDRESS: &str = "ERL_EPMD_ADDRESS";
/// pmd's own variable for them.
pub const BIND: &str = "PMD_BIND";
/// Stock epmd's variable that allows KILL and STOP by being set, to whatever.
pub const RELAXED: &str = "ERL_EPMD_RELAXED_COMMAND_CHECK";

/// Where variables come from: the process's environment, or a test's.
pub type Lookup<'a> = &'a dyn Fn(&str) -> Option<OsString>;

/// The environment of this process. A variable that is set to nothing counts as not set, as it is common.
pub fn of_process(name: &str) -> Option<OsString> {
    std::env::var_os(name)
}

/// What the environment says.
pub fn read(variables: Lookup<'_>) -> Result<RawConfig, ConfigError> {
    let bind = match text(variables, BIND, parse_addresses)? {
        Some(bind) => Some(bind),
        None => text(variables, ADDRESS, parse_addresses)?,
    };
    let relaxed = match text(variables, "PMD_RELAXED_COMMAND_CHECK", parse_switch)? {
        Some(relaxed) => Some(relaxed),
        None => variables(RELAXED).map(|_| true),
    };
    Ok(RawConfig {
        port: port(variables)?,
        bind,
        relaxed_command_check: relaxed,
        packet_timeout: text(variables, "PMD_PACKET_TIMEOUT", positive_duration)?,
        socket: path(variables, "PMD_SOCKET"),
        control_group: text(variables, "PMD_CONTROL_GROUP", |group| Ok(group.to_owned()))?,
        host_name: text(variables, "PMD_HOST_NAME", |host| Ok(host.to_owned()))?,
        cluster: text(variables, "PMD_CLUSTER", |cluster| Ok(cluster.to_owned()))?,
        cookie_file: path(variables, "PMD_COOKIE_FILE"),
        advertise: text(variables, "PMD_ADVERTISE", words)?,
        join: text(variables, "PMD_JOIN", words)?,
        discovery: text(variables, "PMD_DISCOVERY", words)?,
        ..RawConfig::default()
    })
}

/// The port alone, for commands to which the rest means nothing.
pub fn port(variables: Lookup<'_>) -> Result<Option<Port>, ConfigError> {
    text(variables, PORT, |text| text.trim().parse::<Port>().map_err(|error| error.to_string()))
}

/// A path; set to nothing counts as not set.
pub fn path(variables: Lookup<'_>, name: &str) -> Option<PathBuf> {
    variables(name).filter(|value| !value.is_empty()).map(PathBuf::from)
}

/// A time that is not zero.
pub fn positive_duration(text: &str) -> Result<std::time::Duration, String> {
    match parse_duration(text)? {
        std::time::Duration::ZERO => Err("the time must be longer than 0".into()),
        time => Ok(time),
    }
}

fn text<T>(
    variables: Lookup<'_>,
    variable: &'static str,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Option<T>, ConfigError> {
    let Some(value) = variables(variable).filter(|value| !value.is_empty()) else { return Ok(None) };
    let parsed = value.to_str().ok_or_else(|| "it is not valid UTF-8".to_owned()).and_then(parse);
    parsed.map(Some).map_err(|reason| ConfigError::Environment {
        variable,
        value: value.to_string_lossy().into_owned(),
        reason,
    })
}

/// Separated by commas.
fn words(text: &str) -> Result<Vec<String>, String> {
    Ok(text.split(',').map(str::trim).filter(|word| !word.is_empty()).map(str::to_owned).collect())
}

fn parse_switch(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "1" | "true" | "yes" | "on" => Ok(true),
        "0" | "false" | "no" | "off" => Ok(false),
        _ => Err("it is either true or false".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_from(set: &[(&str, &str)]) -> Result<RawConfig, String> {
        let lookup = |name: &str| {
            set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        read(&lookup).map_err(|error| error.to_string())
    }

    #[test]
    fn pmds_own_variables_win_over_those_of_stock() {
        let raw = read_from(&[(ADDRESS, "10.0.0.1, ::1"), (RELAXED, ""), (PORT, "5000")]).expect("right");
        assert_eq!(raw.bind.map(|list| list.len()), Some(2));
        assert_eq!(raw.relaxed_command_check, Some(true));
        assert_eq!(raw.port.map(Port::get), Some(5000));
        let raw = read_from(&[
            (ADDRESS, "10.0.0.1"),
            ("PMD_BIND", "10.0.0.2"),
            (RELAXED, "1"),
            ("PMD_RELAXED_COMMAND_CHECK", "no"),
        ])
        .expect("right");
        assert_eq!(raw.bind, Some(vec!["10.0.0.2".parse().expect("an address")]));
        assert_eq!(raw.relaxed_command_check, Some(false));
    }

    #[test]
    fn nothing_set_says_nothing() {
        assert_eq!(read_from(&[]), Ok(RawConfig::default()));
        assert_eq!(read_from(&[(PORT, ""), ("PMD_SOCKET", "")]), Ok(RawConfig::default()));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_variable() {
        assert_eq!(
            read_from(&[(PORT, "epmd")]),
            Err("the environment variable ERL_EPMD_PORT=epmd cannot be used: \
                 a port is a number from 1 to 65535"
                .to_owned())
        );
        assert!(read_from(&[("PMD_PACKET_TIMEOUT", "0s")]).is_err());
        assert!(read_from(&[("PMD_RELAXED_COMMAND_CHECK", "maybe")]).is_err());
    }
}
