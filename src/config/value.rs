//! Reads values from the configuration file and from environment variables, and names their types for the reference.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fmt;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::{self, Deserializer, SeqAccess, Visitor};
use serde::{Deserialize, Serialize};

/// The type of a key's value.
pub trait Value: Sized {
    /// The name of the type in the reference.
    fn kind() -> String;

    /// Resolves relative paths against `folder`, the folder of the configuration file.
    #[must_use]
    fn in_folder(self, _folder: &Path) -> Self {
        self
    }
}

/// A value that can also be set by an environment variable.
pub trait FromVariable: Value {
    /// Parses the value of a variable.
    ///
    /// # Errors
    ///
    /// If it is invalid; the message is the reason in [`ConfigError::Environment`](super::ConfigError::Environment).
    fn from_variable(value: &OsStr) -> Result<Self, String>;
}

/// The value of a variable as text.
pub fn utf8(value: &OsStr) -> Result<&str, String> {
    value.to_str().ok_or_else(|| "it is not valid UTF-8".to_owned())
}

impl Value for bool {
    fn kind() -> String {
        "`true` or `false`".to_owned()
    }
}

impl FromVariable for bool {
    fn from_variable(value: &OsStr) -> Result<bool, String> {
        match utf8(value)?.to_ascii_lowercase().as_str() {
            "1" | "true" | "yes" | "on" => Ok(true),
            "0" | "false" | "no" | "off" => Ok(false),
            _ => Err("it must be true or false".to_owned()),
        }
    }
}

impl Value for String {
    fn kind() -> String {
        "string".to_owned()
    }
}

impl FromVariable for String {
    fn from_variable(value: &OsStr) -> Result<String, String> {
        utf8(value).map(str::to_owned)
    }
}

impl Value for Vec<String> {
    fn kind() -> String {
        "list of strings".to_owned()
    }
}

/// Separated by commas.
impl FromVariable for Vec<String> {
    fn from_variable(value: &OsStr) -> Result<Vec<String>, String> {
        let words = utf8(value)?.split(',').map(str::trim).filter(|word| !word.is_empty());
        Ok(words.map(str::to_owned).collect())
    }
}

impl Value for BTreeMap<String, String> {
    fn kind() -> String {
        "table of strings".to_owned()
    }
}

impl Value for PathBuf {
    fn kind() -> String {
        "path".to_owned()
    }

    fn in_folder(self, folder: &Path) -> PathBuf {
        folder.join(self)
    }
}

impl FromVariable for PathBuf {
    fn from_variable(value: &OsStr) -> Result<PathBuf, String> {
        Ok(value.into())
    }
}

/// IP addresses: a string or a list of strings in the file, and separated by commas or white space elsewhere.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Addresses(pub Vec<IpAddr>);

impl Value for Addresses {
    fn kind() -> String {
        "IP address or list of IP addresses".to_owned()
    }
}

impl FromVariable for Addresses {
    fn from_variable(value: &OsStr) -> Result<Addresses, String> {
        parse_addresses(utf8(value)?).map(Addresses)
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Addresses, D::Error> {
        struct OneOrMany;

        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Addresses;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an IP address or a list of IP addresses")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
                parse_addresses(text).map(Addresses).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
                let mut addresses = Vec::new();
                while let Some(text) = list.next_element::<String>()? {
                    addresses.push(parse_address(&text).map_err(de::Error::custom)?);
                }
                Ok(Addresses(addresses))
            }
        }

        deserializer.deserialize_any(OneOrMany)
    }
}

/// A duration: whole seconds in the file, and any [duration](parse_duration) elsewhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seconds(pub Duration);

impl Value for Seconds {
    fn kind() -> String {
        "number from 1".to_owned()
    }
}

impl FromVariable for Seconds {
    fn from_variable(value: &OsStr) -> Result<Seconds, String> {
        positive_duration(utf8(value)?).map(Seconds)
    }
}

impl<'de> Deserialize<'de> for Seconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Seconds, D::Error> {
        let Within::<1, { u64::MAX }>(seconds) = Within::deserialize(deserializer)?;
        Ok(Seconds(Duration::from_secs(seconds)))
    }
}

impl Serialize for Seconds {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.as_secs().serialize(serializer)
    }
}

/// A number from `LEAST` to `MOST`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Within<const LEAST: u64, const MOST: u64>(u64);

impl<const LEAST: u64, const MOST: u64> Within<LEAST, MOST> {
    /// `number`, clamped to the bounds.
    #[must_use]
    pub fn clamped(number: u64) -> Self {
        Within(number.clamp(LEAST, MOST))
    }

    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The number as a `usize`.
    #[must_use]
    pub fn count(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl<const LEAST: u64, const MOST: u64> Value for Within<LEAST, MOST> {
    fn kind() -> String {
        match MOST {
            u64::MAX => format!("number from {LEAST}"),
            _ => format!("number from {LEAST} to {MOST}"),
        }
    }
}

impl<'de, const LEAST: u64, const MOST: u64> Deserialize<'de> for Within<LEAST, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u64::deserialize(deserializer)?;
        if (LEAST..=MOST).contains(&number) {
            return Ok(Within(number));
        }
        Err(de::Error::custom(match MOST {
            u64::MAX => format!("{number}: it must be at least {LEAST}"),
            _ => format!("{number}: it must be from {LEAST} to {MOST}"),
        }))
    }
}

/// Parses addresses separated by commas or white space, as in flags and variables.
pub fn parse_addresses(text: &str) -> Result<Vec<IpAddr>, String> {
    let words = text.split([',', ' ', '\t']).filter(|word| !word.is_empty());
    words.map(parse_address).collect()
}

fn parse_address(text: &str) -> Result<IpAddr, String> {
    text.parse().map_err(|_| format!("{text:?} is not an IP address such as 127.0.0.1, 0.0.0.0 or ::1"))
}

/// Parses a duration such as `30s`, `2m 30s` or `500ms`; a bare number means seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let reason = || format!("{text:?} is not a duration such as 500ms, 30s, 2m or 1h30m");
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.parse().map(Duration::from_secs).map_err(|_| reason());
    }
    let signed: jiff::SignedDuration = text.parse().map_err(|_| reason())?;
    Duration::try_from(signed).map_err(|_| reason())
}

/// Parses a [duration](parse_duration) other than zero.
pub fn positive_duration(text: &str) -> Result<Duration, String> {
    match parse_duration(text)? {
        Duration::ZERO => Err("the duration must be longer than 0".to_owned()),
        duration => Ok(duration),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_without_a_unit_is_in_seconds() {
        for (text, milliseconds) in [("30", 30_000), ("500ms", 500), ("2m", 120_000), ("1h 30m", 5_400_000)] {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text:?}");
        }
        for wrong in ["", "-1s", "soon", "1.5.2s", "10 parsecs"] {
            assert!(parse_duration(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_number_out_of_range_is_rejected_with_the_range() {
        let parsed = |number: u64| {
            let number = de::value::U64Deserializer::<de::value::Error>::new(number);
            Within::<10, 20>::deserialize(number).map(Within::get).map_err(|error| error.to_string())
        };
        assert_eq!((parsed(10), parsed(20)), (Ok(10), Ok(20)));
        assert_eq!(parsed(21), Err("21: it must be from 10 to 20".to_owned()));
        assert_eq!(
            (Within::<10, 20>::clamped(5).get(), Within::<10, 20>::kind()),
            (10, "number from 10 to 20".into())
        );
    }
}
