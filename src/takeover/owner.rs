//! Who listens on a port: from the kernel's tables of sockets to the processes that hold them (proc(5)).

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// The tables of this thread's network namespace; `/proc/net` would be those of the process.
const TABLES: [&str; 2] = ["/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"];
/// TCP_LISTEN.
const LISTEN: &str = "0A";

/// A socket that listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listening {
    /// Where.
    pub address: SocketAddr,
    /// The user who made it.
    pub uid: u32,
    inode: u64,
}

/// A process that holds a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Its process id.
    pub pid: i32,
    /// What the system calls it.
    pub name: String,
    /// The file it runs, if this user may know.
    pub program: Option<PathBuf>,
    /// The user it runs as.
    pub uid: u32,
    /// The group it runs as.
    pub gid: u32,
}

/// Every socket of this network namespace that listens on `port`.
pub fn listening(port: u16) -> io::Result<Vec<Listening>> {
    let mut found = Vec::new();
    for table in TABLES {
        match std::fs::read_to_string(table) {
            Ok(text) => found.extend(text.lines().filter_map(parse_line)),
            // A system without IPv6 has no table for it.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table != TABLES[0] => {}
            Err(error) => return Err(error),
        }
    }
    found.retain(|socket| socket.address.port() == port);
    Ok(found)
}

/// The processes that hold these sockets, as far as this user may look.
pub fn owners(sockets: &[Listening]) -> Vec<Owner> {
    let wanted: BTreeSet<u64> = sockets.iter().map(|socket| socket.inode).collect();
    let Ok(processes) = std::fs::read_dir("/proc") else { return Vec::new() };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|pid| !wanted.is_empty() && holds(*pid, &wanted))
        .filter_map(owner)
        .collect()
}

/// What is known about a process; none if there is no such process any more.
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
    /// Whether it is an epmd by its name or its file, and no pmd under that name.
    pub fn is_epmd(&self) -> bool {
        let called = |name: &str| name == "epmd";
        let file = self.program.as_deref().and_then(Path::file_name).and_then(|name| name.to_str());
        (called(&self.name) || file.is_some_and(called)) && !self.is_pmd()
    }

    /// Whether it runs the same file as this process.
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

fn holds(pid: i32, wanted: &BTreeSet<u64>) -> bool {
    let Ok(descriptors) = std::fs::read_dir(format!("/proc/{pid}/fd")) else { return false };
    descriptors.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).any(|target| {
        let inode = target.to_str().and_then(|text| text.strip_prefix("socket:[")?.strip_suffix(']'));
        inode.and_then(|inode| inode.parse().ok()).is_some_and(|inode: u64| wanted.contains(&inode))
    })
}

/// The kernel marks the file of a program that has been replaced, as by an update.
fn without_deleted(program: PathBuf) -> PathBuf {
    match program.to_str().and_then(|text| text.strip_suffix(" (deleted)")) {
        Some(path) => path.into(),
        None => program,
    }
}

fn parse_line(line: &str) -> Option<Listening> {
    let fields: Vec<&str> = line.split_ascii_whitespace().collect();
    let [_, local, _, LISTEN, _, _, _, uid, _, inode, ..] = fields.as_slice() else { return None };
    let (address, port) = local.split_once(':')?;
    Some(Listening {
        address: SocketAddr::new(parse_address(address)?, u16::from_str_radix(port, 16).ok()?),
        uid: uid.parse().ok()?,
        inode: inode.parse().ok()?,
    })
}

/// The address is printed as words of 32 bits in the order of the machine.
fn parse_address(text: &str) -> Option<IpAddr> {
    let words = text.as_bytes().chunks(8).map(|word| {
        let word = std::str::from_utf8(word).ok()?;
        u32::from_str_radix(word, 16).ok().map(u32::to_ne_bytes)
    });
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.into_iter().flatten().collect();
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes.as_slice()) {
        return Some(Ipv4Addr::from(bytes).into());
    }
    <[u8; 16]>::try_from(bytes.as_slice()).ok().map(|bytes| Ipv6Addr::from(bytes).into())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    #[test]
    #[cfg(target_endian = "little")]
    fn a_line_of_the_table_is_understood() {
        let line = "   1: 0100007F:1111 00000000:0000 0A 00000000:00000000 00:00000000 00000000   105  \
                    0 4242 1 0000000000000000 100 0 0 10 0";
        let socket = parse_line(line).expect("it is right");
        assert_eq!((socket.address, socket.uid, socket.inode), (([127, 0, 0, 1], 4369).into(), 105, 4242));
        let line = line.replace("0100007F", "00000000000000000000000001000000");
        let socket = parse_line(&line).expect("it is right");
        assert_eq!(socket.address, (Ipv6Addr::LOCALHOST, 4369).into());
        assert_eq!(parse_line(&line.replace(" 0A ", " 01 ")), None);
        assert_eq!(parse_line("  sl  local_address rem_address   st"), None);
        assert_eq!(parse_line(""), None);
    }

    #[test]
    fn a_listener_is_found_with_its_process() {
        let listener = TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).expect("a port");
        let address = listener.local_addr().expect("its address");
        let sockets = listening(address.port()).expect("tables");
        assert_eq!(sockets.iter().map(|socket| socket.address).collect::<Vec<_>>(), [address]);
        let owners = owners(&sockets);
        assert_eq!(owners.len(), 1);
        assert_eq!(u32::try_from(owners[0].pid).ok(), Some(std::process::id()));
        assert!(owners[0].is_pmd() && !owners[0].is_epmd());
        drop(listener);
        assert_eq!(listening(address.port()).expect("tables"), []);
    }
}
