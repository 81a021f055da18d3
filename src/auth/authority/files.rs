//! The files of an authority and of certified hosts.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use rcgen::KeyPair;

use super::error::CaError;
use crate::base::files;
pub(super) use crate::base::files::{PUBLIC, SECRET};
use crate::base::files::{Reader, SecretError, make_private_folder};

/// Maximum number of bytes read from a file. A certificate chain has a few kilobytes, a hundred thousand issued certificates
/// take this much.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Reads a certificate file.
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

/// Reads a private key, which must be readable only by its owner.
pub(super) fn read_key(path: &Path) -> Result<KeyPair, CaError> {
    let text = files::read_secret(path, MAX_FILE, Reader::Command).map_err(|error| match error {
        SecretError::Read(source) => CaError::Read { path: path.into(), source },
        SecretError::Exposed(mode) => CaError::Exposed { path: path.into(), mode },
        SecretError::Foreign(owner) => CaError::Foreign { path: path.into(), owner },
    })?;
    let wrong = |_| CaError::Content { path: path.into(), problem: "contains no usable private key" };
    KeyPair::from_pem(&text).map_err(wrong)
}

/// Creates a directory accessible only to its owner, unless it exists.
pub(super) fn make_folder(folder: &Path) -> Result<(), CaError> {
    make_private_folder(folder).map_err(|source| CaError::Write { path: folder.into(), source })
}

/// Writes a file that must not exist yet.
pub(super) fn write_new(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::AlreadyExists => CaError::Exists { path: path.into() },
        _ => CaError::Write { path: path.into(), source },
    };
    files::make(path, text, mode).map_err(failed)
}

/// Writes a file, atomically replacing an existing one.
pub(super) fn replace(path: &Path, text: &str, mode: u32) -> Result<(), CaError> {
    files::replace(path, text, mode).map_err(|source| CaError::Write { path: path.into(), source })
}

/// Reads a text file; `None` if it does not exist.
pub(super) fn read_if_there(path: &Path) -> Result<Option<String>, CaError> {
    match read(path) {
        Ok(text) => Ok(Some(text)),
        Err(CaError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Adds a line to a file, which is created if it does not exist.
pub(super) fn append(path: &Path, line: &str) -> Result<(), CaError> {
    let opened = OpenOptions::new().create(true).append(true).mode(PUBLIC).open(path);
    let written = opened.and_then(|mut file| {
        file.write_all(line.as_bytes())?;
        file.sync_all()
    });
    written.map_err(|source| CaError::Write { path: path.into(), source })
}
