//! A temporary directory that is removed on drop.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Attempts to find an unused name. With 32 random bits, the first attempt nearly always succeeds.
const ATTEMPTS: usize = 8;

/// A temporary directory readable by this user only. Dropping the value removes the directory and its content.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Creates a directory whose name begins with `prefix`.
    ///
    /// # Errors
    ///
    /// If it cannot be created.
    pub fn new(prefix: &str) -> io::Result<Folder> {
        // Absolute, because the daemons run in another directory.
        let temporary = std::path::absolute(std::env::temp_dir())?;
        let mut last_error = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let path = temporary.join(format!("{prefix}{:08x}", rand::random::<u32>()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Folder(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => last_error = error,
                Err(error) => return Err(error),
            }
        }
        Err(last_error)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            // Not eprintln!, which panics if standard error is closed.
            let _ = writeln!(io::stderr(), "warning: cannot remove {}: {error}", self.0.display());
        }
    }
}
