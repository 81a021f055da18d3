//! Telling the service manager how the daemon is, sd_notify(3).
//!
//! Written out here because stock epmd's datagrams are part of what it is replaced by: fields are separated by LF
//! and not ended by one.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// Says that requests are answered.
pub fn ready() {
    tell(&format!("READY=1\nSTATUS=Processing port mapping requests...\nMAINPID={}", std::process::id()));
}

/// Says that the daemon is about to end.
pub fn stopping() {
    tell("STOPPING=1");
}

/// Says, as stock does, that the daemon has ended with this status.
pub fn exited(status: u8) {
    tell(&format!("STATUS=Exited.\nERRNO={status}"));
}

fn tell(state: &str) {
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return };
    if let Err(error) = send(&path, state) {
        tracing::warn!("cannot tell the service manager at {}: {error}", path.display());
    }
}

fn send(path: &OsStr, state: &str) -> io::Result<()> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    UnixDatagram::unbound()?.send_to_addr(state.as_bytes(), &address).map(drop)
}
