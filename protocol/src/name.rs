//! Names of nodes, services and hosts. Every value of these types has been validated.

use std::borrow::Borrow;
use std::fmt;
use std::str::FromStr;

use crate::limits::{MAX_HOST_NAME, MAX_NAME_BYTES, MAX_NAME_CHARS, MAX_SERVICE_NAME_BYTES};

/// The name of an Erlang node as epmd knows it: the part before the `@`.
///
/// EPMD Protocol, "Register a Node in EPMD". Names are compared byte by byte, without case folding or normalisation.
/// Almost anything is a valid name (control characters, spaces, `@`, even the empty string), because stock epmd accepts
/// it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeName(Box<str>);

/// The reason why bytes cannot be registered as a name, in the order of stock epmd's checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NodeNameError {
    /// It contains a NUL byte, which ends names in stock epmd's memory.
    #[error("node name contains a NUL byte")]
    Nul,
    /// It is longer than [`MAX_NAME_BYTES`].
    #[error("node name is longer than {MAX_NAME_BYTES} bytes")]
    TooManyBytes,
    /// It is not UTF-8 in the sense of [`std::str::from_utf8`].
    #[error("node name is not valid UTF-8")]
    NotUtf8,
    /// It has more than [`MAX_NAME_CHARS`] characters.
    #[error("node name is longer than {MAX_NAME_CHARS} characters")]
    TooManyChars,
}

impl NodeName {
    /// Checks the name field of an ALIVE2_REQ.
    ///
    /// # Errors
    ///
    /// If a server would not register it.
    pub fn parse_registered(bytes: &[u8]) -> Result<Self, NodeNameError> {
        check_registered(bytes).map(Self::from_checked)
    }

    /// Wraps a name that has passed [`check_registered`] or the stricter check of a lookup.
    pub(crate) fn from_checked(name: &str) -> Self {
        Self(name.into())
    }

    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The rules of [`NodeName`] on borrowed bytes.
pub(crate) fn check_registered(bytes: &[u8]) -> Result<&str, NodeNameError> {
    if bytes.contains(&0) {
        return Err(NodeNameError::Nul);
    }
    if bytes.len() > MAX_NAME_BYTES {
        return Err(NodeNameError::TooManyBytes);
    }
    let name = std::str::from_utf8(bytes).map_err(|_| NodeNameError::NotUtf8)?;
    if longer_than(name, MAX_NAME_CHARS) {
        return Err(NodeNameError::TooManyChars);
    }
    Ok(name)
}

/// Whether `name` has more than `limit` characters. They are only counted if the length in bytes does not settle it, as
/// it does for all common names.
pub(crate) fn longer_than(name: &str, limit: usize) -> bool {
    name.len() > limit && name.chars().count() > limit
}

impl AsRef<str> for NodeName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

/// Allows a map keyed by names to be searched with a name borrowed from a request.
impl Borrow<str> for NodeName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for NodeName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl FromStr for NodeName {
    type Err = NodeNameError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        Self::parse_registered(s.as_bytes())
    }
}

/// The name of a service that pmd announces (not part of EPMD).
///
/// It is stricter than [`NodeName`], because compatibility is not a concern: the name is unambiguous in a line of text,
/// in a URL path and before `@host`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ServiceName(Box<str>);

/// The reason why text is not a service name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceNameError {
    /// It is empty.
    #[error("service name is empty")]
    Empty,
    /// It is longer than [`MAX_SERVICE_NAME_BYTES`].
    #[error("service name is longer than {MAX_SERVICE_NAME_BYTES} bytes")]
    TooLong,
    /// It contains white space, a control character or `@`.
    #[error("service name must not contain {0:?}")]
    Character(char),
}

impl ServiceName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ServiceName {
    type Err = ServiceNameError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() {
            return Err(ServiceNameError::Empty);
        }
        if s.len() > MAX_SERVICE_NAME_BYTES {
            return Err(ServiceNameError::TooLong);
        }
        match s.chars().find(|c| c.is_control() || c.is_whitespace() || *c == '@') {
            Some(c) => Err(ServiceNameError::Character(c)),
            None => Ok(Self(s.into())),
        }
    }
}

impl AsRef<str> for ServiceName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl Borrow<str> for ServiceName {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ServiceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The name of a host: the part of its Erlang nodes' names after the `@`.
///
/// It need not follow DNS rules, because hosts files contain names that break them. It must only be unambiguous after
/// an `@`, in a line of text and in a URL. Names are compared as written, since Erlang does not fold case either.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostName(Box<str>);

/// The reason why text is not a host name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HostNameError {
    /// It is empty.
    #[error("host name is empty")]
    Empty,
    /// It is longer than [`MAX_HOST_NAME`].
    #[error("host name is longer than {MAX_HOST_NAME} bytes")]
    TooLong,
    /// It contains white space, a control character, one that changes the direction of text, `@` or `/`.
    #[error("host name must not contain {0:?}")]
    Character(char),
}

impl HostName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for HostName {
    type Err = HostNameError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() {
            return Err(HostNameError::Empty);
        }
        if s.len() > MAX_HOST_NAME {
            return Err(HostNameError::TooLong);
        }
        // The directional characters of Unicode would rearrange the line of a log or table that shows the name.
        let directional = |c: char| matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        match s
            .chars()
            .find(|c| c.is_control() || c.is_whitespace() || directional(*c) || matches!(c, '@' | '/'))
        {
            Some(c) => Err(HostNameError::Character(c)),
            None => Ok(Self(s.into())),
        }
    }
}

impl AsRef<str> for HostName {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}
