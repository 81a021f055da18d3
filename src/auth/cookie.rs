//! The cluster secret: its file, and the keys derived from it.
//!
//! The file has one secret per line, at most two. Both are accepted, so a secret can be changed without an interval in
//! which daemons reject each other. Empty lines and lines that begin with `#` are ignored. An Erlang cookie file is
//! also valid.
//!
//! Whoever records a beacon, or makes a daemon dial it, has a MAC against which secrets can be tried offline. A
//! generated secret cannot be found that way. Any other might be, so its key is derived slowly: see [`CookieKey`].

use std::collections::BTreeSet;
use std::fmt;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use hmac::{Hmac, KeyInit, Mac};
use pmd_protocol::peer::NodeId;
use rand::TryRng;
use rand::rngs::SysRng;
use scrypt::scrypt;
use sha2::Sha256;

use crate::base::files;
use crate::base::files::{Reader, SecretError, make_private_folder};

/// Minimum length of a secret in bytes. Erlang generates cookies of 20 letters; a shorter one was typed by hand and
/// could be guessed offline from a recorded proof.
pub const MIN_COOKIE: usize = 16;
/// Maximum length of a secret in bytes: that of an Erlang atom.
pub const MAX_COOKIE: usize = 255;
/// Maximum number of secrets in one file: the current one, and the next or the previous one.
pub const MAX_COOKIES: usize = 2;
/// The name of Erlang's own cookie file.
const ERLANG: &str = ".erlang.cookie";
/// Maximum number of bytes read from a file: two secrets and comments.
const MAX_FILE: u64 = 16 * 1024;
/// Random bytes in a generated secret: 256 bits.
const RANDOM: usize = 32;
/// The salt of the slow derivation. It is the same in all clusters, because daemons must derive equal keys from nothing
/// but the secret; it only keeps tables made for other programs from being of use.
const SALT: &[u8] = b"pmd cookie 2";

/// A key derived from a cluster secret. It is never printed, and used only to compute MACs.
///
/// A generated secret has 256 bits, which nobody can guess; its key is one HMAC. The key of any other secret is derived
/// with scrypt, so that each guess costs about 100 ms and 32 MiB instead of less than a microsecond.
#[derive(Clone, PartialEq, Eq)]
pub struct CookieKey([u8; 32]);

impl CookieKey {
    /// Derives the key of a secret, which takes long on purpose unless the secret is a generated one.
    #[must_use]
    pub fn new(cookie: &str) -> CookieKey {
        if is_generated(cookie) {
            let mut mac = keyed(b"pmd cookie 1");
            mac.update(cookie.as_bytes());
            return CookieKey(mac.finalize().into_bytes().into());
        }
        let mut key = [0; 32];
        // This fails only for a key without bytes.
        let derived = scrypt(cookie.as_bytes(), SALT, &slow(), &mut key);
        debug_assert!(derived.is_ok(), "{derived:?}");
        CookieKey(key)
    }

    /// Computes the MAC of `parts`, in order and with their lengths. A MAC made for one `purpose` is invalid for any
    /// other.
    #[must_use]
    pub fn sign(&self, purpose: &str, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(purpose, parts).finalize().into_bytes().into()
    }

    /// Whether `tag` is the result of [`sign`](Self::sign), compared in constant time.
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

/// HMAC with a key of at most 64 bytes, which is padded with zeros (RFC 2104, section 2).
fn keyed<const LENGTH: usize>(key: &[u8; LENGTH]) -> Hmac<Sha256> {
    const { assert!(LENGTH <= 64, "a longer key would have to be hashed") };
    let mut block = [0; 64];
    block.iter_mut().zip(key).for_each(|(to, byte)| *to = *byte);
    Hmac::<Sha256>::new(&block.into())
}

/// The cost of the slow derivation: N = 2^15, r = 8, p = 1, twice what scrypt's author recommends for logins. Its memory,
/// 128 * N * r bytes = 32 MiB, is what makes guessing on many cores or graphics cards dear. A daemon needs it for about
/// 100 ms at its start and per reload, which small hosts can spare as well. All daemons must use the same values.
fn slow() -> scrypt::Params {
    scrypt::Params::new(15, 8, 1).unwrap_or_default()
}

/// Whether the secret looks like one of [`random_cookie`], which cannot be guessed. Only its form can be checked: exactly
/// 64 hexadecimal digits, as `openssl rand -hex 32` prints as well.
#[must_use]
pub fn is_generated(secret: &str) -> bool {
    secret.len() == 2 * RANDOM && secret.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// The cluster secrets of one file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cookies {
    keys: Vec<CookieKey>,
    /// Whether the current secret is not a generated one.
    guessable: bool,
}

/// Which secrets count during and after a rotation over links, besides the current one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new secret. If the current one differs, an administrator has changed it by hand in the meantime, and the
    /// transition no longer applies.
    pub new: CookieKey,
    /// The secret that was replaced.
    pub old: CookieKey,
    /// The members that may still prove it.
    pub late: BTreeSet<NodeId>,
    /// The secrets that were replaced before that, and the members that may still prove them.
    pub former: Vec<(CookieKey, BTreeSet<NodeId>)>,
}

impl Transition {
    /// The keys that this peer may prove, and that it may be shown a proof of, the current one first.
    pub fn keys<'a>(
        this: Option<&'a Transition>,
        cookies: &'a Cookies,
        peer: &NodeId,
    ) -> impl Iterator<Item = &'a CookieKey> + use<'a> {
        let this = this.filter(|transition| cookies.keys.first() == Some(&transition.new));
        let replaced = this.into_iter().flat_map(|transition| {
            let former = transition.former.iter().map(|(key, late)| (key, late));
            std::iter::once((&transition.old, &transition.late)).chain(former)
        });
        let peer = *peer;
        let proven_late = replaced.filter(move |(_, late)| late.contains(&peer)).map(|(key, _)| key);
        // Without a transition, a second secret in the file is one that an administrator has put there for everybody.
        let count = if this.is_some() { 1 } else { MAX_COOKIES };
        cookies.keys.iter().take(count).chain(proven_late)
    }
}

/// Why a cookie file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CookieError {
    /// The file cannot be read.
    #[error("cannot read the cookie file {}: {source}", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file cannot be created.
    #[error("cannot create the cookie file {}: {source}", .path.display())]
    Make {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The file is readable by other users.
    #[error("the cookie file {} is readable by other users (mode {mode:04o})", .path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// The file belongs to another user.
    #[error("the cookie file {} belongs to another user (uid {owner})", .path.display())]
    Foreign {
        /// The file.
        path: PathBuf,
        /// The user's number.
        owner: u32,
    },
    /// The file contains no secret, too many, or one that is too short or too long.
    #[error("the cookie file {} {problem}", .path.display())]
    Content {
        /// The file.
        path: PathBuf,
        /// The problem, which completes the sentence.
        problem: String,
    },
}

impl CookieError {
    /// How to fix the error.
    pub fn hint(&self) -> String {
        match self {
            CookieError::Read { .. } => {
                "run pmd as the user who owns the file, or set cookie_file to another file".to_owned()
            }
            CookieError::Make { path, .. } => {
                format!("make its directory writable, or write a cluster secret to {} yourself", path.display())
            }
            CookieError::Exposed { path, .. } => format!("chmod 600 {}", path.display()),
            CookieError::Foreign { path, owner } => files::foreign_hint(path, *owner),
            CookieError::Content { .. } => {
                "the file must hold one secret of 16 to 255 characters; pmd cookie rotate generates a good one"
                    .to_owned()
            }
        }
    }
}

impl Cookies {
    /// Reads the file at `path` and derives the keys. Blocks for the time of the slow derivation.
    ///
    /// # Errors
    ///
    /// If the file does not exist, is readable by users other than its owner, belongs to a user who is neither that of
    /// this process nor root, or contains no valid secret.
    pub fn read(path: &Path) -> Result<Cookies, CookieError> {
        Ok(Cookies::new(read_as(path, Reader::Daemon)?.iter().map(String::as_str)))
    }

    fn new<'a>(secrets: impl Iterator<Item = &'a str> + Clone) -> Cookies {
        let guessable = secrets.clone().next().is_some_and(|current| !is_generated(current));
        Cookies { keys: secrets.map(CookieKey::new).collect(), guessable }
    }

    /// Reads the file at `path`, creating it with a random secret if it does not exist. Also returns whether it was
    /// created.
    ///
    /// # Errors
    ///
    /// See [`read`](Self::read).
    pub fn read_or_make(path: &Path) -> Result<(Cookies, bool), CookieError> {
        match Cookies::read(path) {
            Err(CookieError::Read { source, .. }) if source.kind() == ErrorKind::NotFound => {
                let made = make(path)?;
                Ok((Cookies::read(path)?, made))
            }
            read => Ok((read?, false)),
        }
    }

    /// Parses secrets from text, one per line; for tests and for programs that store them elsewhere.
    #[must_use]
    pub fn of_text(cookies: &str) -> Cookies {
        Cookies::new(cookies.lines())
    }

    /// Whether the current secret is not a generated one, so that a recorded beacon lets others try to guess it.
    #[must_use]
    pub fn is_guessable(&self) -> bool {
        self.guessable
    }

    /// The key for this daemon's own proofs: that of the first secret.
    #[must_use]
    pub fn current(&self) -> Option<&CookieKey> {
        self.keys.first()
    }

    /// All accepted keys, the current one first.
    pub fn keys(&self) -> impl Iterator<Item = &CookieKey> {
        self.keys.iter()
    }
}

/// Reads the secrets in the file at `path`, the current one first, for a command: root may read those of any user.
///
/// # Errors
///
/// See [`Cookies::read`].
pub fn read_secrets(path: &Path) -> Result<Vec<String>, CookieError> {
    read_as(path, Reader::Command)
}

fn read_as(path: &Path, reader: Reader) -> Result<Vec<String>, CookieError> {
    let text = files::read_secret(path, MAX_FILE, reader).map_err(|error| match error {
        SecretError::Read(source) => CookieError::Read { path: path.into(), source },
        SecretError::Exposed(mode) => CookieError::Exposed { path: path.into(), mode },
        SecretError::Foreign(owner) => CookieError::Foreign { path: path.into(), owner },
    })?;
    let secrets: Vec<String> = text
        .lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect();
    let problem = match secrets.as_slice() {
        [] => Some("contains no cluster secret".to_owned()),
        all if all.len() > MAX_COOKIES => Some(format!("contains more than {MAX_COOKIES} cluster secrets")),
        all if all.iter().any(|secret| secret.len() < MIN_COOKIE) => {
            Some(format!("contains a secret of fewer than {MIN_COOKIE} characters, which can be guessed"))
        }
        all if all.iter().any(|secret| secret.len() > MAX_COOKIE) => {
            Some(format!("contains a secret of more than {MAX_COOKIE} characters"))
        }
        _ => None,
    };
    match problem {
        Some(problem) => Err(CookieError::Content { path: path.into(), problem }),
        None => Ok(secrets),
    }
}

/// Whether this is Erlang's own cookie file, which can hold only one cookie and which pmd must not change.
#[must_use]
pub fn is_erlang(path: &Path) -> bool {
    path.file_name().is_some_and(|name| name == ERLANG)
}

/// Atomically replaces the content of the file at `path` with `cookies`, and keeps its owner. If the path is a symbolic
/// link, its target is replaced.
///
/// # Errors
///
/// If the file cannot be written; it is unchanged then.
pub fn replace(path: &Path, cookies: &[String]) -> Result<(), CookieError> {
    let text: String = cookies.iter().map(|cookie| format!("{cookie}\n")).collect();
    let target = path.canonicalize();
    let path = target.as_deref().unwrap_or(path);
    files::replace_for_its_owner(path, &text, files::SECRET).map_err(|source| make_error(path, source))
}

/// Generates a random secret of 64 hexadecimal digits.
///
/// # Errors
///
/// If the system's random number generator fails.
pub fn random_cookie() -> io::Result<String> {
    let mut bytes = [0; RANDOM];
    SysRng.try_fill_bytes(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Creates the file with a random secret, unless it exists. Returns whether this call created it.
///
/// # Errors
///
/// If the file cannot be created.
pub fn make(path: &Path) -> Result<bool, CookieError> {
    let cookie = random_cookie().map_err(|source| make_error(path, source))?;
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
    fn a_cookie_is_created_once_and_readable_only_by_its_owner() {
        let folder = TempDir::new().expect("a folder");
        let path = folder.path().join("home/cookie");
        let (first, made) = Cookies::read_or_make(&path).expect("a cookie");
        assert!(made);
        assert_eq!(std::fs::metadata(&path).expect("a file").mode() & 0o777, 0o600);
        assert_eq!(Cookies::read_or_make(&path).expect("a cookie"), (first, false));
        assert_eq!(read_secrets(&path).expect("a cookie")[0].len(), 64);
    }

    #[test]
    fn a_file_readable_by_others_is_rejected() {
        for mode in [0o640, 0o604, 0o660] {
            let (_folder, path) = file("ABCDEFGHIJKLMNOPQRST", mode);
            assert!(matches!(Cookies::read(&path), Err(CookieError::Exposed { .. })), "{mode:o}");
        }
        // The mode of Erlang's own cookie file.
        let (_folder, path) = file("ABCDEFGHIJKLMNOPQRST", 0o400);
        assert!(Cookies::read(&path).is_ok());
    }

    #[test]
    fn a_file_of_another_user_is_rejected() {
        if !rustix::process::geteuid().is_root() {
            return;
        }
        let (_folder, path) = file("ABCDEFGHIJKLMNOPQRST", 0o600);
        std::os::unix::fs::chown(&path, Some(4242), None).expect("root may");
        let error = Cookies::read(&path).expect_err("its owner knows it");
        assert!(matches!(error, CookieError::Foreign { owner: 4242, .. }), "{error}");
        assert!(error.hint().contains(&format!("chown 0 {}", path.display())), "{}", error.hint());
        // Root may still rotate it for its owner.
        replace(&path, &["another-cookie-of-mine".into()]).expect("root may");
        assert_eq!(read_secrets(&path).expect("root may"), ["another-cookie-of-mine"]);
        assert_eq!(std::fs::metadata(&path).expect("a file").uid(), 4242);
    }

    #[test]
    fn short_long_missing_and_too_many_cookies_are_rejected() {
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
    fn only_a_generated_secret_has_a_fast_key() {
        let generated = random_cookie().expect("random bytes");
        let hmac = |secret: &str| {
            let mut mac = keyed(b"pmd cookie 1");
            mac.update(secret.as_bytes());
            CookieKey(mac.finalize().into_bytes().into())
        };
        for fast in [generated.clone(), "0123456789abcdefABCDEF".repeat(3)[..64].to_owned()] {
            assert!(is_generated(&fast) && CookieKey::new(&fast) == hmac(&fast), "{fast}");
        }
        for slow in ["ABCDEFGHIJKLMNOPQRST", &generated[1..], &format!("{generated}0"), &"g".repeat(64)] {
            assert!(!is_generated(slow) && CookieKey::new(slow) != hmac(slow), "{slow}");
        }
        // The parameters are part of the protocol: another key would split the cluster. From Python's
        // hashlib.scrypt(b"ABCDEFGHIJKLMNOPQRST", salt=b"pmd cookie 2", n=2**15, r=8, p=1, maxmem=2**26, dklen=32).
        let hex: String =
            CookieKey::new("ABCDEFGHIJKLMNOPQRST").0.iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(hex, "34c607ed4ffb5c8cfbd93db38b6ee67225c74a1414c301ff24e8aa49fa23369c");
        // The current secret decides, which makes this daemon's beacons.
        let weak = "ABCDEFGHIJKLMNOPQRST";
        let guessable = |text: &str| Cookies::of_text(text).is_guessable();
        assert!(guessable(weak) && guessable(&format!("{weak}\n{generated}")));
        assert!(!guessable(&generated) && !guessable(&format!("{generated}\n{weak}")));
    }

    #[test]
    fn a_mac_depends_on_key_purpose_and_parts() {
        let (one, two) = (CookieKey::new(&"1".repeat(64)), CookieKey::new(&"2".repeat(64)));
        let tag = one.sign("link", &[b"ab", b"c"]);
        assert!(one.verify("link", &[b"ab", b"c"], &tag));
        assert!(!two.verify("link", &[b"ab", b"c"], &tag));
        assert!(!one.verify("beacon", &[b"ab", b"c"], &tag));
        assert!(!one.verify("link", &[b"a", b"bc"], &tag));
        assert_eq!(format!("{one:?}"), "CookieKey");
    }
}
