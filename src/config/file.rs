//! Reads the configuration file, which is TOML. Every error names the file and the line.

use std::io::ErrorKind;
use std::path::Path;

use toml::de::DeTable;

use super::ConfigError;
use super::keys::RawConfig;

/// Reads the file. Returns `None` if it does not exist, unless it was `asked_for` explicitly.
///
/// # Errors
///
/// If it cannot be read or is invalid.
pub fn read(path: &Path, asked_for: bool) -> Result<Option<RawConfig>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !asked_for => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ConfigError::Missing { path: path.into() });
        }
        Err(source) => return Err(ConfigError::Unreadable { path: path.into(), source }),
    };
    // So that a relative path means the same file wherever pmd is started.
    Ok(Some(parse(&text, path)?.in_folder(path.parent().unwrap_or(Path::new("")))))
}

/// Parses the text of the file at `path`.
///
/// # Errors
///
/// If it is not valid TOML, or has an unknown key or an invalid value.
pub fn parse(text: &str, path: &Path) -> Result<RawConfig, ConfigError> {
    let invalid = |start: usize, message: String, hint: Option<String>| ConfigError::Invalid {
        path: path.into(),
        line: line_of(text, start),
        message,
        hint,
    };
    let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);

    let table = DeTable::parse(text).map_err(|error| invalid(start(&error), first_line(&error), None))?;
    // Checked before the types, because serde's error could not suggest the key that was probably meant.
    let known: Vec<&str> = RawConfig::KEYS.iter().map(|key| key.name).collect();
    let mut unknown: Vec<_> =
        table.get_ref().keys().filter(|key| !known.contains(&key.get_ref().as_ref())).collect();
    unknown.sort_by_key(|key| key.span().start);
    if let Some(key) = unknown.first() {
        let name = key.get_ref().as_ref();
        let hint = match nearest(name, &known) {
            Some(known) => format!("did you mean {known:?}?"),
            None => format!("valid keys: {}", known.join(", ")),
        };
        return Err(invalid(key.span().start, format!("unknown key {name:?}"), Some(hint)));
    }
    toml::from_str(text).map_err(|error| {
        let start = start(&error);
        let key = table
            .get_ref()
            .iter()
            .map(|(key, _)| (key.span().start, key.get_ref()))
            // The error belongs to the last top-level key before it.
            .filter(|(position, _)| *position <= start)
            .max()
            .map(|(_, key)| format!("{key}: "));
        invalid(start, key.unwrap_or_default() + &first_line(&error), None)
    })
}

fn first_line(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(", ")
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The known word that `word` is most likely a misspelling of.
fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (strsim::osa_distance(&word, candidate), *candidate))
        // If more than a third of the letters differ, it is hardly a misspelling.
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::types::EpmdAccess;
    use crate::config::value::{Addresses, Seconds};

    fn complaint(text: &str) -> (String, String) {
        let error = parse(text, Path::new("pmd.toml")).expect_err("it is invalid");
        (error.to_string(), error.hint())
    }

    fn said(message: &str, hint: &str) -> (String, String) {
        (message.to_owned(), hint.to_owned())
    }

    #[test]
    fn every_key_is_understood() {
        let raw = parse(
            r#"
            port = 4370
            bind = ["10.0.0.1", "fd00::1"]
            relaxed_command_check = true
            packet_timeout_secs = 5
            socket = "/run/pmd.sock"
            control_group = "adm"
            ca_cert_path = "/etc/pmd/ca.pem"
            heartbeat_interval_secs = 10
            sync_interval_secs = 5
            phi_threshold = 8.0
            phi_window_size = 1000
            phi_min_std_deviation_ms = 500
            host_name = "db1.example.org"
            cluster = "production"
            cookie_file = "cookie"
            advertise = ["10.0.0.1:4369"]
            epmd_joins = true
            join = ["db2"]
            discovery = ["broadcast"]
            epmd_access = "members"
            cert_path = "/etc/pmd/db1.pem"
            key_path = "/etc/pmd/db1.key"
            [metadata]
            role = "worker"
            [[peer]]
            address = "db3:4370"
            [[peer]]
            address = "db4"
            auto_connect = false
            "#,
            Path::new("pmd.toml"),
        )
        .expect("it is valid");
        assert_eq!(raw.port.map(|port| port.get()), Some(4370));
        assert_eq!(raw.bind.as_ref().map(|bind| bind.0.len()), Some(2));
        assert_eq!(raw.packet_timeout_secs, Some(Seconds(Duration::from_secs(5))));
        assert_eq!((raw.phi_window_size().get(), raw.epmd_access()), (1000, EpmdAccess::Members));
        let peers = raw.peer.expect("two peers");
        assert_eq!(peers.iter().map(|peer| peer.auto_connect).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn one_address_needs_no_list() {
        let raw = parse("bind = \"0.0.0.0\"", Path::new("pmd.toml")).expect("it is valid");
        assert_eq!(raw.bind, Some(Addresses(vec!["0.0.0.0".parse().expect("an address")])));
    }

    #[test]
    fn an_unknown_key_is_reported_with_its_line_and_the_nearest_known_key() {
        assert_eq!(
            complaint("# a comment\nport = 1\npacket_timeuot_secs = 3\n"),
            said("pmd.toml:3: unknown key \"packet_timeuot_secs\"", "did you mean \"packet_timeout_secs\"?")
        );
        let (message, hint) = complaint("colour = true");
        assert_eq!(message, "pmd.toml:1: unknown key \"colour\"");
        assert!(hint.starts_with("valid keys: port, bind,"), "{hint}");
        assert_eq!(
            complaint("port = 1\n[metdata]\na = \"b\"\n"),
            said("pmd.toml:2: unknown key \"metdata\"", "did you mean \"metadata\"?")
        );
    }

    #[test]
    fn an_invalid_value_is_reported_with_its_line_and_key() {
        let right = |line: usize| format!("correct line {line} of pmd.toml");
        assert_eq!(
            complaint("\nport = 70000"),
            said("pmd.toml:2: port: 70000: a port is a number from 1 to 65535", &right(2))
        );
        assert_eq!(
            complaint("port = \"x\""),
            said("pmd.toml:1: port: invalid type: string \"x\", expected i64", &right(1))
        );
        assert_eq!(
            complaint("bind = [\n\"::1\",\n\"eth0\"]"),
            said(
                "pmd.toml:1: bind: \"eth0\" is not an IP address such as 127.0.0.1, 0.0.0.0 or ::1",
                &right(1)
            )
        );
        assert_eq!(
            complaint("[metadata]\nrole = 3"),
            said("pmd.toml:2: metadata: invalid type: integer `3`, expected a string", &right(2))
        );
    }

    #[test]
    fn a_syntax_error_is_reported_with_its_line() {
        let (message, _) = complaint("port = 1\nbind = [\n");
        assert!(message.starts_with("pmd.toml:2: ") || message.starts_with("pmd.toml:3: "), "{message}");
        let (message, _) = complaint("port = 1\nport = 2\n");
        assert_eq!(message, "pmd.toml:2: duplicate key");
    }

    #[test]
    fn only_a_file_that_was_asked_for_must_exist() {
        let nowhere = Path::new("/nowhere/pmd.toml");
        assert!(matches!(read(nowhere, false), Ok(None)));
        assert!(matches!(read(nowhere, true), Err(ConfigError::Missing { .. })));
    }
}
