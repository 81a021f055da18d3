//! Shared by the black-box tests: hosts made of network namespaces, and programs that end with the test.
//!
//! Nothing here sleeps for a fixed time: every wait is for a condition, with a deadline that fails the test and prints
//! the output of every program of the test.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part of the harness")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a broken test set-up must stop the test"
)]

pub mod daemon;
pub mod netns;
pub mod program;
pub mod said;
pub mod wire;

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::{Duration, Instant};

/// How long a condition may take before the test fails; generous, because nothing here measures time.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Waits until `condition` holds; panics with `what` after [`PATIENCE`].
pub fn wait_until(what: &str, condition: impl FnMut() -> bool) {
    wait_within(PATIENCE, what, condition);
}

/// Waits until `condition` holds; panics with `what` after `patience`.
pub fn wait_within(patience: Duration, what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    let mut pause = Duration::from_micros(500);
    while !condition() {
        assert!(Instant::now() < deadline, "timed out after {patience:?} waiting for: {what}");
        std::thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(16));
    }
}

/// A port that was free on both loopback addresses a moment ago.
pub fn free_port() -> u16 {
    /// Below the ports that the kernel gives to outgoing connections, which may take any of theirs at any time.
    const PORTS: std::ops::Range<u16> = 20_000..32_000;
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        // Tests of one program run at the same time and must not get the same port one after the other.
        let offset = NEXT.fetch_add(1, Ordering::Relaxed) % (PORTS.end - PORTS.start);
        let port = PORTS.start + offset;
        let is_free = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok();
        if is_free && TcpListener::bind(("::1", port)).is_ok() {
            return port;
        }
    }
}

/// Erlang's own epmd. `/usr/bin/epmd` may be pmd, so this is the one inside the Erlang installation, or the one that
/// pmd's Debian package has diverted there. Without it the tests fail, because they would prove nothing.
pub fn stock_epmd() -> PathBuf {
    let program = std::env::var_os("EPMD_STOCK").map(PathBuf::from).or_else(|| {
        let versions = Path::new("/usr/lib/erlang").read_dir().ok()?;
        let programs = versions
            .flatten()
            .flat_map(|entry| ["bin/epmd.stock", "bin/epmd"].map(|program| entry.path().join(program)));
        programs.into_iter().find(|program| program.is_file())
    });
    program
        .filter(|program| program.is_file())
        .expect("stock epmd is missing: run scripts/install-test-deps, or name the program in EPMD_STOCK")
}

/// The pmd binary under test, built by Cargo for this test run.
pub fn pmd() -> &'static str {
    env!("CARGO_BIN_EXE_pmd")
}
