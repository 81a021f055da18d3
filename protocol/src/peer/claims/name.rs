//! The name of a claim.

use std::fmt;
use std::str::FromStr;

use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::limits::MAX_CLAIM_NAME;

/// The name of a claim: unambiguous in a line of text and in a URL path.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct ClaimName(Box<str>);

/// The reason why text is not the name of a claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ClaimNameError {
    /// It is empty.
    #[error("the name of a claim is empty")]
    Empty,
    /// It is longer than [`MAX_CLAIM_NAME`].
    #[error("the name of a claim is longer than {MAX_CLAIM_NAME} bytes")]
    TooLong,
    /// It contains something else than letters, digits and some signs.
    #[error("the name of a claim must not contain {0:?}")]
    Character(char),
}

impl ClaimName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for ClaimName {
    type Err = ClaimNameError;

    fn from_str(s: &str) -> Result<Self, Self::Err> {
        if s.is_empty() {
            return Err(ClaimNameError::Empty);
        }
        if s.len() > MAX_CLAIM_NAME {
            return Err(ClaimNameError::TooLong);
        }
        let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
        match s.chars().find(|c| !allowed(*c)) {
            Some(c) => Err(ClaimNameError::Character(c)),
            None => Ok(Self(s.into())),
        }
    }
}

impl<'de> Deserialize<'de> for ClaimName {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <&str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

impl fmt::Debug for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl fmt::Display for ClaimName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_short_and_plain() {
        assert!("jobs:eu-1_a.b".parse::<ClaimName>().is_ok());
        assert_eq!("".parse::<ClaimName>(), Err(ClaimNameError::Empty));
        assert_eq!("a/b".parse::<ClaimName>(), Err(ClaimNameError::Character('/')));
        assert_eq!("é".parse::<ClaimName>(), Err(ClaimNameError::Character('é')));
        assert!("x".repeat(MAX_CLAIM_NAME).parse::<ClaimName>().is_ok());
        assert_eq!("x".repeat(MAX_CLAIM_NAME + 1).parse::<ClaimName>(), Err(ClaimNameError::TooLong));
    }
}
