//! The configuration file: TOML, with every complaint naming file and line.

use std::io::ErrorKind;
use std::path::Path;

use toml::de::DeTable;

use super::ConfigError;
use super::raw::RawConfig;

/// Reads the file. One that is not there counts as empty, unless it was asked for by name.
pub fn read(path: &Path, asked_for: bool) -> Result<Option<RawConfig>, ConfigError> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == ErrorKind::NotFound && !asked_for => return Ok(None),
        Err(error) if error.kind() == ErrorKind::NotFound => {
            return Err(ConfigError::Missing { path: path.into() });
        }
        Err(source) => return Err(ConfigError::Unreadable { path: path.into(), source }),
    };
    let mut raw = parse(&text, path)?;
    // A path in a file means the same wherever pmd is started.
    let folder = path.parent().unwrap_or(Path::new(""));
    raw.socket = raw.socket.map(|socket| folder.join(socket));
    for file in [&mut raw.cookie_file, &mut raw.ca_cert_path, &mut raw.cert_path, &mut raw.key_path] {
        *file = file.take().map(|file| folder.join(file));
    }
    Ok(Some(raw))
}

/// Understands the text of the file at `path`.
pub fn parse(text: &str, path: &Path) -> Result<RawConfig, ConfigError> {
    let invalid = |start: usize, message: String, hint: Option<String>| ConfigError::Invalid {
        path: path.into(),
        line: line_of(text, start),
        message,
        hint,
    };
    let start = |error: &toml::de::Error| error.span().map_or(0, |span| span.start);

    let table = DeTable::parse(text).map_err(|error| invalid(start(&error), first_line(&error), None))?;
    // Checked apart from the types, because here a likely spelling can be offered.
    let mut unknown: Vec<_> =
        table.get_ref().keys().filter(|key| !RawConfig::KEYS.contains(&key.get_ref().as_ref())).collect();
    unknown.sort_by_key(|key| key.span().start);
    if let Some(key) = unknown.first() {
        let name = key.get_ref().as_ref();
        let hint = match nearest(name, &RawConfig::KEYS) {
            Some(known) => format!("did you mean {known:?}?"),
            None => format!("the keys are: {}", RawConfig::KEYS.join(", ")),
        };
        return Err(invalid(key.span().start, format!("unknown key {name:?}"), Some(hint)));
    }
    toml::from_str(text).map_err(|error| {
        let start = start(&error);
        let key = table
            .get_ref()
            .iter()
            .map(|(key, _)| (key.span().start, key.get_ref()))
            // What does not begin with a key of its own belongs to the one before it.
            .filter(|(position, _)| *position <= start)
            .max()
            .map(|(_, key)| format!("{key}: "));
        invalid(start, key.unwrap_or_default() + &first_line(&error), None)
    })
}

/// The keys whose values differ between two readings of the file.
pub fn changed(before: &RawConfig, after: &RawConfig) -> Vec<String> {
    let [before, after] = [before, after].map(|raw| serde_json::to_value(raw).unwrap_or_default());
    RawConfig::KEYS.iter().filter(|key| before.get(key) != after.get(key)).map(ToString::to_string).collect()
}

/// The parser sets the rest of its message over several lines, with a picture of the place.
fn first_line(error: &toml::de::Error) -> String {
    error.message().lines().collect::<Vec<_>>().join(", ")
}

fn line_of(text: &str, offset: usize) -> usize {
    text.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
}

/// The known word that `word` is most likely a misspelling of.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let word = word.to_lowercase().replace('-', "_");
    known
        .iter()
        .map(|candidate| (distance(&word, candidate), *candidate))
        // Further away than a third of its letters, a word is another word.
        .filter(|(distance, candidate)| *distance <= candidate.len().max(word.len()).div_ceil(3))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// How many letters have to be inserted, removed, replaced or swapped with their neighbour to turn one word into
/// the other (the optimal string alignment distance).
fn distance(left: &str, right: &str) -> usize {
    let (left, right): (Vec<char>, Vec<char>) = (left.chars().collect(), right.chars().collect());
    let mut rows: Vec<Vec<usize>> = vec![(0..=right.len()).collect()];
    for (i, a) in left.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, b) in right.iter().enumerate() {
            let replaced = rows[i][j] + usize::from(a != b);
            let mut best = replaced.min(rows[i][j + 1] + 1).min(row[j] + 1);
            if i > 0 && j > 0 && left[i - 1] == *b && right[j - 1] == *a {
                best = best.min(rows[i - 1][j - 1] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows.last().and_then(|row| row.last()).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::types::EpmdAccess;

    fn complaint(text: &str) -> (String, String) {
        let error = parse(text, Path::new("pmd.toml")).expect_err("it is wrong");
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
        .expect("it is right");
        assert_eq!(raw.port.map(|port| port.get()), Some(4370));
        assert_eq!(raw.bind.as_ref().map(Vec::len), Some(2));
        assert_eq!(raw.packet_timeout, Some(Duration::from_secs(5)));
        assert_eq!((raw.phi_window_size, raw.epmd_access), (Some(1000), Some(EpmdAccess::Members)));
        let peers = raw.peer.expect("two peers");
        assert_eq!(peers.iter().map(|peer| peer.auto_connect).collect::<Vec<_>>(), [true, false]);
    }

    #[test]
    fn one_address_needs_no_list() {
        let raw = parse("bind = \"0.0.0.0\"", Path::new("pmd.toml")).expect("it is right");
        assert_eq!(raw.bind, Some(vec!["0.0.0.0".parse().expect("an address")]));
    }

    #[test]
    fn an_unknown_key_is_named_with_its_line_and_the_nearest_known_one() {
        assert_eq!(
            complaint("# a comment\nport = 1\npacket_timeuot_secs = 3\n"),
            said("pmd.toml:3: unknown key \"packet_timeuot_secs\"", "did you mean \"packet_timeout_secs\"?")
        );
        let (message, hint) = complaint("colour = true");
        assert_eq!(message, "pmd.toml:1: unknown key \"colour\"");
        assert!(hint.starts_with("the keys are: port, bind,"), "{hint}");
        assert_eq!(
            complaint("port = 1\n[metdata]\na = \"b\"\n"),
            said("pmd.toml:2: unknown key \"metdata\"", "did you mean \"metadata\"?")
        );
    }

    #[test]
    fn a_wrong_value_is_named_with_its_line_and_key() {
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
    fn what_is_no_toml_is_named_with_its_line() {
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

    #[test]
    fn changed_keys_are_found() {
        let path = Path::new("pmd.toml");
        let [before, after] = ["port = 1\nbind = \"::1\"", "port = 1\n[metadata]\na = \"b\""]
            .map(|text| parse(text, path).expect("it is right"));
        assert_eq!(changed(&before, &after), ["bind", "metadata"]);
    }
}
