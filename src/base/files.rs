//! Files that a daemon keeps: secrets that only their owner may read, and files that are never seen half-written.

use std::fs::{DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// The mode of a secret.
pub const SECRET: u32 = 0o600;
/// The mode of a file that everybody may read.
pub const PUBLIC: u32 = 0o644;
/// Lets others open files below a folder whose names they know, without listing it.
const PASSABLE: u32 = 0o011;

/// Why a secret was not read.
#[derive(Debug)]
pub enum SecretError {
    /// The file could not be read.
    Read(io::Error),
    /// Others may read the file, which has these permissions.
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
/// If the file cannot be read, or others may read it.
pub fn read_secret(path: &Path, most: u64) -> Result<String, SecretError> {
    let file = File::open(path)?;
    // Taken from the open file, because the path may lead to another file by now.
    let mode = file.metadata()?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(SecretError::Exposed(mode));
    }
    let mut text = String::new();
    file.take(most).read_to_string(&mut text)?;
    Ok(text)
}

/// Creates a file with this mode, whatever the umask is. The file must not exist.
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

/// Creates a file unless it exists, and returns whether it did. Of several processes that try at the same time, one
/// succeeds, and none sees the file without its text.
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

/// Creates or replaces a file. Readers see either the old or the new file, and never a part of it.
///
/// # Errors
///
/// If the file cannot be written. The old file then remains.
pub fn replace(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    put(path, text, mode, |beside| std::fs::rename(beside, path))
}

/// Puts `text` into the file at `path` like [`replace`], and returns whether that changed it. A file that has this text
/// already keeps its modification time, by which its readers decide whether to read it again.
///
/// # Errors
///
/// If the system refuses it; the old file is there then.
pub fn replace_if_changed(path: &Path, text: &str, mode: u32) -> io::Result<bool> {
    match std::fs::read(path) {
        Ok(before) if before == text.as_bytes() => return Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    replace(path, text, mode).map(|()| true)
}

/// Makes a folder and those above it for the owner alone; leaves an existing one as it is.
///
/// # Errors
///
/// If the system refuses it.
pub fn make_private_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

/// Lets the nodes of all users open files in root's own folder: the secrets in it have modes of their own.
///
/// # Errors
///
/// If the system refuses it.
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
    // An earlier process with the same id may have left one.
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
    fn a_file_is_made_once_and_replaced_whole() {
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
    fn a_file_is_replaced_only_by_another_text() {
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
