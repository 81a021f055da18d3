//! The two programs that are compared: stock epmd, and pmd called as `epmd`.

use std::path::PathBuf;

use tempfile::TempDir;

use crate::harness::stock_epmd;

/// A program that claims to be epmd.
#[derive(Debug)]
pub(crate) struct Implementation {
    pub(crate) program: PathBuf,
    _link: Option<TempDir>,
}

impl Implementation {
    /// Erlang's own epmd.
    pub(crate) fn stock() -> Implementation {
        Implementation { program: stock_epmd(), _link: None }
    }

    /// pmd, which behaves as epmd when it is called `epmd`.
    pub(crate) fn pmd() -> Implementation {
        let link = TempDir::new().expect("a directory for the link");
        let program = link.path().join("epmd");
        std::os::unix::fs::symlink(crate::harness::pmd(), &program).expect("a link to pmd");
        Implementation { program, _link: Some(link) }
    }
}
