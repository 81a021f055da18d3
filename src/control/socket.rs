//! The socket file. It is never accessible to other users, not even during its creation, and only the process that
//! created it removes it.

use std::fs::{File, Metadata, Permissions};
use std::io::{self, ErrorKind};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

use nix::unistd::{Gid, Group};
use rustix::fs::{AtFlags, FileType, FlockOperation, Mode, OFlags};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};

use crate::base::files::make_private_folder;
use crate::config::settings::Settings;

/// Length of the accept queue.
const BACKLOG: i32 = 128;

/// Why the control socket could not be created.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// A daemon already answers there.
    #[error("a daemon already answers on {}", .socket.display())]
    Answers {
        /// The socket.
        socket: PathBuf,
    },
    /// The path is taken by a file that is not a socket, so pmd does not replace it.
    #[error("{} exists and is not a socket", .socket.display())]
    NotASocket {
        /// The path.
        socket: PathBuf,
    },
    /// The group in the configuration does not exist.
    #[error("control_group: no such group: {0:?}")]
    NoSuchGroup(String),
    /// The system reported an error.
    #[error("cannot create the control socket {}: {source}", .socket.display())]
    System {
        /// The socket.
        socket: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
}

/// The listening control socket; dropping it removes the file.
#[derive(Debug)]
pub struct ControlSocket {
    /// The listener, in non-blocking mode.
    pub(super) listener: UnixListener,
    pub(super) file: SocketFile,
}

/// A socket file that this process created.
#[derive(Debug)]
pub(super) struct SocketFile {
    path: PathBuf,
    /// The file, held open so that its inode number is not reused: its path may lead to a different file by now.
    itself: File,
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = self.itself.metadata();
        let there = std::fs::symlink_metadata(&self.path);
        let same = |(a, b): (&Metadata, &Metadata)| (a.dev(), a.ino()) == (b.dev(), b.ino());
        if ours.as_ref().ok().zip(there.as_ref().ok()).is_some_and(same) {
            // A failure is harmless: the next daemon replaces a socket that no daemon answers on.
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

/// Creates the control socket of a daemon with these settings; replaces one that no daemon answers on.
pub fn bind(settings: &Settings) -> Result<ControlSocket, ControlError> {
    let path = settings.socket.as_path();
    let system = |source: io::Error| ControlError::System { socket: path.into(), source };
    let group = group(settings)?;
    let folder = prepare_folder(settings)?;
    // Two daemons that start at the same time must not mistake each other's new socket for a stale one.
    let lock = File::open(&folder).map_err(system)?;
    rustix::fs::flock(&lock, FlockOperation::LockExclusive).map_err(|error| system(error.into()))?;
    remove_stale(path)?;
    make(path, group).map_err(system)
}

/// Creates the folder of the control socket, if it does not exist.
pub fn prepare_folder(settings: &Settings) -> Result<PathBuf, ControlError> {
    let path = settings.socket.as_path();
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let group = group(settings)?;
    match make_folder(folder, group) {
        Ok(()) => Ok(folder.to_owned()),
        Err(source) => Err(ControlError::System { socket: path.into(), source }),
    }
}

/// The group that may use the socket.
fn group(settings: &Settings) -> Result<Option<Gid>, ControlError> {
    let Some(name) = &settings.control_group else { return Ok(None) };
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(Some(group.gid)),
        _ => Err(ControlError::NoSuchGroup(name.clone())),
    }
}

/// Creates the folder and its parents, for the owner alone; an existing folder is left as it is.
fn make_folder(folder: &Path, group: Option<Gid>) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    make_private_folder(folder)?;
    if let Some(group) = group {
        // The group must be able to reach the socket, but not to list the folder.
        std::os::unix::fs::chown(folder, None, Some(group.as_raw()))?;
        std::fs::set_permissions(folder, Permissions::from_mode(0o710))?;
    }
    Ok(())
}

fn remove_stale(path: &Path) -> Result<(), ControlError> {
    let system = |source| ControlError::System { socket: path.into(), source };
    match std::fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            return Err(ControlError::NotASocket { socket: path.into() });
        }
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(system(error)),
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path).map_err(system)
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        // Any other result, such as a full queue, means that a process is listening.
        Ok(_) | Err(_) => Err(ControlError::Answers { socket: path.into() }),
    }
}

fn make(path: &Path, group: Option<Gid>) -> io::Result<ControlSocket> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let socket: OwnedFd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    // Linux gives the file the mode of the unbound socket, less the umask: the owner's, whatever the umask is.
    rustix::fs::fchmod(&socket, Mode::RUSR | Mode::WUSR)?;
    rustix::net::bind(&socket, &SocketAddrUnix::new(path)?)?;
    let itself = rustix::fs::open(path, OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty())?;
    if let Some(group) = group {
        open_to_group(&itself, group)?;
    }
    let file = SocketFile { path: path.into(), itself: itself.into() };
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(ControlSocket { listener: socket.into(), file })
}

/// Gives a group access to the socket file behind this descriptor. Its name may lead to another file by now.
fn open_to_group(itself: &OwnedFd, group: Gid) -> io::Result<()> {
    let found = rustix::fs::fstat(itself)?;
    let is_socket = FileType::from_raw_mode(found.st_mode) == FileType::Socket;
    if !is_socket || found.st_uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(ErrorKind::PermissionDenied, "another process has replaced it"));
    }
    let group = rustix::fs::Gid::from_raw(group.as_raw());
    rustix::fs::chownat(itself, "", None, Some(group), AtFlags::EMPTY_PATH)?;
    // A descriptor opened with O_PATH has no fchmod; its entry in /proc leads to the file, not to a name.
    let by_descriptor = format!("/proc/self/fd/{}", itself.as_raw_fd());
    std::fs::set_permissions(by_descriptor, Permissions::from_mode(0o660))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn settings(folder: &TempDir) -> Settings {
        Settings::new(4369, folder.path().join("home/pmd.sock"))
    }

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777
    }

    #[test]
    fn only_the_owner_has_access_and_dropping_it_removes_the_file() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        let socket = bind(&settings).expect("a socket");
        assert_eq!(mode(&settings.socket), 0o600);
        assert_eq!(mode(&folder.path().join("home")), 0o700);
        drop(socket);
        assert!(!settings.socket.exists());
    }

    #[test]
    fn a_stale_socket_is_replaced_and_a_live_one_is_not() {
        let folder = TempDir::new().expect("a folder");
        let settings = settings(&folder);
        let first = bind(&settings).expect("a socket");
        assert!(matches!(bind(&settings), Err(ControlError::Answers { .. })));
        assert!(UnixStream::connect(&settings.socket).is_ok());

        // A killed daemon leaves its file behind.
        let ControlSocket { listener, file } = first;
        drop(listener);
        let second = bind(&settings).expect("a socket");
        // If the first daemon is still alive after all, it must not remove its successor's socket.
        drop(file);
        assert!(UnixStream::connect(&settings.socket).is_ok());
        drop(second);
        assert!(!settings.socket.exists());
    }

    #[test]
    fn a_group_gets_nothing_else_in_place_of_the_socket() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("swapped");
        std::fs::write(&path, "secret").expect("a file");
        std::fs::set_permissions(&path, Permissions::from_mode(0o600)).expect("ours");
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let swapped = rustix::fs::open(&path, flags, Mode::empty()).expect("a descriptor");
        assert!(open_to_group(&swapped, Gid::current()).is_err());
        assert_eq!(mode(&path), 0o600);
    }

    #[test]
    fn a_file_that_is_not_a_socket_is_left_alone() {
        let folder = TempDir::new().expect("a folder");
        let settings = Settings::new(4369, folder.path().join("notes"));
        std::fs::write(&settings.socket, "mine").expect("a file");
        assert!(matches!(bind(&settings), Err(ControlError::NotASocket { .. })));
        assert_eq!(std::fs::read_to_string(&settings.socket).expect("it is there"), "mine");
    }

    #[test]
    fn a_group_can_be_given_access() {
        let folder = TempDir::new().expect("a folder");
        let own = Group::from_gid(Gid::current()).expect("it can be read").expect("it exists");
        let settings = Settings { control_group: Some(own.name), ..settings(&folder) };
        let _socket = bind(&settings).expect("a socket");
        assert_eq!(mode(&settings.socket), 0o660);
        assert_eq!(mode(&folder.path().join("home")), 0o710);
        let settings = Settings { control_group: Some("no such group".into()), ..settings };
        assert!(matches!(bind(&settings), Err(ControlError::NoSuchGroup(_))));
    }
}
