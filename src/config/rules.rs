//! Rules for tunnels, as written in the configuration file. [`tunnel`](crate::tunnel) matches them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::value::Value;

/// Maximum length of a pattern in bytes: twice that of the longest name.
const MAX_PATTERN: usize = 512;

/// A case-insensitive pattern in which `*` matches any characters and `?` exactly one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern(String);

/// The error for text that is not a [`Pattern`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a pattern has 1 to {MAX_PATTERN} bytes; * matches any characters and ? exactly one")]
pub struct NotAPattern;

impl Pattern {
    /// The pattern that matches everything.
    #[must_use]
    pub fn any() -> Pattern {
        Pattern("*".to_owned())
    }

    /// The pattern, in lower case.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Pattern {
    type Err = NotAPattern;

    fn from_str(text: &str) -> Result<Pattern, NotAPattern> {
        if text.is_empty() || text.len() > MAX_PATTERN {
            return Err(NotAPattern);
        }
        Ok(Pattern(text.to_lowercase()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for Pattern {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Pattern, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl Serialize for Pattern {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

/// Whether a host is reached through tunnels.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mode {
    /// Always: its name resolves to its alias.
    #[default]
    Always,
    /// Only if its nodes cannot be reached at the address to which its name resolves without pmd.
    WhenNeeded,
    /// Never: its name resolves as without pmd.
    Never,
}

impl Value for Mode {
    fn kind() -> String {
        "`\"always\"`, `\"when-needed\"` or `\"never\"`".to_owned()
    }
}

/// The mode for the hosts that match a pattern.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct TunnelRule {
    /// The hosts, by their full or short names.
    pub host: Pattern,
    /// Whether they are reached through tunnels.
    pub mode: Mode,
}

impl Value for Vec<TunnelRule> {
    fn kind() -> String {
        "tables".to_owned()
    }
}

/// Allows some hosts to reach some names on this host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct AllowRule {
    /// The hosts, by their full or short names.
    #[serde(default = "Pattern::any")]
    pub host: Pattern,
    /// The names of the nodes and services that they may reach.
    #[serde(default = "Pattern::any")]
    pub name: Pattern,
}

impl Value for Vec<AllowRule> {
    fn kind() -> String {
        "tables".to_owned()
    }
}

impl fmt::Display for AllowRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "host = \"{}\" name = \"{}\"", self.host, self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_length_of_a_pattern_is_limited() {
        assert_eq!("Web*".parse::<Pattern>().map(|pattern| pattern.to_string()), Ok("web*".to_owned()));
        for wrong in ["", &"x".repeat(MAX_PATTERN + 1)] {
            assert_eq!(wrong.parse::<Pattern>(), Err(NotAPattern));
        }
    }
}
