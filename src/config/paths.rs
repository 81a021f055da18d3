//! The paths of pmd's files.
//!
//! | user | sockets | configuration | cluster secret, keys |
//! |---|---|---|---|
//! | any user with `PMD_HOME` set | `$PMD_HOME` | `$PMD_HOME` | `$PMD_HOME` |
//! | root | `/run/pmd`, or systemd's `RUNTIME_DIRECTORY` | `/etc/pmd`, or `CONFIGURATION_DIRECTORY` | `/var/lib/pmd`, or systemd's `STATE_DIRECTORY` |
//! | any other user | `~/.pmd`, or systemd's `RUNTIME_DIRECTORY` | `~/.pmd`, or `CONFIGURATION_DIRECTORY` | `~/.pmd`, or systemd's `STATE_DIRECTORY` |
//!
//! For a user without a home directory, `/run/user/UID/pmd` takes the place of `~/.pmd`. It belongs to that user alone,
//! unlike anything below `/tmp`, but vanishes with the user's last session, so commands that keep secrets refuse it:
//! [`Paths::to_keep`].

use std::path::{Path, PathBuf};

use super::ConfigError;
use super::environment::{self, Lookup};

/// The directory for the sockets of root's daemon, and of one that runs as a systemd system service.
const SYSTEM_RUNTIME: &str = "/run/pmd";
/// The parent of the directories that logind creates, one for each user and for that user alone.
const SESSION_RUNTIME: &str = "/run/user";
/// The user id of root.
const ROOT: u32 = 0;
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
    /// The user without a home directory, if the secrets would therefore be lost with the user's session.
    homeless: Option<u32>,
}

impl Paths {
    /// The directories for the user of this process.
    pub fn of_process() -> Paths {
        Paths::of(&environment::of_process, rustix::process::geteuid().as_raw(), std::env::home_dir())
    }

    /// All files in one folder, as with `PMD_HOME`.
    #[cfg(test)]
    pub fn in_folder(folder: &Path) -> Paths {
        Paths::of(&|name| (name == environment::HOME).then(|| folder.into()), ROOT, None)
    }

    /// The directories for the user of this process, for commands that keep secrets in them.
    ///
    /// # Errors
    ///
    /// If the user has no home directory, and no variable names a directory.
    pub fn to_keep() -> Result<Paths, ConfigError> {
        Paths::of_process().lasting()
    }

    fn lasting(self) -> Result<Paths, ConfigError> {
        match self.homeless {
            Some(user) => Err(ConfigError::NoHome { user }),
            None => Ok(self),
        }
    }

    /// The directories of a daemon that runs as a systemd system service.
    pub fn of_system() -> Paths {
        Paths::of(&|_| None, ROOT, None)
    }

    fn of(variables: Lookup<'_>, user: u32, home: Option<PathBuf>) -> Paths {
        if let Some(home) = environment::path(variables, environment::HOME) {
            return Paths {
                sockets: home.clone(),
                config: home.clone(),
                state: home,
                system_too: false,
                homeless: None,
            };
        }
        // systemd separates directories by colons; the first one is used.
        let given = |variable| {
            environment::path(variables, variable)
                .and_then(|list| list.to_str().and_then(|list| list.split(':').next().map(PathBuf::from)))
        };
        let (runtime, state) = (given("RUNTIME_DIRECTORY"), given("STATE_DIRECTORY"));
        let configuration = given("CONFIGURATION_DIRECTORY");
        if user == ROOT {
            return Paths {
                sockets: runtime.unwrap_or_else(|| SYSTEM_RUNTIME.into()),
                config: configuration.unwrap_or_else(|| SYSTEM_CONFIG.into()),
                state: state.unwrap_or_else(|| SYSTEM_STATE.into()),
                system_too: false,
                homeless: None,
            };
        }
        let homeless = Some(user).filter(|_| home.is_none() && state.is_none());
        let home = match home {
            Some(home) => home.join(".pmd"),
            None => PathBuf::from(format!("{SESSION_RUNTIME}/{user}/pmd")),
        };
        Paths {
            sockets: runtime.unwrap_or_else(|| home.clone()),
            config: configuration.unwrap_or_else(|| home.clone()),
            state: state.unwrap_or(home),
            system_too: true,
            homeless,
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

    /// A resolver file of this user's own, merged with that of the daemon on `port`; `key` stands for its path.
    pub fn own_inetrc(&self, port: u16, key: &str) -> PathBuf {
        self.state.join(format!("erl_inetrc-{port}-{key}"))
    }

    /// The epmd module for Erlang nodes, which the daemon on `port` writes. Its folder is added to their code path.
    pub fn epmd_module(&self, port: u16) -> PathBuf {
        self.state.join(format!("erlang-{port}")).join("pmd_epmd.beam")
    }

    /// The file in which the daemon on `port` remembers who was expelled.
    pub fn decisions(&self, port: u16) -> PathBuf {
        self.state.join(format!("expelled-{port}"))
    }

    /// The file in which the daemon on `port` remembers the latest rotation of the cluster secret.
    pub fn rotation(&self, port: u16) -> PathBuf {
        self.state.join(format!("rotation-{port}"))
    }

    /// The file in which the daemon on `port` remembers the lists of revoked certificates.
    pub fn revocations(&self, port: u16) -> PathBuf {
        self.state.join(format!("revoked-{port}.pem"))
    }

    /// The file in which the daemon on `port` remembers whose host name is whose.
    pub fn names(&self, port: u16) -> PathBuf {
        self.state.join(format!("names-{port}"))
    }

    /// The file in which the daemon on `port` keeps what it has promised as a voter.
    pub fn claims(&self, port: u16) -> PathBuf {
        self.state.join(format!("claims-{port}"))
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

    fn of(set: &[(&str, &str)], user: u32, home: Option<&str>) -> Paths {
        let lookup = |name: &str| {
            set.iter().find(|(variable, _)| *variable == name).map(|(_, value)| OsString::from(value))
        };
        Paths::of(&lookup, user, home.map(PathBuf::from))
    }

    fn paths(set: &[(&str, &str)], root: bool) -> (String, String) {
        let paths = of(set, if root { ROOT } else { 1000 }, Some("/home/joe"));
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
    fn a_user_without_a_home_shares_nothing_and_keeps_nothing() {
        let homeless = of(&[], 1000, None);
        assert_eq!(homeless.socket(4369), Path::new("/run/user/1000/pmd/pmd-4369.sock"));
        assert!(homeless.cookie().starts_with("/run/user/1000"));
        let error = homeless.lasting().expect_err("the secret would be lost");
        assert_eq!(error.to_string(), "the user with uid 1000 has no home directory for pmd's files");
        assert!(error.hint().contains("PMD_HOME"));
        for variable in ["PMD_HOME", "STATE_DIRECTORY"] {
            assert!(of(&[(variable, "/srv/pmd")], 1000, None).lasting().is_ok(), "{variable}");
        }
        assert!(of(&[], 1000, Some("/home/joe")).lasting().is_ok());
        assert!(of(&[], ROOT, None).lasting().is_ok());
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
