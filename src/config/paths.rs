//! The paths of pmd's files.
//!
//! | the daemon of | sockets | configuration | cluster secret, keys |
//! |---|---|---|---|
//! | anyone with `PMD_HOME` set | `$PMD_HOME` | `$PMD_HOME` | `$PMD_HOME` |
//! | root | `/run/pmd`, or systemd's `RUNTIME_DIRECTORY` | `/etc/pmd`, or `CONFIGURATION_DIRECTORY` | `/var/lib/pmd`, or systemd's `STATE_DIRECTORY` |
//! | any other user | `~/.pmd`, or systemd's `RUNTIME_DIRECTORY` | `~/.pmd`, or `CONFIGURATION_DIRECTORY` | `~/.pmd`, or systemd's `STATE_DIRECTORY` |

use std::path::{Path, PathBuf};

use super::environment::{self, Lookup};

/// The directory of the sockets of root's daemon, and of a daemon that systemd runs for the whole system.
const SYSTEM_RUNTIME: &str = "/run/pmd";
/// The directory of the system's configuration.
const SYSTEM_CONFIG: &str = "/etc/pmd";
/// The directory of the system's cluster secret and keys.
const SYSTEM_STATE: &str = "/var/lib/pmd";

/// The directories of one user's pmd.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Paths {
    sockets: PathBuf,
    config: PathBuf,
    state: PathBuf,
    /// Whether a client also looks for the system's daemon.
    system_too: bool,
}

impl Paths {
    /// The directories of the user who runs this process.
    pub fn of_process() -> Paths {
        Paths::of(&environment::of_process, rustix::process::geteuid().is_root(), std::env::home_dir())
    }

    /// The directories of a daemon that systemd runs for the whole system.
    pub fn of_system() -> Paths {
        Paths::of(&|_| None, true, None)
    }

    fn of(variables: Lookup<'_>, root: bool, home: Option<PathBuf>) -> Paths {
        if let Some(home) = environment::path(variables, environment::HOME) {
            return Paths { sockets: home.clone(), config: home.clone(), state: home, system_too: false };
        }
        // systemd separates several directories by colons; the first one is used.
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
        // Without a home, this is a directory that everybody may write to; the mode of the socket still protects it.
        let home = home.unwrap_or_else(std::env::temp_dir).join(".pmd");
        Paths {
            sockets: runtime.unwrap_or_else(|| home.clone()),
            config: configuration.unwrap_or_else(|| home.clone()),
            state: state.unwrap_or(home),
            system_too: true,
        }
    }

    /// The configuration file, unless another is named.
    pub fn config_file(&self) -> PathBuf {
        self.config.join("pmd.toml")
    }

    /// The file of the cluster secret, unless another is named.
    pub fn cookie(&self) -> PathBuf {
        self.state.join("cookie")
    }

    /// The private key of this user's daemon on `port`, unless another file is named.
    pub fn key(&self, port: u16) -> PathBuf {
        self.state.join(format!("node-{port}.key"))
    }

    /// The files through which Erlang nodes find other hosts, for the daemon on `port`: the hosts file, the resolver file
    /// and the list of aliases, which outlives the daemon.
    pub fn aliases(&self, port: u16) -> [PathBuf; 3] {
        [format!("hosts-{port}"), format!("erl_inetrc-{port}"), format!("aliases-{port}")]
            .map(|name| self.state.join(name))
    }

    /// The directory of the cluster secret and of keys.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// The control socket of this user's daemon on `port`.
    pub fn socket(&self, port: u16) -> PathBuf {
        socket_in(&self.sockets, port)
    }

    /// The control socket for a client of the daemon on `port`: that of the user's own daemon, or if there is none, that of
    /// the system's.
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
