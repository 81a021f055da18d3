//! The cluster's shared secret: its file, and the keys made from it.
//!
//! The file has one cookie to a line, at most two: both are accepted, which is how a cookie is changed without a moment
//! in which daemons do not understand each other. Lines that are empty or begin with `#` do not count. Erlang's own
//! cookie file is a valid one.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use rand::TryRng;
use rand::rngs::SysRng;
use sha2::Sha256;

use crate::base::files;
use crate::base::files::SecretError;
use crate::base::files::make_private_folder;

/// Shortest cookie, in bytes. Erlang makes ones of 20 letters; what is shorter was made by hand, and can be guessed from
/// one recorded proof.
pub const MIN_COOKIE: usize = 16;
/// Longest cookie, in bytes: that of an Erlang atom.
pub const MAX_COOKIE: usize = 255;
/// Cookies in one file: the present one and the next, or the last.
pub const MAX_COOKIES: usize = 2;
/// Most that is read of a file: two cookies and comments that somebody needs.
const MAX_FILE: u64 = 16 * 1024;
/// Random bytes of a cookie that pmd makes: 256 bits.
const RANDOM: usize = 32;

/// A key made from a cookie. It is never shown and never compared but as part of a MAC.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieKey([u8; 32]);

impl CookieKey {
    fn new(cookie: &[u8]) -> CookieKey {
        let mut mac = keyed(b"pmd cookie 1");
        mac.update(cookie);
        CookieKey(mac.finalize().into_bytes().into())
    }

    /// The MAC of `parts`, in this order and with their lengths, for one `purpose`: what is made for one says nothing to
    /// another.
    #[must_use]
    pub fn sign(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(purpose, parts).finalize().into_bytes().into()
    }

    /// Whether `tag` is what [`sign`](Self::sign) gives; takes the same time wherever it differs.
    #[must_use]
    pub fn verify(&self, purpose: &str, parts: &[&[u8]], tag: &[u8; 32]) -> bool {
        self.mac(purpose, parts).verify_slice(tag).is_ok()
    }

    fn mac(&self, purpose: &str, parts: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = keyed(&self.0);
        for part in [purpose.as_bytes()].iter().chain(parts) {
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part);
        }
        mac
    }
}

impl fmt::Debug for CookieKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("CookieKey")
    }
}

/// HMAC with a key of at most 64 bytes, which is the same as with that key and zeros behind it (RFC 2104, section 2).
fn keyed<const LENGTH: usize>(key: &[u8; LENGTH]) -> Hmac<Sha256> {
    const { assert!(LENGTH <= 64, "a longer key would have to be hashed") };
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(place, byte)| *place = *byte);
    Hmac::<Sha256>::new(&block.into())
}

/// The cookies of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookies {
    keys: Vec<CookieKey>,
}

/// Why there is no cookie.
#[derive(Debug, thiserror::Error)]
pub enum CookieError {
    /// The system refused something.
    #[error("cannot read the cookie file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// It could not be made.
    #[error("cannot make the cookie file {}: {source}", .path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// Others may read it.
    #[error("the cookie file {} can be read by others (mode {mode:04o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// There is none in it, or one that is too short or too long, or there are too many.
    #[error("the cookie file {} {problem}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

impl CookieError {
    /// What to do about it.
    pub fn hint(&self) -> String {
        match self {
            CookieError::Read { .. } => {
                "run pmd as the user who owns the file, or name another one with cookie_file".to_owned()
            }
            CookieError::Make { path, .. } => {
                format!("make its directory writable, or put a cookie into {} yourself", path.display())
            }
            CookieError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            CookieError::Content { .. } => {
                "put one cookie of 16 to 255 characters on its only line; pmd cookie rotate makes a good one"
                    .to_owned()
            }
        }
    }
}

impl Cookies {
    /// Reads the file at `path`.
    ///
    /// # Errors
    ///
    /// If it is not there, if others than its owner may read it, or if what is in it is no cookie.
    pub fn read(path: &Path) -> Result<Cookies, CookieError> {
        let secrets = read_secrets(path)?;
        Ok(Cookies { keys: secrets.iter().map(|secret| CookieKey::new(secret.as_bytes())).collect() })
    }

    /// Reads the file at `path`; makes it, with a random cookie, if it is not there. Whether it was made.
    ///
    /// # Errors
    ///
    /// See [`read`](Self::read).
    pub fn read_or_make(path: &Path) -> Result<(Cookies, bool), CookieError> {
        match Cookies::read(path) {
            Err(CookieError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                let made = make(path, &random_cookie().map_err(|source| make_error(path, source))?)?;
                Ok((Cookies::read(path)?, made))
            }
            read => Ok((read?, false)),
        }
    }

    /// Cookies as text, each on a line; for tests and for programs that keep them elsewhere.
    #[must_use]
    pub fn of_text(cookies: &str) -> Cookies {
        Cookies { keys: cookies.lines().map(|cookie| CookieKey::new(cookie.as_bytes())).collect() }
    }

    /// The key to prove with: that of the first cookie.
    #[must_use]
    pub fn current(&self) -> Option<&CookieKey> {
        self.keys.first()
    }

    /// All keys that are accepted, the current one first.
    pub fn keys(&self) -> impl Iterator<Item = &CookieKey> {
        self.keys.iter()
    }
}

/// The cookies in the file at `path`, the current one first.
///
/// # Errors
///
/// See [`Cookies::read`].
pub fn read_secrets(path: &Path) -> Result<Vec<String>, CookieError> {
    let text = files::read_secret(path, MAX_FILE).map_err(|error| match error {
        SecretError::Read(source) => CookieError::Read { path: path.into(), source },
        SecretError::Exposed(mode) => CookieError::Exposed { path: path.into(), mode },
    })?;
    let secrets: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let problem = match secrets.as_slice() {
        [] => Some("has no cookie in it".to_owned()),
        all if all.len() > MAX_COOKIES => Some(format!("has more than {MAX_COOKIES} cookies in it")),
        all if all.iter().any(|secret| secret.len() < MIN_COOKIE) => {
            Some(format!("has a cookie of fewer than {MIN_COOKIE} characters, which can be guessed"))
        }
        all if all.iter().any(|secret| secret.len() > MAX_COOKIE) => {
            Some(format!("has a cookie of more than {MAX_COOKIE} characters"))
        }
        _ => None,
    };
    match problem {
        Some(problem) => Err(CookieError::Content { path: path.into(), problem }),
        None => Ok(secrets),
    }
}

/// Puts `cookies` into the file at `path`, in the place of what was there; readers see the old or the new file, whole.
///
/// # Errors
///
/// If the system refuses it; the old file is there then.
pub fn replace(path: &Path, cookies: &[String]) -> Result<(), CookieError> {
    let text: String = cookies.iter().map(|cookie| format!("{cookie}\n")).collect();
    files::replace(path, &text, files::SECRET).map_err(|source| make_error(path, source))
}

/// A cookie that nobody can guess: 64 hexadecimal digits.
///
/// # Errors
///
/// If the system has no randomness.
pub fn random_cookie() -> io::Result<String> {
    let mut bytes = [0; RANDOM];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Makes the file, unless somebody else has just done so. Whether it was made.
fn make(path: &Path, cookie: &str) -> Result<bool, CookieError> {
    let made = path.parent().map_or(Ok(()), make_private_folder);
    let made = made.and_then(|()| files::make_once(path, &format!("{cookie}\n"), files::SECRET));
    made.map_err(|source| make_error(path, source))
}

fn make_error(path: &Path, source: io::Error) -> CookieError {
    CookieError::Make { path: path.into(), source }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use tempfile::TempDir;

    use super::*;

    fn file(text: &str, mode: u32) -> (TempDir, PathBuf) {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("cookie");
        std::fs::write(&path, text).expect("a file");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("its mode");
        (folder, path)
    }

    #[test]
    fn a_cookie_is_made_once_and_for_its_owner_alone() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("home/cookie");
        let (first, made) = Cookies::read_or_make(&path).expect("a cookie");
        assert!(made);
        assert_eq!(std::fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
        assert_eq!(Cookies::read_or_make(&path).expect("a cookie"), (first, false));
        assert_eq!(read_secrets(&path).expect("a cookie")[0].len(), 64);
    }

    #[test]
    fn what_others_can_read_is_no_secret() {
        for mode in [0o640, 0o604, 0o660] {
            let (_folder, path) = file("ABCDEFGHIJKLMNOPQRST", mode);
            assert!(matches!(Cookies::read(&path), Err(CookieError::Exposed { .. })), "{mode:o}");
        }
        // Erlang makes its file with this mode.
        let (_folder, path) = file("ABCDEFGHIJKLMNOPQRST", 0o400);
        assert!(Cookies::read(&path).is_ok());
    }

    #[test]
    fn short_long_missing_and_too_many_cookies_are_refused() {
        let long = "x".repeat(MAX_COOKIE + 1);
        let three = "0123456789abcdef\n".repeat(3);
        for text in ["", "# nothing\n\n", "secret", long.as_str(), three.as_str()] {
            let (_folder, path) = file(text, 0o600);
            assert!(matches!(Cookies::read(&path), Err(CookieError::Content { .. })), "{text:?}");
        }
    }

    #[test]
    fn two_cookies_are_two_keys() {
        let (_folder, path) = file("# old and new\nnew-cookie-new-cookie\n\nold-cookie-old-cookie\n", 0o600);
        let cookies = Cookies::read(&path).expect("two cookies");
        assert_eq!(cookies.keys().count(), 2);
        assert_eq!(cookies.current(), Cookies::of_text("new-cookie-new-cookie").current());
        replace(&path, &["another-cookie-of-mine".into()]).expect("it is ours");
        assert_eq!(Cookies::read(&path).expect("one cookie"), Cookies::of_text("another-cookie-of-mine"));
        assert_eq!(std::fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
    }

    #[test]
    fn a_mac_is_of_its_key_its_purpose_and_its_parts() {
        let (one, two) = (CookieKey::new(b"one"), CookieKey::new(b"two"));
        let tag = one.sign("link", &[b"ab", b"c"]);
        assert!(one.verify("link", &[b"ab", b"c"], &tag));
        assert!(!two.verify("link", &[b"ab", b"c"], &tag));
        assert!(!one.verify("beacon", &[b"ab", b"c"], &tag));
        assert!(!one.verify("link", &[b"a", b"bc"], &tag));
        assert_eq!(format!("{one:?}"), "CookieKey");
    }
}
