//! The Erlang cookie of the user who runs a command, with which nodes accept that user's nodes. It is not the cluster
//! secret, and daemons neither have nor get it.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use md5::{Digest, Md5};

/// The variable in which Elixir releases find the cookie.
const VARIABLE: &str = "RELEASE_COOKIE";
/// The file in the user's directory, and where else OTP 25 and later look for it.
const FILE: &str = ".erlang.cookie";
const FOLDER: &str = "erlang";
/// Maximum length of a cookie: that of an atom.
const MAX_COOKIE: usize = 255;
/// Maximum number of bytes read from a file: a cookie, and the end of its line.
const MAX_FILE: u64 = 1024;

/// An Erlang cookie, which is never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct ErlangCookie(Vec<u8>);

impl fmt::Debug for ErlangCookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ErlangCookie")
    }
}

/// Why a file or variable has no usable cookie. The text never contains any of it.
#[derive(Debug, thiserror::Error)]
pub enum CookieError {
    /// The file cannot be read.
    #[error("cannot read the Erlang cookie in {file}: {source}", file = .file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// It is not a cookie.
    #[error("{0} contains no Erlang cookie: one line of at most {MAX_COOKIE} printable ASCII characters")]
    Malformed(String),
}

/// Where a cookie was looked for, and what was found.
#[derive(Debug)]
pub enum CallersCookie {
    /// A cookie.
    Found {
        /// The cookie.
        cookie: ErlangCookie,
        /// Where it was found, in words.
        from: String,
    },
    /// There is none: why, in words.
    None(String),
}

impl ErlangCookie {
    /// Parses the text of a cookie file as Erlang does: printable ASCII, and nothing after the end of the line.
    fn parse(text: &[u8]) -> Option<ErlangCookie> {
        let is_printable = |byte: &u8| (b' '..=b'~').contains(byte);
        let end = text.iter().position(|byte| !is_printable(byte)).unwrap_or(text.len());
        let (cookie, rest) = text.split_at_checked(end)?;
        let is_valid = !cookie.is_empty()
            && cookie.len() <= MAX_COOKIE
            && rest.iter().all(|byte| matches!(byte, b' ' | b'\r' | b'\n'));
        is_valid.then(|| ErlangCookie(cookie.to_vec()))
    }

    fn read(file: &Path) -> Result<ErlangCookie, CookieError> {
        let mut text = Vec::new();
        File::open(file)
            .and_then(|opened| opened.take(MAX_FILE).read_to_end(&mut text))
            .map_err(|source| CookieError::Unreadable { file: file.to_owned(), source })?;
        ErlangCookie::parse(&text).ok_or_else(|| CookieError::Malformed(file.display().to_string()))
    }

    /// The digest with which nodes prove that they know the cookie.
    #[must_use]
    pub fn digest(&self, challenge: u32) -> [u8; 16] {
        let mut digest = Md5::new();
        digest.update(&self.0);
        digest.update(challenge.to_string().as_bytes());
        digest.finalize().into()
    }
}

/// Finds the caller's cookie: in `file`, if there is one; in the variable of Elixir releases; in the user's own file.
///
/// # Errors
///
/// If `file` or the variable has no usable cookie.
pub fn find(
    file: Option<&Path>,
    variable: impl Fn(&str) -> Option<OsString>,
) -> Result<CallersCookie, CookieError> {
    if let Some(file) = file {
        let from = file.display().to_string();
        return Ok(CallersCookie::Found { cookie: ErlangCookie::read(file)?, from });
    }
    let set = |name: &str| variable(name).filter(|value| !value.is_empty());
    if let Some(value) = set(VARIABLE) {
        let cookie = ErlangCookie::parse(&value.into_vec());
        let cookie = cookie.ok_or_else(|| CookieError::Malformed(VARIABLE.to_owned()))?;
        return Ok(CallersCookie::Found { cookie, from: VARIABLE.to_owned() });
    }
    let Some(home) = set("HOME").map(PathBuf::from) else {
        return Ok(CallersCookie::None("HOME is not set, so there is no Erlang cookie".to_owned()));
    };
    let config = set("XDG_CONFIG_HOME").map_or_else(|| home.join(".config"), PathBuf::from);
    let first = home.join(FILE);
    for file in [&first, &config.join(FOLDER).join(FILE)] {
        match ErlangCookie::read(file) {
            Ok(cookie) => return Ok(CallersCookie::Found { cookie, from: file.display().to_string() }),
            Err(CookieError::Unreadable { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Ok(CallersCookie::None(error.to_string())),
        }
    }
    Ok(CallersCookie::None(format!("no Erlang cookie found at {}", first.display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_has_one_line() {
        let parse = |text: &[u8]| ErlangCookie::parse(text).map(|cookie| cookie.0);
        assert_eq!(parse(b"KEKS DOSE\r\n").as_deref(), Some(&b"KEKS DOSE"[..]));
        assert_eq!(parse(b"KEKS").as_deref(), Some(&b"KEKS"[..]));
        for not in [&b""[..], b"\n", b"KEKS\nDOSE", b"KEKS\xff", &[b'K'; 256]] {
            assert_eq!(parse(not), None, "{not:?}");
        }
        let cookie = ErlangCookie::parse(b"KEKS").expect("a cookie");
        assert!(!format!("{cookie:?}").contains("KEKS"));
    }

    /// From Erlang: `erlang:md5("KEKSDOSE" ++ "12345")`.
    #[test]
    fn digests_are_those_of_erlang() {
        let digest = ErlangCookie(b"KEKSDOSE".to_vec()).digest(12_345);
        assert_eq!(data_encoding::HEXLOWER.encode(&digest), "cc46944ffdab72cc43d4decfd2b9f1fc");
    }

    #[test]
    fn the_file_that_was_named_is_used_first_and_then_the_variable() {
        let home = tempfile::tempdir().expect("a folder");
        let write = |name: &str, text: &str| {
            let file = home.path().join(name);
            std::fs::create_dir_all(file.parent().expect("a folder")).expect("a folder");
            std::fs::write(&file, text).expect("a file");
            file
        };
        let found = |file: Option<&Path>, release: Option<&str>| {
            find(file, |name| match name {
                "HOME" => Some(home.path().into()),
                VARIABLE => release.map(OsString::from),
                _ => None,
            })
        };
        let cookie = |found: Result<CallersCookie, CookieError>| match found.expect("no error") {
            CallersCookie::Found { cookie, .. } => Some(String::from_utf8_lossy(&cookie.0).into_owned()),
            CallersCookie::None(_) => None,
        };
        let CallersCookie::None(why) = found(None, None).expect("no error") else { panic!("a cookie") };
        assert_eq!(why, format!("no Erlang cookie found at {}", home.path().join(FILE).display()));
        write(".config/erlang/.erlang.cookie", "C");
        assert_eq!(cookie(found(None, None)).as_deref(), Some("C"));
        write(FILE, "H\n");
        assert_eq!(cookie(found(None, None)).as_deref(), Some("H"));
        assert_eq!(cookie(found(None, Some("R"))).as_deref(), Some("R"));
        let file = write("mine", "M");
        assert_eq!(cookie(found(Some(&file), Some("R"))).as_deref(), Some("M"));
        assert!(found(Some(&home.path().join("absent")), None).is_err());
        write(FILE, "two\nlines");
        assert_eq!(cookie(found(None, None)), None);
    }
}
