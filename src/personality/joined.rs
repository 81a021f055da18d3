//! The cluster under the name `epmd`, for who replaces a release's `epmd` by pmd and has no other command to start it.
//!
//! The environment or the configuration file has to say so: without, pmd does under this name exactly what stock epmd does.

use std::net::IpAddr;
use std::path::PathBuf;

use super::args::ServeOptions;
use crate::config::ConfigError;
use crate::config::environment::{self, Lookup};
use crate::config::file;
use crate::config::keys::RawConfig;
use crate::config::paths::Paths;
use crate::config::settings::Settings;
use crate::config::types::Port;

/// The settings of a daemon that takes part in a cluster; `None` if nothing says that it is to.
///
/// # Errors
///
/// If it is to take part and its configuration is wrong.
pub(super) fn settings(options: &ServeOptions, bind: &[IpAddr]) -> Result<Option<Settings>, ConfigError> {
    let paths = Paths::of_process();
    let asked = environment::path(&environment::of_process, environment::CONFIG);
    let path = asked.clone().unwrap_or_else(|| paths.config_file());
    let path = std::path::absolute(&path).unwrap_or(path);
    let from_file = file::read(&path, asked.is_some()).map(Option::unwrap_or_default);
    let Some((raw, from_file)) = merged(&environment::of_process, from_file)? else { return Ok(None) };
    let mut settings = with_options(&raw, options, bind, &Paths::to_keep()?)?;
    settings.socket = absolute(settings.socket);
    (settings.config_file, settings.from_file) = (Some(path), from_file);
    Ok(Some(settings))
}

/// The environment and the file, and the file alone, if one of them says that the daemon is to take part.
fn merged(
    variables: Lookup<'_>,
    from_file: Result<RawConfig, ConfigError>,
) -> Result<Option<(RawConfig, RawConfig)>, ConfigError> {
    // Stock epmd's own variables are read with its options. They may have values that are wrong elsewhere.
    let others = |name: &str| variables(name).filter(|_| name.starts_with("PMD_"));
    let environment = RawConfig::from_environment(&others);
    let named = ["PMD_JOIN", "PMD_CLUSTER"].iter().any(|name| environment::path(variables, name).is_some());
    let said = environment.as_ref().ok().and_then(|raw| raw.epmd_joins);
    let said = said.or_else(|| from_file.as_ref().ok().and_then(|raw| raw.epmd_joins));
    if !said.unwrap_or(named) {
        return Ok(None);
    }
    let from_file = from_file?;
    Ok(Some((environment?.or(from_file.clone()), from_file)))
}

/// The options of the command line, or else those of the configuration.
fn with_options(
    raw: &RawConfig,
    options: &ServeOptions,
    bind: &[IpAddr],
    paths: &Paths,
) -> Result<Settings, ConfigError> {
    let listen_port = options.port & 0xffff;
    let port = Port::try_from(i64::from(listen_port)).map_err(|error| ConfigError::Value {
        key: "port",
        value: options.port.to_string(),
        reason: error.to_string(),
    })?;
    let mut settings = Settings::from_raw(&RawConfig { port: Some(port), ..raw.clone() }, paths)?;
    settings.port = options.port;
    if !bind.is_empty() {
        settings.bind = bind.to_vec();
    }
    settings.relaxed_command_check |= options.relaxed_command_check;
    settings.packet_timeout = options.packet_timeout;
    settings.delay_accept = options.delay_accept;
    settings.delay_write = options.delay_write;
    Ok(settings)
}

fn absolute(path: PathBuf) -> PathBuf {
    std::path::absolute(&path).unwrap_or(path)
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;
    use crate::personality::args::{self, Action, Environment};

    fn joins(variables: &[(&str, &str)], file: &str) -> Result<bool, ConfigError> {
        let lookup = |name: &str| {
            let found = variables.iter().find(|(variable, _)| *variable == name);
            found.map(|(_, value)| OsString::from(value))
        };
        let found = merged(&lookup, file::parse(file, "pmd.toml".as_ref()))?;
        Ok(found.is_some())
    }

    #[test]
    fn it_joins_if_the_environment_or_the_file_says_so() {
        for (variables, file, expected) in [
            (&[][..], "", false),
            (&[("PMD_JOIN", "host1")], "", true),
            (&[("PMD_CLUSTER", "shop")], "", true),
            (&[("PMD_JOIN", "")], "", false),
            (&[("PMD_HOME", "/x"), ("ERL_EPMD_PORT", "70000")], "", false),
            (&[("ERL_EPMD_PORT", "70000"), ("PMD_JOIN", "host1")], "", true),
            (&[], "join = [\"host1\"]\ncluster = \"shop\"\n", false),
            (&[], "epmd_joins = true\n", true),
            (&[("PMD_JOIN", "host1")], "epmd_joins = false\n", false),
            (&[("PMD_EPMD_JOINS", "true")], "epmd_joins = false\n", true),
            (&[], "nonsense = 1\n", false),
        ] {
            assert_eq!(joins(variables, file).ok(), Some(expected), "{variables:?} {file:?}");
        }
        assert!(joins(&[("PMD_JOIN", "host1")], "nonsense = 1\n").is_err());
        assert!(joins(&[("PMD_JOIN", "host1"), ("PMD_PACKET_TIMEOUT", "x")], "").is_err());
    }

    #[test]
    fn the_options_of_epmd_come_before_the_configuration() {
        let raw =
            file::parse("bind = \"10.0.0.1\"\ncluster = \"shop\"\n", "pmd.toml".as_ref()).expect("valid");
        let options =
            |port: &str| match args::parse(&["-port", port].map(str::to_owned), &Environment::default()) {
                Ok(Action::Serve(options)) => options,
                other => panic!("{other:?}"),
            };
        let wrong = options("65536");
        let options = options("5000");
        let settings = with_options(&raw, &options, &[], &Paths::of_system()).expect("valid");
        let cluster = settings.cluster.expect("a cluster");
        assert_eq!((settings.port, cluster.name.as_str()), (5_000, "shop"));
        assert!(cluster.names_file.to_string_lossy().contains("5000"));
        assert_eq!(settings.bind, ["10.0.0.1".parse::<IpAddr>().expect("an address")]);
        let other: IpAddr = "10.0.0.2".parse().expect("an address");
        let settings = with_options(&raw, &options, &[other], &Paths::of_system()).expect("valid");
        assert_eq!(settings.bind, [other]);
        assert!(with_options(&raw, &wrong, &[], &Paths::of_system()).is_err());
    }
}
