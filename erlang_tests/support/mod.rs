//! What the tests share: hosts with a common Erlang cookie, the daemon under test, nodes that evaluate expressions.

pub mod cluster;
pub mod mapper;
pub mod node;
pub mod wire;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Output;

use crate::harness::netns::{Host, Lan};

/// Hosts of these names on one network, each with the same Erlang cookie in its home, so that any Erlang program there
/// trusts the others.
pub fn hosts<const N: usize>(lan: &Lan, names: [&str; N]) -> [Host; N] {
    let hosts = lan.hosts(names);
    for host in &hosts {
        let cookie = host.dir().join(".erlang.cookie");
        fs::write(&cookie, "KEKSDOSE").expect("writing the cookie");
        fs::set_permissions(&cookie, Permissions::from_mode(0o400)).expect("the cookie's mode");
    }
    hosts
}

/// The full path of an installed program; fails the test, naming the package to install, if it is missing.
pub fn installed(program: &str, package: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = if Path::new(program).is_absolute() {
        Some(PathBuf::from(program)).filter(|file| file.exists())
    } else {
        std::env::split_paths(&path).map(|dir| dir.join(program)).find(|file| file.is_file())
    };
    found.unwrap_or_else(|| panic!("{program} is missing: {}", advice(package)))
}

/// What to do about a missing program.
pub fn advice(package: &str) -> String {
    format!("install the package {package}, or run scripts/install-test-deps")
}

/// A file of `erlang_tests/fixtures`.
pub fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("erlang_tests/fixtures").join(name)
}

/// Standard output, standard error and exit code, for messages and comparisons.
pub fn told(output: &Output) -> (String, String, Option<i32>) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Standard output of a command that must succeed.
pub fn succeeded(output: &Output) -> String {
    let (stdout, stderr, code) = told(output);
    assert_eq!(code, Some(0), "the command failed\n-- stdout\n{stdout}\n-- stderr\n{stderr}");
    stdout
}
