//! systemd's units of port mappers. systemd would start a unit again whose process was only killed.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// The directories of unit files: the administrator's and those of packages.
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

/// The `units` that are active.
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
/// Active units are not enough: the process on the port may be in a container, or a second port mapper.
pub fn runs(pid: i32, units: &[&str]) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    pid == 1 || groups.lines().flat_map(|line| line.split('/')).any(|part| units.contains(&part))
}

/// Whether a unit of this name is installed as a file of its own: the names of epmd's units are aliases of an enabled pmd.
pub fn exists(unit: &str) -> bool {
    let has_it = |folder: &str| {
        std::fs::symlink_metadata(Path::new(folder).join(unit)).is_ok_and(|file| file.is_file())
    };
    manages_host() && FOLDERS.iter().any(|folder| has_it(folder))
}

/// Whether all of `units` are started at boot.
pub fn enabled(units: &[String]) -> bool {
    units
        .iter()
        .all(|unit| systemctl(&["is-enabled", "--quiet", unit]).is_ok_and(|output| output.status.success()))
}

/// Makes units start at boot, under all their names.
///
/// The units must be stopped, and so must all units whose names are their aliases: systemd confuses the states of two units
/// that become one.
pub fn enable(units: &[String]) -> io::Result<()> {
    checked("enable", &units.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Undoes [`enable`]. The units must be stopped.
pub fn disable(units: &[String]) -> io::Result<()> {
    checked("disable", &units.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Stops units one after the other, so that a socket is stopped before its service.
pub fn stop(units: &[String]) -> io::Result<()> {
    act("stop", units)
}

/// Starts units one after the other.
pub fn start(units: &[String]) -> io::Result<()> {
    act("start", units)
}

/// Without their dependencies: a unit that requires epmd's, as ejabberd's does, would otherwise be stopped with it, and also
/// when a unit starts that conflicts with it.
fn act(verb: &str, units: &[String]) -> io::Result<()> {
    units.iter().try_for_each(|unit| checked(verb, &["--job-mode=ignore-dependencies", unit]))
}

fn checked(verb: &str, words: &[&str]) -> io::Result<()> {
    let words: Vec<&str> = std::iter::once(verb).chain(words.iter().copied()).collect();
    let output = systemctl(&words)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    Err(io::Error::other(format!("systemctl {} failed: {}", words.join(" "), said.trim())))
}

fn systemctl(words: &[&str]) -> io::Result<Output> {
    Command::new("systemctl").args(words).stdin(Stdio::null()).output()
}
