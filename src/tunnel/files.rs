//! Files that others read while they are replaced.

use std::fs::Permissions;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use crate::base::files;

/// Lets others get at files of theirs below a folder, without seeing what is there.
const PASSABLE: u32 = 0o011;

/// Puts `text` into the file at `path`, which others may read; readers see the old or the new file, whole. Whether it was
/// another one before. Its time only changes with its text, so that nobody reads it again for nothing.
///
/// # Errors
///
/// If the system refuses it; the old file is there then.
pub fn replace(path: &Path, text: &str) -> io::Result<bool> {
    match std::fs::read(path) {
        Ok(before) if before == text.as_bytes() => return Ok(false),
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Nodes run as other users than pmd.
    files::replace(path, text, files::PUBLIC).map(|()| true)
}

/// Lets the nodes of all users reach files in root's own folder: its secrets have modes of their own.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_only_by_another_text() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("hosts");
        assert!(replace(&path, "one").expect("written"));
        assert!(!replace(&path, "one").expect("left alone"));
        assert!(replace(&path, "two").expect("written"));
        assert_eq!(std::fs::read_to_string(&path).expect("it is there"), "two");
        assert_eq!(std::fs::metadata(&path).expect("it is there").mode() & 0o777, files::PUBLIC);
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1);
        assert!(replace(&folder.path().join("no/such"), "x").is_err());
    }
}
