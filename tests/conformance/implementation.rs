//! The two programs that are compared: stock epmd, and pmd called as `epmd`.

use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use crate::harness::stock_epmd;

/// A program that claims to be epmd.
#[derive(Debug)]
pub(crate) struct Implementation {
    pub(crate) program: PathBuf,
    has_systemd: bool,
    _link: Option<TempDir>,
}

impl Implementation {
    /// Erlang's own epmd.
    pub(crate) fn stock() -> Implementation {
        let program = stock_epmd();
        let usage = Command::new(&program).arg("-help").output().expect("the usage text");
        let has_systemd = String::from_utf8_lossy(&usage.stderr).contains("-systemd");
        Implementation { program, has_systemd, _link: None }
    }

    /// pmd, which behaves as epmd when it is called `epmd`.
    pub(crate) fn pmd() -> Implementation {
        let link = TempDir::new().expect("a directory for the link");
        let program = link.path().join("epmd");
        std::os::unix::fs::symlink(crate::harness::pmd(), &program).expect("a link to pmd");
        Implementation { program, has_systemd: true, _link: Some(link) }
    }

    /// Whether it can play a case, which may need support for systemd.
    pub(crate) fn can_play(&self, needs_systemd: bool) -> bool {
        self.has_systemd || !needs_systemd
    }
}
