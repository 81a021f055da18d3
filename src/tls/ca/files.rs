//! The files of an authority and of the hosts that it certifies.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;

use rcgen::KeyPair;

use super::CaError;
use crate::config::paths::make_private_folder;

/// The mode of a certificate.
pub(super) const PUBLIC: u32 = 0o644;
/// The mode of a private key.
pub(super) const SECRET: u32 = 0o600;
/// Most that is read of a file: a chain of certificates is some kilobytes long.
const MAX_FILE: u64 = 1024 * 1024;

/// Reads a file.
pub(super) fn read(path: &Path) -> Result<String, CaError> {
    let failed = |source| CaError::Read { path: path.into(), source };
    let mut text = String::new();
    let read = File::open(path).map_err(failed)?.take(MAX_FILE).read_to_string(&mut text);
    match read {
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {
            Err(CaError::Content { path: path.into(), problem: "is not a PEM file" })
        }
        Err(error) => Err(failed(error)),
    }
}

/// Reads a private key that nobody else can read.
pub(super) fn read_key(path: &Path) -> Result<KeyPair, CaError> {
    let failed = |source| CaError::Read { path: path.into(), source };
    let file = File::open(path).map_err(failed)?;
    // Of the open file: the path may mean another one by now.
    let mode = file.metadata().map_err(failed)?.mode() & 0o7777;
    if mode & 0o077 != 0 {
        return Err(CaError::Exposed { path: path.into(), mode });
    }
    let mut text = String::new();
    file.take(MAX_FILE).read_to_string(&mut text).map_err(failed)?;
    let wrong =
        |_| CaError::Content { path: path.into(), problem: "has no private key in it that can be used" };
    KeyPair::from_pem(&text).map_err(wrong)
}

/// Makes a folder for the owner alone, unless it is there.
pub(super) fn make_folder(folder: &Path) -> Result<(), CaError> {
    make_private_folder(folder).map_err(|source| CaError::Write { path: folder.into(), source })
}

/// Writes a file that must not be there yet.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CaError::Exists { path: path.into() },
        _ => CaError::Write { path: path.into(), source },
    };
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(path).map_err(failed)?;
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(failed)
}

/// Puts a file into the place of what may be there; readers see the old or the new one, whole.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".new-{}", std::process::id()));
    let beside = Path::new(&beside);
    let _ = std::fs::remove_file(beside);
    write_new(beside, text, mode)?;
    std::fs::rename(beside, path).map_err(|source| {
        let _ = std::fs::remove_file(beside);
        CaError::Write { path: path.into(), source }
    })
}
