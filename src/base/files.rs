//! Secret files, which only their owner may read, log files, and atomic replacement of files.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use rustix::process::geteuid;

/// The mode of a secret.
pub const SECRET: u32 = 0o600;
/// The mode of a world-readable file.
pub const PUBLIC: u32 = 0o644;
/// Mode bits of a folder that let others open files in it by name, without listing it.
const PASSABLE: u32 = 0o011;

/// A user and a group by number.
type Owner = (u32, u32);

/// Why a secret was not read.
#[derive(Debug)]
pub enum SecretError {
    /// The file could not be read.
    Read(io::Error),
    /// The file, with these permissions, is accessible to others.
    Exposed(u32),
    /// The file belongs to another user, who can read and change it.
    Foreign(u32),
}

impl From<io::Error> for SecretError {
    fn from(error: io::Error) -> SecretError {
        SecretError::Read(error)
    }
}

/// Who reads a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// A daemon, which uses no secret that another user has written.
    Daemon,
    /// A command, which root may run on the files of any user's daemon.
    Command,
}

/// Reads at most `most` bytes of text from a file that only its owner may read. The owner must be the user of this
/// process or root.
///
/// # Errors
///
/// If the file cannot be read, is accessible to others, or belongs to another user.
pub fn read_secret(path: &Path, most: u64, reader: Reader) -> Result<String, SecretError> {
    let file = File::open(path)?;
    // From the open file, because the path may refer to another file by now.
    let metadata = file.metadata()?;
    let mode = metadata.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed(mode));
    }
    if !is_trusted(metadata.uid(), geteuid().as_raw(), reader) {
        return Err(SecretError::Foreign(metadata.uid()));
    }
    let mut text = String::new();
    file.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Whether a secret that belongs to `owner` may be used by a process of `user`.
fn is_trusted(owner: u32, user: u32, reader: Reader) -> bool {
    owner == 0 || owner == user || (user == 0 && reader == Reader::Command)
}

/// How to fix [`SecretError::Foreign`].
#[must_use]
pub fn foreign_hint(path: &Path, owner: u32) -> String {
    let user = geteuid().as_raw();
    let path = path.display();
    format!(
        "whoever owns it can read and replace it: if you trust its content, chown {user} {path}, or run pmd as the user with uid {owner}"
    )
}

/// Opens a log file for appending, creating it with access for its owner only. The last component of the path must not
/// be a symbolic link, and an existing file must be a regular one of this user or root: otherwise another user of the
/// folder could choose the file that is appended to.
///
/// # Errors
///
/// If the file cannot be opened, or is not such a file.
pub fn open_log(path: &Path) -> io::Result<File> {
    // Without NONBLOCK, opening a named pipe would wait for its reader. It has no effect on regular files.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY).bits().cast_signed();
    let file = OpenOptions::new().create(true).append(true).mode(SECRET).custom_flags(flags).open(path)?;
    let metadata = file.metadata()?;
    let refused = if !metadata.is_file() {
        "it is not a regular file"
    } else if !is_trusted(metadata.uid(), geteuid().as_raw(), Reader::Daemon) {
        "it belongs to another user"
    } else {
        return Ok(file);
    };
    Err(io::Error::new(ErrorKind::PermissionDenied, refused))
}

/// Creates a file with this mode, regardless of the umask. The file must not exist.
///
/// # Errors
///
/// If the file cannot be written; `AlreadyExists` if it exists.
pub fn make(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    make_for(path, text.as_bytes(), mode, None, Durable::Yes)
}

/// Whether a file has to be there after a power failure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Durable {
    Yes,
    No,
}

/// Creates a file like [`make`]; with an owner, for this user and group.
fn make_for(path: &Path, text: &[u8], mode: u32, owner: Option<Owner>, durable: Durable) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    if let Some((uid, gid)) = owner {
        fchown(&file, Some(uid), Some(gid))?;
    }
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text)?;
    if durable == Durable::Yes { file.sync_all() } else { Ok(()) }
}

/// Creates a file unless it exists, and returns whether it was created. Of several concurrent processes, one succeeds,
/// and none sees an incomplete file.
///
/// # Errors
///
/// If the file cannot be written.
pub fn make_once(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    // A rename would replace the file of another process; a link fails instead.
    put(path, text.as_bytes(), mode, None, Durable::Yes, |beside| match std::fs::hard_link(beside, path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    })
}

/// Creates or replaces a file atomically: readers see either the old or the new file.
///
/// # Errors
///
/// If the file cannot be written. The old file then remains.
pub fn replace(path: &Path, text: impl AsRef<[u8]>, mode: u32) -> io::Result<()> {
    put(path, text.as_ref(), mode, None, Durable::Yes, |beside| std::fs::rename(beside, path))
}

/// Replaces a file like [`replace`], and keeps its owner and group, since root may do it for another user. The new file
/// gets its owner before it gets its name: a change of owner by name could be led to another file.
///
/// # Errors
///
/// If the file does not exist or cannot be written. The old file then remains.
pub fn replace_for_its_owner(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let found = std::fs::symlink_metadata(path)?;
    let owner = Some((found.uid(), found.gid())).filter(|(uid, _)| geteuid().is_root() && *uid != 0);
    put(path, text.as_bytes(), mode, owner, Durable::Yes, |beside| std::fs::rename(beside, path))
}

/// Replaces a file like [`replace`], unless it already has this text, and returns whether it changed. An unchanged file
/// keeps its modification time, by which its readers decide whether to read it again.
///
/// This is for files that the daemon writes again when it starts, so it does not wait until they are on the disk.
///
/// # Errors
///
/// If the file cannot be read or written. The old file then remains.
pub fn replace_if_changed(path: &Path, text: impl AsRef<[u8]>, mode: u32) -> io::Result<bool> {
    match std::fs::read(path) {
        Ok(before) if before == text.as_ref() => return Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    put(path, text.as_ref(), mode, None, Durable::No, |beside| std::fs::rename(beside, path)).map(|()| true)
}

/// Creates a folder and its parents with access only for the owner. Existing folders are not changed.
///
/// # Errors
///
/// If a folder cannot be created.
pub fn make_private_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Allows nodes of all users to open files in root's folder. The secrets in it are protected by their own modes.
///
/// # Errors
///
/// If the permissions cannot be read or changed.
pub fn let_others_through(folder: &Path) -> io::Result<()> {
    let metadata = std::fs::metadata(folder)?;
    let mode = metadata.mode() & 0o7777;
    if metadata.uid() != 0 || mode & PASSABLE == PASSABLE {
        return Ok(());
    }
    std::fs::set_permissions(folder, Permissions::from_mode(mode | PASSABLE))
}

/// Writes a file next to `path` and moves it there with `in_place`.
fn put<T>(
    path: &Path,
    text: &[u8],
    mode: u32,
    owner: Option<Owner>,
    durable: Durable,
    in_place: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    // An earlier process with the same id may have left this file.
    let _ = std::fs::remove_file(&beside);
    let done = make_for(&beside, text, mode, owner, durable).and_then(|()| in_place(&beside));
    let _ = std::fs::remove_file(&beside);
    done
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_file_is_created_once_and_replaced_atomically() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("key");
        assert!(make_once(&path, "one", SECRET).expect("made"));
        assert!(!make_once(&path, "two", SECRET).expect("left alone"));
        assert_eq!(read_secret(&path, 2, Reader::Daemon).expect("it is ours"), "on");
        replace(&path, "three", PUBLIC).expect("replaced");
        assert!(matches!(read_secret(&path, 99, Reader::Daemon), Err(SecretError::Exposed(0o644))));
        replace(&path, "four", SECRET).expect("replaced");
        assert_eq!(read_secret(&path, 99, Reader::Daemon).expect("it is ours"), "four");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
    }

    #[test]
    fn a_secret_of_another_user_is_refused() {
        for (owner, user, reader, trusted) in [
            (1000, 1000, Reader::Daemon, true),
            (0, 1000, Reader::Daemon, true),
            (1001, 1000, Reader::Daemon, false),
            (1001, 1000, Reader::Command, false),
            (1001, 0, Reader::Daemon, false),
            (1001, 0, Reader::Command, true),
        ] {
            assert_eq!(is_trusted(owner, user, reader), trusted, "{owner} {user} {reader:?}");
        }
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("key");
        make(&path, "one", SECRET).expect("made");
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(4242), None).expect("root may");
            assert!(matches!(read_secret(&path, 99, Reader::Daemon), Err(SecretError::Foreign(4242))));
            assert_eq!(read_secret(&path, 99, Reader::Command).expect("root may"), "one");
            replace_for_its_owner(&path, "two", SECRET).expect("replaced");
            assert_eq!(std::fs::metadata(&path).expect("it is there").uid(), 4242);
            assert_eq!(read_secret(&path, 99, Reader::Command).expect("root may"), "two");
        }
    }

    #[test]
    fn a_log_is_private_and_not_behind_a_link() {
        let folder = TempDir::new().expect("a folder");
        let (path, target, link, pipe) = (
            folder.path().join("log"),
            folder.path().join("target"),
            folder.path().join("link"),
            folder.path().join("pipe"),
        );
        for line in ["one\n", "two\n"] {
            open_log(&path).expect("a log").write_all(line.as_bytes()).expect("room");
        }
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "one\ntwo\n");
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777 & !SECRET, 0);
        std::os::unix::fs::symlink(&target, &link).expect("a link");
        assert!(open_log(&link).is_err());
        assert!(!target.exists());
        std::fs::write(&target, "mine").expect("a file");
        assert!(open_log(&link).is_err());
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
            .expect("a pipe");
        assert!(open_log(&pipe).is_err(), "and it does not wait");
        if geteuid().is_root() {
            std::os::unix::fs::chown(&path, Some(4242), None).expect("root may");
            assert_eq!(open_log(&path).expect_err("not ours").kind(), ErrorKind::PermissionDenied);
        }
    }

    #[test]
    fn a_file_is_replaced_only_if_its_text_changes() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("hosts");
        assert!(replace_if_changed(&path, "one", PUBLIC).expect("written"));
        assert!(!replace_if_changed(&path, "one", PUBLIC).expect("left alone"));
        assert!(replace_if_changed(&path, "two", PUBLIC).expect("written"));
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "two");
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, PUBLIC);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert!(replace_if_changed(&folder.path().join("no/such"), "x", PUBLIC).is_err());
    }
}
