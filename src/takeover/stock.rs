//! Stock epmd as a program: finding the running and installed ones, and starting one.

use std::ffi::{OsStr, OsString};
use std::io;
use std::net::IpAddr;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::owner::{DIVERTED, Owner};
use crate::config::environment;

/// The directories where packages and source builds install Erlang/OTP.
const ROOTS: [&str; 4] = ["/usr/lib/erlang", "/usr/local/lib/erlang", "/usr/lib64/erlang", "/opt/erlang"];
/// Options with a value that are passed on to a replacement.
const WITH_VALUE: [&str; 3] = ["-port", "-address", "-packet_timeout"];
/// The maximum number of nodes in a stock epmd, regardless of the descriptor limit (`select` stops at 1,024).
pub const MAX_NODES: usize = 1019;

/// The command line and environment for starting a stock epmd in the background.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stock {
    /// The program.
    pub program: PathBuf,
    options: Vec<OsString>,
    environment: Vec<(&'static str, OsString)>,
    /// The user and group to run as, if different from those of this process.
    identity: Option<(u32, u32)>,
}

impl Stock {
    /// A stock epmd with the configuration of the running one; none if its program is unknown.
    pub fn like(owner: &Owner) -> Option<Stock> {
        let program = owner.program.clone()?;
        let folder = PathBuf::from(format!("/proc/{}", owner.pid));
        let lines = |file: &str| zero_separated(&std::fs::read(folder.join(file)).unwrap_or_default());
        let variables = [environment::PORT, environment::ADDRESS, environment::RELAXED];
        let environment = lines("environ").into_iter().filter_map(|entry| {
            let text = entry.to_str()?;
            let (name, value) = text.split_once('=')?;
            let name = variables.into_iter().find(|known| *known == name)?;
            Some((name, OsString::from(value)))
        });
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Some(Stock {
            program,
            options: kept_options(lines("cmdline").into_iter().skip(1)),
            environment: environment.collect(),
            identity: Some((owner.uid, owner.gid)).filter(|theirs| *theirs != own),
        })
    }

    /// A stock epmd that listens on the addresses of the pmd it replaces.
    pub fn instead(program: PathBuf, port: u16, bind: &[IpAddr], relaxed: bool) -> Stock {
        let mut environment = vec![(environment::PORT, OsString::from(port.to_string()))];
        if !bind.is_empty() {
            let list: Vec<String> = bind.iter().map(ToString::to_string).collect();
            environment.push((environment::ADDRESS, list.join(",").into()));
        }
        if relaxed {
            environment.push((environment::RELAXED, OsString::from("1")));
        }
        Stock { program, options: Vec::new(), environment, identity: None }
    }

    /// Whether it accepts KILL and STOP while nodes are registered.
    pub fn is_relaxed(&self) -> bool {
        self.options.iter().any(|option| option == "-relaxed_command_check")
            || self.environment.iter().any(|(name, _)| *name == environment::RELAXED)
    }

    /// Starts it in the background. epmd reports success even if it cannot listen, so the caller must check that it
    /// answers.
    pub fn start(&self) -> io::Result<()> {
        let mut command = Command::new(&self.program);
        command.args(&self.options).arg("-daemon").stdin(Stdio::null());
        // These variables of this process configure pmd.
        for name in [environment::PORT, environment::ADDRESS, environment::RELAXED] {
            command.env_remove(name);
        }
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        if let Some((uid, gid)) = self.identity {
            command.uid(uid).gid(gid);
        }
        let status = command.status()?;
        if status.success() { Ok(()) } else { Err(io::Error::other(format!("it failed ({status})"))) }
    }
}

impl std::fmt::Display for Stock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for (name, value) in &self.environment {
            write!(f, "{name}={} ", value.display())?;
        }
        write!(f, "{}", self.program.display())?;
        for option in &self.options {
            write!(f, " {}", option.display())?;
        }
        f.write_str(" -daemon")
    }
}

/// The installed stock epmds: those of Erlang installations, newest first, then those in `PATH`.
pub fn installed() -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = ROOTS.iter().flat_map(|root| runtimes(Path::new(root))).collect();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.extend(std::env::split_paths(&path).map(|folder| folder.join("epmd")));
    let mut programs: Vec<PathBuf> = Vec::new();
    for program in found.into_iter().filter_map(|file| file.canonicalize().ok()) {
        if is_program(&program) && !is_this_program(&program) && !programs.contains(&program) {
            programs.push(program);
        }
    }
    programs
}

/// `erts-*/bin/epmd` in an installation, newest version first.
fn runtimes(root: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(root) else { return Vec::new() };
    let mut versions: Vec<(Vec<u32>, PathBuf)> = entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let version = version(entry.file_name().to_str()?)?;
            Some((version, entry.path().join("bin/epmd")))
        })
        .collect();
    versions.sort();
    let both = |program: PathBuf| [program.with_file_name(DIVERTED), program];
    versions.into_iter().rev().flat_map(|(_, program)| both(program)).collect()
}

fn version(folder: &str) -> Option<Vec<u32>> {
    folder.strip_prefix("erts-")?.split('.').map(|part| part.parse().ok()).collect()
}

fn is_program(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|metadata| metadata.is_file() && metadata.mode() & 0o111 != 0)
}

fn is_this_program(file: &Path) -> bool {
    match (std::fs::metadata(file), std::fs::metadata("/proc/self/exe")) {
        (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
        _ => false,
    }
}

/// The options of a running epmd that a replacement in the background needs.
fn kept_options(mut options: impl Iterator<Item = OsString>) -> Vec<OsString> {
    let mut kept = Vec::new();
    while let Some(option) = options.next() {
        if WITH_VALUE.iter().any(|known| option == OsStr::new(known)) {
            kept.push(option);
            kept.extend(options.next());
        } else if option == "-relaxed_command_check" {
            kept.push(option);
        }
    }
    kept
}

fn zero_separated(bytes: &[u8]) -> Vec<OsString> {
    let pieces = bytes.split(|byte| *byte == 0).filter(|piece| !piece.is_empty());
    pieces.map(|piece| OsString::from_vec(piece.to_vec())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_successor_gets_the_options_that_it_needs() {
        let words = zero_separated(b"-d\0-port\x005000\0-systemd\0-address\0::1\0-relaxed_command_check\0");
        assert_eq!(
            kept_options(words.into_iter()),
            ["-port", "5000", "-address", "::1", "-relaxed_command_check"]
        );
    }

    #[test]
    fn the_newest_runtime_comes_first() {
        let root = tempfile::TempDir::new().expect("a folder");
        for folder in ["erts-9.3", "erts-13.1.5", "erts-13.1", "lib", "erts-x"] {
            std::fs::create_dir(root.path().join(folder)).expect("a folder");
        }
        let found = runtimes(root.path());
        let expected =
            ["erts-13.1.5", "erts-13.1", "erts-9.3"].map(|folder| root.path().join(folder).join("bin"));
        let both = expected.iter().flat_map(|bin| [bin.join("epmd.stock"), bin.join("epmd")]);
        assert_eq!(found, both.collect::<Vec<_>>());
    }

    #[test]
    fn the_command_can_be_shown() {
        let bind = ["10.0.0.1".parse().expect("an address")];
        let stock = Stock::instead("/usr/bin/epmd".into(), 4370, &bind, true);
        assert_eq!(
            stock.to_string(),
            "ERL_EPMD_PORT=4370 ERL_EPMD_ADDRESS=10.0.0.1 ERL_EPMD_RELAXED_COMMAND_CHECK=1 \
             /usr/bin/epmd -daemon"
        );
        assert!(stock.is_relaxed());
    }
}
