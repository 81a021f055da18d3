//! Notifies the service manager of the daemon's state, sd_notify(3).
//!
//! Implemented here because the datagrams must equal those of stock epmd: LF separates the fields but does not end the
//! last one.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Reports that the daemon answers requests.
pub fn ready() {
    tell(&format!("READY=1\nSTATUS=Processing port mapping requests...\nMAINPID={}", std::process::id()));
}

/// Reports that the daemon is shutting down.
pub fn stopping() {
    tell("STOPPING=1");
}

/// Reports, like stock epmd, that the daemon exits with this status.
pub fn exited(status: u8) {
    tell(&format!("STATUS=Exited.\nERRNO={status}"));
}

fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&path, state) {
        tracing::warn!("cannot notify the service manager at {}: {error}", path.display());
    }
}

fn send(path: &OsStr, state: &str) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
