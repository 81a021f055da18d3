//! The processes that listen on a port.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use pmd_epmd::kernel::processes;
use pmd_epmd::kernel::sockets::{self, Socket};

/// The file name of a stock epmd diverted by the Debian package of pmd.
pub const DIVERTED: &str = "epmd.stock";

/// A process that holds a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: i32,
    /// Its name.
    pub name: String,
    /// Its executable, if visible to this user.
    pub program: Option<PathBuf>,
    /// The user it runs as.
    pub uid: u32,
    /// The group it runs as.
    pub gid: u32,
}

/// The sockets in this network namespace that listen on `port`.
pub fn listening(port: u16) -> io::Result<Vec<Socket>> {
    sockets::find(|socket| socket.listens && socket.local.port() == port)
}

/// The processes that hold these sockets, if visible to this user.
pub fn owners(sockets: &[Socket]) -> Vec<Owner> {
    let inodes = sockets.iter().map(|socket| socket.inode).collect();
    processes::holders(&inodes).into_iter().filter_map(owner).collect()
}

/// The process with this id; none if it has exited.
pub fn owner(pid: i32) -> Option<Owner> {
    let folder = PathBuf::from(format!("/proc/{pid}"));
    let metadata = std::fs::metadata(&folder).ok()?;
    let name = std::fs::read_to_string(folder.join("comm")).ok()?;
    Some(Owner {
        pid,
        name: name.trim_end().to_owned(),
        program: std::fs::read_link(folder.join("exe")).ok().map(without_deleted),
        uid: metadata.uid(),
        gid: metadata.gid(),
    })
}

impl Owner {
    /// Whether its process or file name is that of epmd and it is not pmd under that name.
    pub fn is_epmd(&self) -> bool {
        let called = |name: &str| name == "epmd" || name == DIVERTED;
        let file = self.program.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        (called(&self.name) || file.is_some_and(called)) && !self.is_pmd()
    }

    /// Whether it runs the same executable as this process, or one called `pmd`.
    pub fn is_pmd(&self) -> bool {
        let theirs = std::fs::metadata(format!("/proc/{}/exe", self.pid));
        let ours = std::fs::metadata("/proc/self/exe");
        let same_file = match (theirs, ours) {
            (Ok(theirs), Ok(ours)) => (theirs.dev(), theirs.ino()) == (ours.dev(), ours.ino()),
            _ => false,
        };
        same_file || self.program.as_deref().and_then(Path::file_name).is_some_and(|name| name == "pmd")
    }
}

impl std::fmt::Display for Owner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.program {
            Some(program) => write!(f, "{} (pid {}, {})", self.name, self.pid, program.display()),
            None => write!(f, "{} (pid {})", self.name, self.pid),
        }
    }
}

/// Strips the " (deleted)" that the kernel appends to the path of a program that was replaced, as by an update.
fn without_deleted(program: PathBuf) -> PathBuf {
    match program.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(path) => path.into(),
        None => program,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv6Addr, TcpListener};

    use super::*;

    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let sockets = listening(address.port()).expect("tables");
        assert_eq!(sockets.iter().map(|socket| socket.local).collect::<Vec<_>>(), [address]);
        let owners = owners(&sockets);
        assert_eq!(owners.len(), 1);
        assert_eq!(u32::try_from(owners[0].pid).ok(), Some(std::process::id()));
        assert!(owners[0].is_pmd() && !owners[0].is_epmd());
        drop(listener);
        assert_eq!(listening(address.port()).expect("tables"), []);
    }
}
