//! Secret files, which only their owner may read, and atomic replacement of files.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The mode of a secret.
pub const SECRET: u32 = 0o600;
/// The mode of a world-readable file.
pub const PUBLIC: u32 = 0o644;
/// Mode bits of a folder that let others open files in it by name, without listing it.
const PASSABLE: u32 = 0o011;

/// Why a secret was not read.
#[derive(Debug)]
pub enum SecretError {
    /// The file could not be read.
    Read(io::Error),
    /// The file, with these permissions, is accessible to others.
    Exposed(u32),
}

impl From<io::Error> for SecretError {
    fn from(error: io::Error) -> SecretError {
        SecretError::Read(error)
    }
}

/// Reads at most `most` bytes of text from a file that only its owner may read.
///
/// # Errors
///
/// If the file cannot be read, or is accessible to others.
pub fn read_secret(path: &Path, most: u64) -> Result<String, SecretError> {
    let file = File::open(path)?;
    // From the open file, because the path may refer to another file by now.
    let mode = file.metadata()?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed(mode));
    }
    let mut text = String::new();
    file.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Creates a file with this mode, regardless of the umask. The file must not exist.
///
/// # Errors
///
/// If the file cannot be written; `AlreadyExists` if it exists.
pub fn make(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

/// Creates a file unless it exists, and returns whether it was created. Of several concurrent processes, one succeeds,
/// and none sees an incomplete file.
///
/// # Errors
///
/// If the file cannot be written.
pub fn make_once(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    // A rename would replace the file of another process; a link fails instead.
    put(path, text, mode, |beside| match std::fs::hard_link(beside, path) {
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
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    put(path, text, mode, |beside| std::fs::rename(beside, path))
}

/// Replaces a file like [`replace`], unless it already has this text, and returns whether it changed. An unchanged file
/// keeps its modification time, by which its readers decide whether to read it again.
///
/// # Errors
///
/// If the file cannot be read or written. The old file then remains.
pub fn replace_if_changed(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    match std::fs::read(path) {
        Ok(before) if before == text.as_bytes() => return Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    replace(path, text, mode).map(|()| true)
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
    text: &str,
    mode: u32,
    in_place: impl FnOnce(&Path) -> io::Result<T>,
) -> io::Result<T> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let beside = PathBuf::from(beside);
    // An earlier process with the same id may have left this file.
    let _ = std::fs::remove_file(&beside);
    let done = make(&beside, text, mode).and_then(|()| in_place(&beside));
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
        assert_eq!(read_secret(&path, 2).expect("it is ours"), "on");
        replace(&path, "three", PUBLIC).expect("replaced");
        assert!(matches!(read_secret(&path, 99), Err(SecretError::Exposed(0o644))));
        replace(&path, "four", SECRET).expect("replaced");
        assert_eq!(read_secret(&path, 99).expect("it is ours"), "four");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
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
