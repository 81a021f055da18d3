//! Hosts for tests: network namespaces with their own addresses, host name, `/etc/hosts` and home directory.
//!
//! A [`Lan`] is a namespace that holds a bridge; every [`Host`] is a namespace connected to it. Nothing is changed in
//! the test's own namespace, and everything is removed when the values are dropped.

use std::fs::File;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use super::daemon::without_variables;

/// A network namespace, removed when this value is dropped.
#[derive(Debug)]
pub struct NetNs {
    name: String,
}

impl NetNs {
    /// A new namespace with its loopback interface up.
    pub fn new() -> NetNs {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let name = format!("pmdt-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name]);
        let namespace = NetNs { name };
        namespace.ip(&["link", "set", "lo", "up"]);
        namespace
    }

    /// The name `ip netns` knows it by.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs `ip ARGS` inside the namespace and panics if it fails.
    pub fn ip(&self, args: &[&str]) {
        let mut all = vec!["-n", self.name.as_str()];
        all.extend_from_slice(args);
        ip(&all);
    }

    /// The processes whose main thread runs inside the namespace: all of them belong to the test.
    pub fn processes(&self) -> Vec<Pid> {
        let inode = |path: &Path| std::fs::metadata(path).ok().map(|namespace| namespace.ino());
        let here = inode(&Path::new("/run/netns").join(&self.name));
        let entries = std::fs::read_dir("/proc").expect("/proc");
        entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|process| inode(&process.join("ns/net")).is_some_and(|there| Some(there) == here))
            .filter_map(|process| Pid::from_raw(process.file_name()?.to_str()?.parse().ok()?))
            .collect()
    }

    /// Runs `work` on a new thread inside the namespace; sockets it opens belong to the namespace.
    pub fn enter<T: Send>(&self, work: impl FnOnce() -> T + Send) -> T {
        let path = Path::new("/run/netns").join(&self.name);
        std::thread::scope(|scope| {
            let inside = scope.spawn(move || {
                let namespace = File::open(&path).expect("the namespace is there");
                use std::os::fd::AsFd;
                move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                    .expect("entering a network namespace needs root");
                work()
            });
            match inside.join() {
                Ok(value) => value,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl Drop for NetNs {
    fn drop(&mut self) {
        // Background daemons are not children of the test, so they are killed here.
        for pid in self.processes() {
            let _ = kill_process(pid, Signal::KILL);
        }
        let _ = Command::new("ip").args(["netns", "del", &self.name]).status();
    }
}

/// An isolated switched network.
#[derive(Debug)]
pub struct Lan {
    switch: NetNs,
    next: AtomicU32,
}

impl Lan {
    /// A network without hosts.
    pub fn new() -> Lan {
        let switch = NetNs::new();
        switch.ip(&["link", "add", "br0", "type", "bridge"]);
        switch.ip(&["link", "set", "br0", "up"]);
        Lan { switch, next: AtomicU32::new(1) }
    }

    /// Adds hosts with these names; the `/etc/hosts` of each lists all of them and no others. A name with a dot gets
    /// its short form as an alias.
    pub fn hosts<const N: usize>(&self, names: [&str; N]) -> [Host; N] {
        let hosts = names.map(|name| self.host(name));
        let table: String = hosts
            .iter()
            .map(|host| {
                let short = host.name.split('.').next().unwrap_or_default();
                format!("{} {} {}\n{} {}\n", host.ip, host.name, short, host.ip6, host.name)
            })
            .collect();
        for host in &hosts {
            let text = format!("127.0.0.1 localhost\n::1 localhost ip6-localhost\n{table}");
            std::fs::write(host.dir().join("hosts"), text).expect("writing the hosts file");
        }
        hosts
    }

    fn host(&self, name: &str) -> Host {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let netns = NetNs::new();
        let port = format!("v{number}");
        self.switch.ip(&[
            "link",
            "add",
            &port,
            "type",
            "veth",
            "peer",
            "name",
            "eth0",
            "netns",
            netns.name(),
        ]);
        self.switch.ip(&["link", "set", &port, "master", "br0", "up"]);
        let low = u8::try_from(number).expect("at most 250 hosts on one network");
        let ip = Ipv4Addr::new(10, 77, 0, low);
        let ip6 = Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, u16::from(low));
        netns.ip(&["addr", "add", &format!("{ip}/24"), "dev", "eth0"]);
        netns.ip(&["addr", "add", &format!("{ip6}/64"), "dev", "eth0", "nodad"]);
        netns.ip(&["link", "set", "eth0", "up"]);
        Host { netns, name: name.to_owned(), ip, ip6, port, dir: TempDir::new().expect("a directory") }
    }

    /// Takes the host's link down or up, like unplugging its cable.
    pub fn plug(&self, host: &Host, plugged: bool) {
        self.switch.ip(&["link", "set", &host.port, if plugged { "up" } else { "down" }]);
    }
}

/// A host on a [`Lan`], with its own network, host name, hosts file and home; the file system is shared.
#[derive(Debug)]
pub struct Host {
    /// Its network namespace.
    pub netns: NetNs,
    /// What `hostname` prints there.
    pub name: String,
    /// Its IPv4 address.
    pub ip: Ipv4Addr,
    /// Its IPv6 address.
    pub ip6: Ipv6Addr,
    port: String,
    dir: TempDir,
}

impl Host {
    /// The host's own directory: `HOME` of its programs, deleted with the host.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The host's directory for pmd's files.
    pub fn pmd_home(&self) -> PathBuf {
        self.dir().join("pmd")
    }

    /// A command that runs on this host. Its pid is that of `program` itself.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        // Every command gets its own mount and UTS namespaces; each step execs the next, so the process that the test
        // started becomes the program.
        let script = "hostname \"$1\" && mount --bind \"$2\" /etc/hosts && shift 2 && exec \"$@\"";
        let mut command = Command::new("ip");
        command
            .args([
                "netns",
                "exec",
                self.netns.name(),
                "unshare",
                "--uts",
                "--mount",
                "sh",
                "-c",
                script,
                "sh",
            ])
            .arg(&self.name)
            .arg(self.dir().join("hosts"))
            .arg(program);
        without_variables(&mut command).env("HOME", self.dir()).env("PMD_HOME", self.pmd_home());
        command
    }
}

fn ip(args: &[&str]) {
    let output = Command::new("ip").args(args).output().expect("the tests need `ip` of iproute2");
    assert!(
        output.status.success(),
        "ip {}: {}(network namespaces need root)",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
}
