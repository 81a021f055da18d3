//! An entry of `discovery` in the configuration: a plugin and its options.
//!
//! | entry | plugin |
//! |---|---|
//! | `broadcast` | sends beacons, on the UDP port with the same number as the daemon's TCP port |
//! | `broadcast:PORT` | sends beacons on this UDP port |
//! | `dns:NAME` | looks up the addresses of a name, and adds the daemon's own port |
//! | `dns:NAME:PORT` | looks up the addresses of a name, and adds this port |
//! | `dns:_SERVICE._tcp.NAME` | looks up hosts and ports in SRV records |
//! | `exec:COMMAND ARGUMENT…` | runs a program that prints addresses |
//!
//! Fixed addresses need no plugin; they belong in `join`.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::address::{Address, AddressError};
use super::types::Port;

/// A plugin and its options. Displayed in the form from which it is parsed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum Spec {
    /// Sends beacons over UDP.
    Broadcast {
        /// The UDP port; `None` means the number of the daemon's TCP port.
        port: Option<Port>,
    },
    /// Looks up a DNS name.
    Dns {
        /// The name; a leading `_` selects SRV records.
        name: String,
        /// The daemons' port; `None` means this daemon's own port, or the ports in SRV records.
        port: Option<Port>,
    },
    /// Runs a program.
    Exec {
        /// The program and its arguments.
        command: CommandLine,
    },
}

/// Why text is not a [`Spec`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// No plugin has this name.
    #[error(
        "unknown discovery plugin {0:?}; write broadcast, broadcast:PORT, dns:NAME, dns:NAME:PORT or exec:COMMAND"
    )]
    Unknown(String),
    /// The port is invalid.
    #[error("{0:?} is not a port; write a number from 1 to 65535 after the last colon, or omit it")]
    Port(String),
    /// The DNS name is invalid.
    #[error("{name:?} is not a DNS name: {reason}; write dns:NAME or dns:NAME:PORT")]
    Name {
        /// The invalid name.
        name: String,
        /// Why it is invalid.
        reason: AddressError,
    },
    /// An IP address instead of a name.
    #[error("{0} is an address and needs no DNS lookup; put it into join (or --join) instead of dns:")]
    IsAddress(String),
    /// A port together with an SRV name.
    #[error("the SRV records of {0} contain the ports; omit the port")]
    PortOfSrv(String),
    /// The command is invalid.
    #[error(
        "{0}; write exec: followed by the program and its arguments, as in exec:/usr/bin/list-hosts --up"
    )]
    Command(#[from] CommandError),
}

/// A program and its arguments, split and unquoted like in a POSIX shell, but without expansions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CommandLine(Vec<String>);

/// Why text is not a [`CommandLine`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The command is empty, or the program's name is.
    #[error("the command is empty")]
    Empty,
    /// A quote is not closed.
    #[error("a quote is not closed")]
    Quote,
    /// Arguments of programs end at a NUL byte, so they cannot contain one.
    #[error("a command cannot contain a NUL byte")]
    Nul,
}

impl CommandLine {
    /// Creates a command line from a program and its arguments.
    ///
    /// # Errors
    ///
    /// If there is no program, or a word contains a NUL byte.
    pub fn new(words: impl IntoIterator<Item = String>) -> Result<CommandLine, CommandError> {
        let words: Vec<String> = words.into_iter().collect();
        if words.first().is_none_or(String::is_empty) {
            return Err(CommandError::Empty);
        }
        if words.iter().any(|word| word.contains('\0')) {
            return Err(CommandError::Nul);
        }
        Ok(CommandLine(words))
    }

    /// The program.
    #[must_use]
    pub fn program(&self) -> &str {
        self.0.first().map_or("", String::as_str)
    }

    /// Its arguments.
    pub fn arguments(&self) -> impl Iterator<Item = &String> {
        self.0.iter().skip(1)
    }
}

impl FromStr for CommandLine {
    type Err = CommandError;

    fn from_str(text: &str) -> Result<CommandLine, CommandError> {
        CommandLine::new(shell_words::split(text).map_err(|_| CommandError::Quote)?)
    }
}

impl fmt::Display for CommandLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&shell_words::join(&self.0))
    }
}

impl FromStr for Spec {
    type Err = SpecError;

    fn from_str(text: &str) -> Result<Spec, SpecError> {
        let text = text.trim();
        let (plugin, rest) = match text.split_once(':') {
            Some((plugin, rest)) => (plugin, Some(rest.trim())),
            None => (text, None),
        };
        match (plugin, rest) {
            ("broadcast", None) => Ok(Spec::Broadcast { port: None }),
            ("broadcast", Some(port)) => Ok(Spec::Broadcast { port: Some(parse_port(port)?) }),
            ("dns", rest) => parse_dns(rest.unwrap_or_default()),
            ("exec", rest) => Ok(Spec::Exec { command: rest.unwrap_or_default().parse()? }),
            _ => Err(SpecError::Unknown(text.to_owned())),
        }
    }
}

impl TryFrom<String> for Spec {
    type Error = SpecError;

    fn try_from(text: String) -> Result<Spec, SpecError> {
        text.parse()
    }
}

impl From<Spec> for String {
    fn from(spec: Spec) -> String {
        spec.to_string()
    }
}

impl fmt::Display for Spec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Spec::Broadcast { port: None } => f.write_str("broadcast"),
            Spec::Broadcast { port: Some(port) } => write!(f, "broadcast:{port}"),
            Spec::Dns { name, port: None } => write!(f, "dns:{name}"),
            Spec::Dns { name, port: Some(port) } => write!(f, "dns:{name}:{port}"),
            Spec::Exec { command } => write!(f, "exec:{command}"),
        }
    }
}

fn parse_port(text: &str) -> Result<Port, SpecError> {
    text.parse().map_err(|_| SpecError::Port(text.to_owned()))
}

fn parse_dns(text: &str) -> Result<Spec, SpecError> {
    let (name, port) = match text.split_once(':') {
        Some((name, port)) if !port.contains(':') => (name, Some(parse_port(port)?)),
        _ => (text, None),
    };
    let address =
        Address::parse(name, 1).map_err(|reason| SpecError::Name { name: name.to_owned(), reason })?;
    if address.ip().is_some() {
        return Err(SpecError::IsAddress(name.to_owned()));
    }
    if name.starts_with('_') && port.is_some() {
        return Err(SpecError::PortOfSrv(name.to_owned()));
    }
    Ok(Spec::Dns { name: name.to_owned(), port })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn port(number: i64) -> Option<Port> {
        Some(Port::try_from(number).expect("a port"))
    }

    fn command(words: &[&str]) -> CommandLine {
        CommandLine::new(words.iter().map(|word| (*word).to_owned())).expect("a command")
    }

    #[test]
    fn every_form_round_trips() {
        for (text, spec) in [
            ("broadcast", Spec::Broadcast { port: None }),
            ("broadcast:4370", Spec::Broadcast { port: port(4370) }),
            ("dns:pmd.default.svc", Spec::Dns { name: "pmd.default.svc".into(), port: None }),
            ("dns:pmd.example.:99", Spec::Dns { name: "pmd.example.".into(), port: port(99) }),
            ("dns:_pmd._tcp.example", Spec::Dns { name: "_pmd._tcp.example".into(), port: None }),
            ("exec:/bin/list", Spec::Exec { command: command(&["/bin/list"]) }),
            (
                "exec:list --url http://x:1/",
                Spec::Exec { command: command(&["list", "--url", "http://x:1/"]) },
            ),
            ("exec:sh -c 'echo \"a\"'", Spec::Exec { command: command(&["sh", "-c", "echo \"a\""]) }),
        ] {
            assert_eq!(text.parse::<Spec>().as_ref(), Ok(&spec), "{text}");
            assert_eq!(spec.to_string(), text);
            let json = serde_json::to_string(&spec).expect("text");
            assert_eq!(serde_json::from_str::<Spec>(&json).expect("a plugin"), spec);
        }
    }

    #[test]
    fn errors_say_how_to_fix_the_entry() {
        for (text, sentence) in [
            ("", "unknown discovery plugin \"\"; write broadcast,"),
            ("multicast", "unknown discovery plugin \"multicast\"; write broadcast,"),
            ("Broadcast", "unknown discovery plugin \"Broadcast\"; write"),
            ("broadcast:", "\"\" is not a port; write a number"),
            ("broadcast:65536", "\"65536\" is not a port; write"),
            ("dns", "\"\" is not a DNS name: it is neither"),
            ("dns:a b", "\"a b\" is not a DNS name: it is neither"),
            ("dns:10.0.0.300", "\"10.0.0.300\" is not a DNS name: it looks like an IPv4"),
            ("dns:10.0.0.1", "10.0.0.1 is an address and needs no DNS lookup; put it into join"),
            ("dns:::1", "::1 is an address and needs no DNS lookup; put it into join"),
            ("dns:name:http", "\"http\" is not a port; write a number"),
            ("dns:_pmd._tcp.x:99", "the SRV records of _pmd._tcp.x contain the ports; omit"),
            ("exec:", "the command is empty; write exec: followed by"),
            ("exec:list 'a", "a quote is not closed; write exec:"),
        ] {
            let error = text.parse::<Spec>().expect_err(text).to_string();
            assert!(error.starts_with(sentence), "{text}: {error}");
        }
    }

    #[test]
    fn a_command_line_is_split_like_in_a_shell() {
        for (text, words) in [
            ("list", &["list"][..]),
            ("  list\t--all ", &["list", "--all"]),
            (r#"sh -c 'a "b"  c'"#, &["sh", "-c", r#"a "b"  c"#]),
            (r#"list "two words" ''"#, &["list", "two words", ""]),
            (r#"--name="a b"'c d'e"#, &["--name=a bc de"]),
            (r"a\ b $HOME *", &["a b", "$HOME", "*"]),
        ] {
            let parsed: CommandLine = text.parse().expect("a command");
            assert_eq!(parsed.0, words, "{text}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{text}");
        }
        for (text, error) in [
            ("", CommandError::Empty),
            (" '' a", CommandError::Empty),
            ("a \"b'", CommandError::Quote),
            ("a\0b", CommandError::Nul),
        ] {
            assert_eq!(text.parse::<CommandLine>(), Err(error), "{text:?}");
        }
        let odd = command(&["it's", "'\"'", "\u{2003}", "\\"]);
        assert_eq!(odd.to_string().parse(), Ok(odd));
    }

    proptest! {
        #[test]
        fn parsed_specs_round_trip(text in "(broadcast|dns|exec)?:?[a-z0-9_.:'\" -]{0,20}") {
            if let Ok(spec) = text.parse::<Spec>() {
                prop_assert_eq!(spec.to_string().parse(), Ok(spec));
            }
        }
    }
}
