//! The daemon that a command talks to, from flags, environment and configuration file.

use std::path::{Path, PathBuf};

use super::failure::Result;
use super::output::note;
use crate::cli::args::{Global, Start};
use crate::config::keys::RawConfig;
use crate::config::paths::Paths;
use crate::config::settings::Settings;
use crate::config::value::{Addresses, Seconds};
use crate::config::{ConfigError, environment, file};
use crate::control::client::{Client, Page};

/// The daemon that a command talks to.
#[derive(Debug, Clone)]
pub struct Target {
    /// Its port.
    pub port: u16,
    /// Its control socket.
    pub socket: PathBuf,
    /// Whether nobody has named the control socket, so that any daemon on the port is meant.
    any: bool,
    /// The flags that select the same daemon in another command, each preceded by a space.
    flags: String,
}

/// The configuration file of a daemon.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigFile {
    /// Its path.
    pub path: PathBuf,
    /// Whether the user specified it, so that it must exist.
    pub asked_for: bool,
}

impl ConfigFile {
    /// The file that these flags select.
    pub fn of(global: &Global, paths: &Paths) -> ConfigFile {
        let asked = global
            .config
            .clone()
            .or_else(|| environment::path(&environment::of_process, environment::CONFIG));
        match asked {
            Some(path) => ConfigFile { path: absolute(&path), asked_for: true },
            None => ConfigFile { path: absolute(&paths.config_file()), asked_for: false },
        }
    }

    /// Reads the file. A default file need not exist.
    pub fn read(&self) -> std::result::Result<RawConfig, ConfigError> {
        Ok(file::read(&self.path, self.asked_for)?.unwrap_or_default())
    }
}

impl Target {
    /// The daemon that these flags select.
    ///
    /// An invalid configuration file only causes a warning: the daemon may have started before the file was edited.
    pub fn of(global: &Global) -> Result<Target> {
        let paths = Paths::of_process();
        let port = match global.port {
            Some(port) => Some(port),
            None => environment::port(&environment::of_process)?,
        };
        let socket = global
            .socket
            .clone()
            .or_else(|| environment::path(&environment::of_process, environment::SOCKET));
        let from_file = if port.is_some() && socket.is_some() {
            RawConfig::default()
        } else {
            ConfigFile::of(global, &paths).read().unwrap_or_else(|error| {
                note(&format!("warning: {error}\nwarning: ignoring the configuration file"));
                RawConfig::default()
            })
        };
        let port = port.unwrap_or(from_file.port()).get();
        let named = socket.or(from_file.socket);
        let any = named.is_none() && environment::path(&environment::of_process, environment::HOME).is_none();
        let socket = named.unwrap_or_else(|| paths.client_socket(port));
        Ok(Target { port, socket: absolute(&socket), any, flags: flags(global) })
    }

    /// The user's own daemon, with these settings.
    pub fn of_settings(global: &Global, settings: &Settings) -> Target {
        let (port, socket) = (settings.listen_port(), settings.socket.clone());
        Target { port, socket, any: false, flags: flags(global) }
    }

    /// A client for the daemon. If this user may not use its control socket, the client only reads.
    pub fn client(&self) -> Client {
        Client::new(&self.socket).with_page(Page { port: self.port, any: self.any })
    }

    /// A client for the daemon that only uses its control socket, for commands that read first what they then change.
    pub fn control(&self) -> Client {
        Client::new(&self.socket)
    }

    /// The text of another command for the same daemon.
    pub fn command(&self, words: &str) -> String {
        format!("pmd{} {words}", self.flags)
    }
}

/// Settings from flags, environment and file.
pub fn settings(global: &Global, start: &Start) -> Result<Settings> {
    let paths = Paths::to_keep()?;
    let config = ConfigFile::of(global, &paths);
    let from_file = config.read()?;
    let flags = RawConfig {
        port: global.port,
        bind: start.addresses().map(Addresses),
        relaxed_command_check: start.relaxed_command_check.then_some(true),
        packet_timeout_secs: start.packet_timeout.map(Seconds),
        socket: global.socket.clone(),
        join: some(&start.join),
        discovery: some(&start.discovery),
        cluster: start.cluster.clone(),
        advertise: some(&start.advertise),
        ..RawConfig::default()
    };
    let environment = RawConfig::from_environment(&environment::of_process)?;
    let mut settings = Settings::from_raw(&flags.or(environment).or(from_file.clone()), &paths)?;
    settings.socket = absolute(&settings.socket);
    settings.config_file = Some(config.path);
    settings.from_file = from_file;
    Ok(settings)
}

/// The name of the option that sets the addresses to listen on.
pub fn bind_option(start: &Start) -> &'static str {
    let set = |variable: &&str| environment::of_process(variable).is_some_and(|value| !value.is_empty());
    if start.addresses().is_some() {
        return "--bind";
    }
    [environment::BIND, environment::ADDRESS]
        .into_iter()
        .find(set)
        .unwrap_or("bind in the configuration file")
}

/// The values of a repeatable flag; none if the flag was not used.
fn some(values: &[String]) -> Option<Vec<String>> {
    Some(values.to_vec()).filter(|values| !values.is_empty())
}

/// The absolute path of a file, because a background daemon runs in another directory.
pub fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

fn flags(global: &Global) -> String {
    let port = global.port.map(|port| format!(" --port {port}"));
    let socket = global.socket.as_ref().map(|socket| format!(" --socket {}", socket.display()));
    [port, socket].into_iter().flatten().collect()
}
