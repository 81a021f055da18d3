//! The two programs that are compared: stock epmd, and pmd called by the name `epmd`.

use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// A program that claims to be epmd.
#[derive(Debug)]
pub(crate) struct Implementation {
    pub(crate) program: PathBuf,
    _link: Option<TempDir>,
}

impl Implementation {
    /// Erlang's own epmd. A machine without it cannot run the battery, which must not look like a pass.
    pub(crate) fn stock() -> Implementation {
        let program =
            std::env::var_os("EPMD_STOCK").map(PathBuf::from).or_else(installed).unwrap_or_default();
        assert!(
            program.is_file(),
            "stock epmd is missing ({program:?}): install Debian's `erlang-base` (or the package of Erlang/OTP \
             of this system), or name the program in EPMD_STOCK"
        );
        Implementation { program, _link: None }
    }

    /// pmd, which behaves as epmd when it is called `epmd`.
    pub(crate) fn pmd() -> Implementation {
        let link = TempDir::new().expect("a directory for the link");
        let program = link.path().join("epmd");
        std::os::unix::fs::symlink(crate::harness::pmd(), &program).expect("a link to pmd");
        Implementation { program, _link: Some(link) }
    }
}

/// `/usr/bin/epmd` may be anything, even pmd; the one inside the Erlang installation is the real one.
fn installed() -> Option<PathBuf> {
    let versions = Path::new("/usr/lib/erlang").read_dir().ok()?;
    versions.filter_map(|entry| Some(entry.ok()?.path().join("bin/epmd"))).find(|program| program.is_file())
}
