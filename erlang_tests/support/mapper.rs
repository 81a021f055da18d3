//! The daemon under test: pmd, or the stock epmd that validates the tests.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;

use super::wire;
use crate::harness::netns::Host;
use crate::harness::program::Program;
pub use crate::harness::stock_epmd;
use crate::harness::{pmd, wait_until};

/// The two programs that can be under test.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mapper {
    /// The binary of this workspace.
    Pmd,
    /// The epmd of the installed Erlang/OTP.
    Stock,
}

impl Mapper {
    /// The program under test in this run.
    pub fn under_test() -> Mapper {
        match std::env::var("PMD_TEST_MAPPER").as_deref() {
            Err(_) | Ok("pmd") => Mapper::Pmd,
            Ok("stock") => Mapper::Stock,
            Ok(other) => panic!("PMD_TEST_MAPPER={other}: it is either pmd or stock"),
        }
    }

    /// A file called `epmd` that is this mapper, for programs that look for that name.
    pub fn as_epmd(self, host: &Host) -> PathBuf {
        match self {
            Mapper::Stock => stock_epmd(),
            Mapper::Pmd => {
                let link = host.dir().join("epmd");
                if !link.exists() {
                    symlink(pmd(), &link).expect("a link called epmd");
                }
                link
            }
        }
    }
}

/// A daemon that holds a host's port, as a child of the test.
#[derive(Debug)]
pub struct Daemon {
    /// The process.
    pub program: Program,
}

impl Daemon {
    /// Starts the mapper under test.
    pub fn start(host: &Host) -> Daemon {
        Daemon::start_as(Mapper::under_test(), host)
    }

    /// Starts the given mapper and waits until it answers on IPv4 and IPv6.
    pub fn start_as(mapper: Mapper, host: &Host) -> Daemon {
        let command = match mapper {
            Mapper::Pmd => {
                let mut command = host.command(pmd());
                command.args(["start", "--foreground"]);
                command
            }
            Mapper::Stock => {
                let mut command = host.command(stock_epmd());
                command.arg("-d");
                command
            }
        };
        let mut program = Program::spawn(command);
        wait_until(&format!("a daemon on {}", host.name), || {
            assert!(
                program.is_running(),
                "the daemon of {} ended\n-- stdout\n{}\n-- stderr\n{}",
                host.name,
                program.stdout(),
                program.stderr()
            );
            listens(host)
        });
        Daemon { program }
    }
}

/// Whether a daemon answers on both loopback addresses of the host.
pub fn listens(host: &Host) -> bool {
    [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)]
        .into_iter()
        .all(|address| wire::names_at(host, address).is_some())
}

/// The registered names and their ports.
pub fn names(host: &Host) -> BTreeMap<String, u16> {
    let text = wire::names_at(host, IpAddr::V4(Ipv4Addr::LOCALHOST)).expect("a daemon answers");
    let entry = |line: &str| -> Option<(String, u16)> {
        let (name, port) = line.strip_prefix("name ")?.split_once(" at port ")?;
        Some((name.to_owned(), port.parse().ok()?))
    };
    text.lines().map(|line| entry(line).unwrap_or_else(|| panic!("bad NAMES line: {line:?}"))).collect()
}

/// Waits until exactly these names are registered.
pub fn wait_for_names(host: &Host, expected: &[&str]) {
    wait_until(&format!("the names {expected:?} on {}", host.name), || {
        let mut expected = expected.to_vec();
        expected.sort_unstable();
        names(host).keys().map(String::as_str).eq(expected)
    });
}

/// The mapper under test, called `epmd`.
pub fn epmd(host: &Host) -> Command {
    host.command(Mapper::under_test().as_epmd(host))
}

/// Fails if a stock epmd runs while pmd is under test, because the test would then prove nothing.
pub fn assert_no_stock_epmd(host: &Host) {
    if Mapper::under_test() == Mapper::Pmd {
        let stock = stock_epmd().canonicalize().expect("the stock epmd");
        for pid in host.netns.processes() {
            let program = std::fs::read_link(format!("/proc/{}/exe", pid.as_raw_nonzero()));
            assert_ne!(program.ok().as_ref(), Some(&stock), "a stock epmd runs on {}", host.name);
        }
    }
}
