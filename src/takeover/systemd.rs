//! Port mappers that run as systemd units. They are stopped through systemd, which would restart a killed process.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The units of stock epmd. The socket comes first because it would restart the service.
pub const EPMD_UNITS: [&str; 2] = ["epmd.socket", "epmd.service"];

/// The directories of unit files, of the administrator and of packages.
const FOLDERS: [&str; 4] = [
    "/etc/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// Whether systemd manages this host (sd_booted(3)).
pub fn manages_host() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// The active ones among `units`.
pub fn active(units: &[&str]) -> Vec<String> {
    if !manages_host() {
        return Vec::new();
    }
    let is_active =
        |unit: &&&str| systemctl(&["is-active", "--quiet", unit]).is_ok_and(|output| output.status.success());
    units.iter().filter(is_active).map(ToString::to_string).collect()
}

/// Whether a process belongs to one of `units`, or is systemd itself, which holds the sockets of socket units.
///
/// Checking for active units is not enough: the process on the port may be in a container, or be a second port mapper.
pub fn runs(pid: i32, units: &[&str]) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    pid == 1 || groups.lines().flat_map(|line| line.split('/')).any(|part| units.contains(&part))
}

/// Whether a unit of this name is installed as a regular file. If pmd's units are enabled, epmd's unit names are
/// symbolic links to them.
pub fn exists(unit: &str) -> bool {
    let has_it = |folder: &str| {
        std::fs::symlink_metadata(Path::new(folder).join(unit)).is_ok_and(|file| file.is_file())
    };
    manages_host() && FOLDERS.iter().any(|folder| has_it(folder))
}

/// Whether all of `units` start at boot.
pub fn enabled(units: &[String]) -> bool {
    units
        .iter()
        .all(|unit| systemctl(&["is-enabled", "--quiet", unit]).is_ok_and(|output| output.status.success()))
}

/// Makes units start at boot, under all their names.
///
/// The units and all units whose names become their aliases must be stopped: systemd mixes up the states of two units
/// that become one.
pub fn enable(units: &[String]) -> io::Result<()> {
    checked("enable", &units.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Undoes [`enable`]. The units must be stopped.
pub fn disable(units: &[String]) -> io::Result<()> {
    checked("disable", &units.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Stops units in order, so that a socket is stopped before its service.
pub fn stop(units: &[String]) -> io::Result<()> {
    act("stop", units)
}

/// Starts units in order.
pub fn start(units: &[String]) -> io::Result<()> {
    act("start", units)
}

/// Ignores dependencies: otherwise a unit that requires epmd's, such as ejabberd's, would be stopped with it, or when a
/// conflicting unit starts.
fn act(verb: &str, units: &[String]) -> io::Result<()> {
    units.iter().try_for_each(|unit| checked(verb, &["--job-mode=ignore-dependencies", unit]))
}

fn checked(verb: &str, words: &[&str]) -> io::Result<()> {
    let words: Vec<&str> = std::iter::once(verb).chain(words.iter().copied()).collect();
    let output = systemctl(&words)?;
    if output.status.success() {
        return Ok(());
    }
    let message = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("systemctl {} failed: {}", words.join(" "), message.trim())))
}

fn systemctl(words: &[&str]) -> io::Result<Output> {
    Command::new("systemctl").args(words).stdin(Stdio::null()).output()
}
