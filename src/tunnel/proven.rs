//! Compares the host name that a daemon proved in its handshake with the one that is used for it elsewhere.
//!
//! A member writes the host entry of the registry itself, so that entry proves nothing. Only the name of the handshake
//! counts: with an authority, it was checked against the certificate of that very connection.

use pmd_protocol::HostName;

/// The host name that a daemon proved is not the expected one.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the daemon proved to be host {proven:?}, but the registry calls it {expected:?}")]
pub struct WrongHost {
    /// The name of the handshake, in lower case.
    pub proven: String,
    /// The name that it should have been.
    pub expected: String,
}

/// Checks that a daemon proved the `expected` host name, and returns that name in lower case.
///
/// Full names are compared, without regard to case: a short name and a long one are not the same host here, because
/// anybody can own a domain in which that short name exists.
///
/// # Errors
///
/// If it proved another name.
pub fn check(proven: &HostName, expected: &str) -> Result<String, WrongHost> {
    let proven = proven.as_str().to_lowercase();
    if proven == expected.to_lowercase() {
        Ok(proven)
    } else {
        Err(WrongHost { proven, expected: expected.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(name: &str) -> HostName {
        name.parse().expect("a host name")
    }

    #[test]
    fn the_proven_name_is_the_expected_one_in_any_case() {
        assert_eq!(check(&host("DB5.example.org"), "db5.Example.org").as_deref(), Ok("db5.example.org"));
        assert_eq!(check(&host("db5"), "db5").as_deref(), Ok("db5"));
    }

    #[test]
    fn any_other_name_is_rejected_with_both_names() {
        for (proven, expected) in [
            ("evil", "db5"),
            ("db5.evil.org", "db5"),
            ("db5", "db5.example.org"),
            ("db5.evil.org", "db5.example.org"),
            ("db55", "db5"),
            ("db5", ""),
        ] {
            let error = check(&host(proven), expected).expect_err("another host").to_string();
            assert!(error.contains(proven) && error.contains(expected), "{error}");
        }
    }
}
