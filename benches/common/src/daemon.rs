//! pmd daemons on the hosts of a fleet, configured with nothing but the cluster secret.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use crate::fleet::cell::mortal;

/// The port of every daemon.
pub const PORT: u16 = 4369;

/// Returns the command that runs a daemon with its files in `home`, and creates the cluster secret there if it is
/// missing.
pub fn command(program: &Path, home: &Path) -> Result<Command> {
    let cookie = home.join("cookie");
    if !cookie.exists() {
        fs::create_dir_all(home)?;
        let mut file = File::options().write(true).create_new(true).mode(0o600).open(cookie)?;
        // As pmd generates it: the key of any other secret is derived slowly.
        writeln!(file, "{}", "be7c".repeat(16))?;
    }
    let mut command = mortal(program);
    command.args(["start", "--foreground"]).env("PMD_HOME", home).env("PMD_LOG", "warn");
    for other in ["ERL_EPMD_ADDRESS", "ERL_EPMD_PORT", "PMD_CONFIG", "PMD_SOCKET"] {
        command.env_remove(other);
    }
    Ok(command)
}

/// The socket of the control API of the daemon in `home`.
pub fn socket(home: &Path) -> PathBuf {
    home.join(format!("pmd-{PORT}.sock"))
}

/// Whether the daemon in `home` accepts connections.
pub fn answers(home: &Path) -> bool {
    UnixStream::connect(socket(home)).is_ok()
}
