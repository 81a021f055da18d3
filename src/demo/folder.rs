//! A directory that goes with the value that stands for it.

use std::fs::DirBuilder;
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Attempts to find a name that nobody has: with 32 random bits the first one nearly always does.
const ATTEMPTS: usize = 8;

/// A temporary directory of this user alone, removed with everything in it when this is dropped.
#[derive(Debug)]
pub struct Folder(PathBuf);

impl Folder {
    /// Makes one whose name begins with `prefix`.
    ///
    /// # Errors
    ///
    /// If the system refuses it.
    pub fn new(prefix: &str) -> io::Result<Folder> {
        // A daemon does not run in the directory of its starter.
        let temporary = std::path::absolute(std::env::temp_dir())?;
        let mut refused = io::Error::from(io::ErrorKind::AlreadyExists);
        for _ in 0..ATTEMPTS {
            let path = temporary.join(format!("{prefix}{:08x}", rand::random::<u32>()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Folder(path)),
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => refused = error,
                Err(error) => return Err(error),
            }
        }
        Err(refused)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            // Who started it may still look; whoever does not is not told.
            let _ = writeln!(io::stderr(), "warning: cannot remove {}: {error}", self.0.display());
        }
    }
}
