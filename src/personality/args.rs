//! Stock epmd's command line and environment.
//!
//! Options are read from left to right; a command for a running epmd must come last. Numbers are parsed like C's
//! `atoi`: by their leading digits.

use std::fmt;
use std::time::Duration;

use pmd_protocol::limits::DEFAULT_PORT;

/// The environment variables that stock epmd reads.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `ERL_EPMD_PORT`.
    pub port: Option<String>,
    /// `ERL_EPMD_ADDRESS`.
    pub address: Option<String>,
    /// Whether `ERL_EPMD_RELAXED_COMMAND_CHECK` is set to any value.
    pub relaxed_command_check: bool,
}

impl Environment {
    /// The environment of this process.
    pub fn of_process() -> Environment {
        let text = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Environment {
            port: text("ERL_EPMD_PORT"),
            address: text("ERL_EPMD_ADDRESS"),
            relaxed_command_check: std::env::var_os("ERL_EPMD_RELAXED_COMMAND_CHECK").is_some(),
        }
    }
}

/// The action that the arguments request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Run the port mapper.
    Serve(ServeOptions),
    /// Send a command to the running port mapper.
    Ask {
        /// The command.
        command: Command,
        /// The port to connect to.
        port: i32,
    },
}

/// A command for the running port mapper.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// `-names`.
    Names,
    /// `-dump`.
    Dump,
    /// `-started`.
    Started,
    /// `-kill`.
    Kill,
    /// `-stop NAME`.
    Stop(String),
}

/// Options of the server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServeOptions {
    /// The port reported to clients; the server listens on its low 16 bits.
    pub port: i32,
    /// The address list, unparsed: stock epmd parses it only after it has become a daemon.
    pub address: String,
    /// `-relaxed_command_check`.
    pub relaxed_command_check: bool,
    /// `-daemon`.
    pub daemon: bool,
    /// `-systemd`.
    pub systemd: bool,
    /// The number of `-d` options.
    pub debug: u8,
    /// `-packet_timeout`.
    pub packet_timeout: Duration,
    /// `-delay_accept`.
    pub delay_accept: Duration,
    /// `-delay_write`.
    pub delay_write: Duration,
}

/// An error in the arguments or the environment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgsError {
    /// The arguments are not valid for epmd.
    Usage,
    /// `ERL_EPMD_PORT` is not a port. Stock epmd would listen on an arbitrary port.
    Port(String),
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgsError::Usage => f.write_str(USAGE),
            ArgsError::Port(value) => writeln!(
                f,
                "epmd: ERL_EPMD_PORT is {value:?}, which is not a port number; correct it, or unset it to use {DEFAULT_PORT}"
            ),
        }
    }
}

impl std::error::Error for ArgsError {}

/// Parses the arguments after the name of the program.
pub fn parse(words: &[String], environment: &Environment) -> Result<Action, ArgsError> {
    let mut port = None;
    let mut options = ServeOptions {
        port: i32::from(DEFAULT_PORT),
        address: environment.address.clone().unwrap_or_default(),
        relaxed_command_check: environment.relaxed_command_check,
        daemon: false,
        systemd: false,
        debug: 0,
        packet_timeout: crate::config::types::PACKET_TIMEOUT,
        delay_accept: Duration::ZERO,
        delay_write: Duration::ZERO,
    };
    let mut words = words.iter().map(String::as_str);
    while let Some(word) = words.next() {
        let mut command = None;
        match word {
            "-d" | "-debug" => options.debug = options.debug.saturating_add(1),
            "-daemon" => options.daemon = true,
            "-systemd" => options.systemd = true,
            "-relaxed_command_check" => options.relaxed_command_check = true,
            "-address" => options.address = words.next().ok_or(ArgsError::Usage)?.to_owned(),
            "-port" => port = Some(number(words.next())?),
            "-packet_timeout" => options.packet_timeout = seconds(number(words.next())?),
            "-delay_accept" => options.delay_accept = seconds(number(words.next())?),
            "-delay_write" => options.delay_write = seconds(number(words.next())?),
            "-names" => command = Some(Command::Names),
            "-dump" => command = Some(Command::Dump),
            "-started" => command = Some(Command::Started),
            "-kill" => command = Some(Command::Kill),
            "-stop" => command = Some(Command::Stop(words.next().ok_or(ArgsError::Usage)?.to_owned())),
            _ => return Err(ArgsError::Usage),
        }
        if let Some(command) = command {
            let is_last = words.next().is_none();
            let port = choose_port(port, environment)?;
            return if is_last { Ok(Action::Ask { command, port }) } else { Err(ArgsError::Usage) };
        }
    }
    options.port = choose_port(port, environment)?;
    Ok(Action::Serve(options))
}

fn choose_port(option: Option<i32>, environment: &Environment) -> Result<i32, ArgsError> {
    match (option, &environment.port) {
        (Some(port), _) => Ok(port),
        (None, None) => Ok(i32::from(DEFAULT_PORT)),
        // Like stock epmd, use only the low 16 bits of a larger number.
        (None, Some(text)) => match atoi(text) {
            port if port & 0xffff == 0 => Err(ArgsError::Port(text.clone())),
            port => Ok(port),
        },
    }
}

/// The value of a numeric option. Like stock epmd, treats 0 and text as a usage error.
fn number(word: Option<&str>) -> Result<i32, ArgsError> {
    match word.map(atoi) {
        None | Some(0) => Err(ArgsError::Usage),
        Some(number) => Ok(number),
    }
}

/// Seconds as stock epmd reads them: a negative number becomes a very large value.
fn seconds(number: i32) -> Duration {
    Duration::from_secs(u64::from(number.cast_unsigned()))
}

/// The number at the start of `text`, or 0.
fn atoi(text: &str) -> i32 {
    let text = text.trim_start_matches(|c: char| c.is_ascii_whitespace() || c == '\u{b}');
    let (negative, digits) = match text.as_bytes() {
        [b'-', rest @ ..] => (true, rest),
        [b'+', rest @ ..] => (false, rest),
        rest => (false, rest),
    };
    let sign = if negative { -1 } else { 1 };
    let value = digits
        .iter()
        .take_while(|byte| byte.is_ascii_digit())
        .fold(0_i64, |value, digit| value.saturating_mul(10).saturating_add(sign * i64::from(digit - b'0')));
    // `atoi` parses a C `long`, of which stock epmd keeps the low half.
    let [.., a, b, c, d] = value.to_be_bytes();
    i32::from_be_bytes([a, b, c, d])
}

const USAGE: &str = "\
usage: epmd [-d|-debug] [DbgExtra...] [-address List]
            [-port No] [-daemon] [-relaxed_command_check] [-systemd]
       epmd [-d|-debug] [-port No] [-names|-dump|-started|-kill|-stop Name]

This is pmd, a drop-in replacement for epmd. See `pmd --help` for its own commands.

Server options
    -address List
        Listen on these addresses, separated by commas, and on the loopback
        addresses (default: ERL_EPMD_ADDRESS, or all addresses).
    -port No
        Listen on this port, or contact the epmd on it (default:
        ERL_EPMD_PORT, or 4369).
    -d, -debug
        Log to standard error; repeat for more detail.
    -daemon
        Run in the background.
    -relaxed_command_check
        Allow -kill while nodes are registered, and -stop.
    -systemd
        Take the listening sockets from systemd.

DbgExtra
    -packet_timeout Seconds
        Close connections that do not complete a request in time (default: 60).
    -delay_accept Seconds
    -delay_write Seconds
        Pause before accepting a connection, or before writing, to simulate a
        busy server.

Commands for the running epmd
    -names
        List the registered names.
    -dump
        List names with details, including names registered earlier.
    -started
        Exit with 0 if epmd is running, 1 otherwise.
    -kill
        Stop epmd if no node is registered.
    -stop Name
        Unregister a name by force.
";

#[cfg(test)]
mod tests {
    use super::*;

    fn parse_words(words: &[&str], environment: &Environment) -> Result<Action, ArgsError> {
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        parse(&words, environment)
    }

    fn serve(words: &[&str]) -> ServeOptions {
        match parse_words(words, &Environment::default()) {
            Ok(Action::Serve(options)) => options,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn numbers_are_read_like_atoi() {
        for (text, number) in [
            ("5002x", 5002),
            (" \t-5", -5),
            ("+7", 7),
            ("x", 0),
            ("", 0),
            ("-", 0),
            ("4294971665", 4369),
            ("99999999999", 1_215_752_191),
            ("99999999999999999999", -1),
            ("-99999999999999999999", 0),
        ] {
            assert_eq!(atoi(text), number, "{text:?}");
        }
    }

    #[test]
    fn a_command_must_be_the_last_argument() {
        let ask = |port| Ok(Action::Ask { command: Command::Names, port });
        assert_eq!(parse_words(&["-port", "6000", "-names"], &Environment::default()), ask(6000));
        assert_eq!(parse_words(&["-names", "-port", "6000"], &Environment::default()), Err(ArgsError::Usage));
        assert_eq!(parse_words(&["-stop"], &Environment::default()), Err(ArgsError::Usage));
        assert_eq!(parse_words(&["-stop", "a", "b"], &Environment::default()), Err(ArgsError::Usage));
    }

    #[test]
    fn unknown_options_are_a_usage_error() {
        for words in
            [&["-h"][..], &["--help"], &["names"], &["-port"], &["-port", "0"], &["-packet_timeout", "x"]]
        {
            assert_eq!(parse_words(words, &Environment::default()), Err(ArgsError::Usage), "{words:?}");
        }
    }

    #[test]
    fn options_win_over_the_environment() {
        let environment = Environment {
            port: Some("70000".into()),
            address: Some("10.0.0.1".into()),
            relaxed_command_check: true,
        };
        let Ok(Action::Serve(options)) = parse_words(&[], &environment) else { panic!("expected a server") };
        assert_eq!((options.port, options.address.as_str()), (70000, "10.0.0.1"));
        assert!(options.relaxed_command_check);
        let Ok(Action::Serve(options)) = parse_words(&["-port", "5", "-address", "::1"], &environment) else {
            panic!("expected a server")
        };
        assert_eq!((options.port, options.address.as_str()), (5, "::1"));
    }

    #[test]
    fn an_invalid_port_in_the_environment_is_an_error() {
        let environment = Environment { port: Some("epmd".into()), ..Environment::default() };
        assert_eq!(parse_words(&[], &environment), Err(ArgsError::Port("epmd".into())));
        assert!(matches!(parse_words(&["-port", "7"], &environment), Ok(Action::Serve(_))));
    }

    #[test]
    fn debug_options_add_up_and_a_negative_timeout_never_expires() {
        let options = serve(&["-d", "-debug", "-packet_timeout", "-1", "-daemon", "-systemd"]);
        assert_eq!(options.debug, 2);
        assert!(options.packet_timeout > Duration::from_secs(100 * 365 * 24 * 3600));
        assert!(options.daemon && options.systemd);
    }
}
