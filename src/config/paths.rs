//! The paths of pmd's files.
//!
//! | user | sockets | configuration | cluster secret, keys |
//! |---|---|---|---|
//! | any user with `PMD_HOME` set | `$PMD_HOME` | `$PMD_HOME` | `$PMD_HOME` |
//! | root | `/run/pmd`, or systemd's `RUNTIME_DIRECTORY` | `/etc/pmd`, or `CONFIGURATION_DIRECTORY` | `/var/lib/pmd`, or systemd's `STATE_DIRECTORY` |
//! | any other user | `~/.pmd`, or systemd's `RUNTIME_DIRECTORY` | `~/.pmd`, or `CONFIGURATION_DIRECTORY` | `~/.pmd`, or systemd's `STATE_DIRECTORY` |

use std::path::{Path, PathBuf};

use super::environment::{self, Lookup};

/// The directory for the sockets of root's daemon, and of one that runs as a systemd system service.
const SYSTEM_RUNTIME: &str = "/run/pmd";
/// The directory for the configuration of the system daemon.
const SYSTEM_CONFIG: &str = "/etc/pmd";
/// The directory for the cluster secret and keys of the system daemon.
const SYSTEM_STATE: &str = "/var/lib/pmd";

/// The directories that pmd uses when one user runs it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    sockets: PathBuf,
    config: PathBuf,
    state: PathBuf,
    /// Whether a client falls back to the system daemon.
    system_too: bool,
}

impl Paths {
    /// The directories for the user of this process.
    pub fn of_process() -> Paths {
        Paths::of(&environment::of_process, rustix::process::geteuid().is_root(), std::env::home_dir())
    }

    /// The directories of a daemon that runs as a systemd system service.
    pub fn of_system() -> Paths {
        Paths::of(&|_| None, true, None)
    }

    fn of(variables: Lookup<'_>, root: bool, home: Option<PathBuf>) -> Paths {
        if let Some(home) = environment::path(variables, environment::HOME) {
            return Paths { sockets: home.clone(), config: home.clone(), state: home, system_too: false };
        }
        // systemd separates directories by colons; the first one is used.
        let given = |variable| {
            environment::path(variables, variable)
                .and_then(|list| list.to_str().and_then(|list| list.split(':').next().map(PathBuf::from)))
        };
        let (runtime, state) = (given("RUNTIME_DIRECTORY"), given("STATE_DIRECTORY"));
        let configuration = given("CONFIGURATION_DIRECTORY");
        if root {
            return Paths {
                sockets: runtime.unwrap_or_else(|| SYSTEM_RUNTIME.into()),
                config: configuration.unwrap_or_else(|| SYSTEM_CONFIG.into()),
                state: state.unwrap_or_else(|| SYSTEM_STATE.into()),
                system_too: false,
            };
        }
        // Without a home, the parent is world-writable; the mode of the socket still protects the socket.
        let home = home.unwrap_or_else(std::env::temp_dir).join(".pmd");
        Paths {
            sockets: runtime.unwrap_or_else(|| home.clone()),
            config: configuration.unwrap_or_else(|| home.clone()),
            state: state.unwrap_or(home),
            system_too: true,
        }
    }

    /// The default configuration file.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("pmd.toml")
    }

    /// The default file of the cluster secret.
    pub fn cookie(&self) -> PathBuf {
        self.state.join("cookie")
    }

    /// The default private key of this user's daemon on `port`.
    pub fn key(&self, port: u16) -> PathBuf {
        self.state.join(format!("node-{port}.key"))
    }

    /// The alias files of the daemon on `port`: the hosts file and the resolver file, which Erlang nodes read, and the
    /// list of aliases, which keeps them stable across restarts.
    pub fn aliases(&self, port: u16) -> [PathBuf; 3] {
        [format!("hosts-{port}"), format!("erl_inetrc-{port}"), format!("aliases-{port}")]
            .map(|name| self.state.join(name))
    }

    /// The directory of the cluster secret and the keys.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The control socket of this user's daemon on `port`.
    pub fn socket(&self, port: u16) -> PathBuf {
        socket_in(&self.sockets, port)
    }

    /// The control socket that a client of the daemon on `port` connects to: the one of the user's own daemon if it
    /// exists, otherwise the system daemon's.
    pub fn client_socket(&self, port: u16) -> PathBuf {
        let own = self.socket(port);
        if self.system_too && !own.exists() {
            let system = socket_in(Path::new(SYSTEM_RUNTIME), port);
            if system.exists() {
                return system;
            }
        }
        own
    }
}

fn socket_in(folder: &Path, port: u16) -> PathBuf {
    folder.join(format!("pmd-{port}.sock"))
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn paths(set: &[(&str, &str)], root: bool) -> (String, String) {
        let lookup = |name: &str| {
            set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        let paths = Paths::of(&lookup, root, Some("/home/joe".into()));
        (paths.socket(4369).display().to_string(), paths.config_file().display().to_string())
    }

    fn are(socket: &str, config: &str) -> (String, String) {
        (socket.to_owned(), config.to_owned())
    }

    #[test]
    fn every_user_has_directories() {
        assert_eq!(paths(&[], true), are("/run/pmd/pmd-4369.sock", "/etc/pmd/pmd.toml"));
        assert_eq!(paths(&[], false), are("/home/joe/.pmd/pmd-4369.sock", "/home/joe/.pmd/pmd.toml"));
    }

    #[test]
    fn pmd_home_holds_everything() {
        let set = [("PMD_HOME", "/srv/pmd"), ("RUNTIME_DIRECTORY", "/run/x")];
        for root in [true, false] {
            assert_eq!(paths(&set, root), are("/srv/pmd/pmd-4369.sock", "/srv/pmd/pmd.toml"));
        }
    }

    #[test]
    fn systemds_runtime_directory_holds_the_socket() {
        let set = [("RUNTIME_DIRECTORY", "/run/pmd:/run/other")];
        assert_eq!(paths(&set, true), are("/run/pmd/pmd-4369.sock", "/etc/pmd/pmd.toml"));
        assert_eq!(paths(&set, false), are("/run/pmd/pmd-4369.sock", "/home/joe/.pmd/pmd.toml"));
        let set = [("RUNTIME_DIRECTORY", "/run/pmd"), ("CONFIGURATION_DIRECTORY", "/etc/pmd")];
        assert_eq!(paths(&set, false), are("/run/pmd/pmd-4369.sock", "/etc/pmd/pmd.toml"));
    }
}
