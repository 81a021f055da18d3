//! systemd's part in who holds the port: a unit that is only killed comes back.

use std::io;
use std::path::Path;
use std::process::{Command, Output, Stdio};

/// Whether systemd manages this host (sd_booted(3)).
pub fn manages_host() -> bool {
    Path::new("/run/systemd/system").is_dir()
}

/// Those of `units` that are active.
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
/// That units are active says nothing about a given port: the process that holds it may be in a container, or a
/// second port mapper on another port.
pub fn runs(pid: i32, units: &[&str]) -> bool {
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    pid == 1 || groups.lines().flat_map(|line| line.split('/')).any(|part| units.contains(&part))
}

/// Whether there is such a unit.
pub fn exists(unit: &str) -> bool {
    manages_host() && systemctl(&["cat", unit]).is_ok_and(|output| output.status.success())
}

/// Stops units, sockets before what they start.
pub fn stop(units: &[String]) -> io::Result<()> {
    act("stop", units)
}

/// Starts units.
pub fn start(units: &[String]) -> io::Result<()> {
    act("start", units)
}

fn act(verb: &str, units: &[String]) -> io::Result<()> {
    let words: Vec<&str> = std::iter::once(verb).chain(units.iter().map(String::as_str)).collect();
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
