//! Stock epmd's command line and environment.
//!
//! Options are taken from left to right; one that talks to a running epmd acts when it is reached and has to be
//! the last. Numbers are read the way C's `atoi` does: whatever digits they begin with.

use std::fmt;
use std::time::Duration;

use pmd_protocol::limits::DEFAULT_PORT;

/// What stock epmd reads from its environment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Environment {
    /// `ERL_EPMD_PORT`.
    pub port: Option<String>,
    /// `ERL_EPMD_ADDRESS`.
    pub address: Option<String>,
    /// Whether `ERL_EPMD_RELAXED_COMMAND_CHECK` is set, to whatever.
    pub relaxed_command_check: bool,
}

impl Environment {
    /// This process's.
    pub fn of_process() -> Environment {
        let text = |name: &str| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
        Environment {
            port: text("ERL_EPMD_PORT"),
            address: text("ERL_EPMD_ADDRESS"),
            relaxed_command_check: std::env::var_os("ERL_EPMD_RELAXED_COMMAND_CHECK").is_some(),
        }
    }
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Be the port mapper.
    Serve(ServeOptions),
    /// Talk to the running one.
    Ask {
        /// What to ask for.
        command: Command,
        /// Its port.
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
    /// The port that clients are told; its low 16 bits are listened on.
    pub port: i32,
    /// The address list, not looked at yet: stock does that after it has become a daemon.
    pub address: String,
    /// `-relaxed_command_check`.
    pub relaxed_command_check: bool,
    /// `-daemon`.
    pub daemon: bool,
    /// `-systemd`.
    pub systemd: bool,
    /// How many `-d`.
    pub debug: u8,
    /// `-packet_timeout`.
    pub packet_timeout: Duration,
    /// `-delay_accept`.
    pub delay_accept: Duration,
    /// `-delay_write`.
    pub delay_write: Duration,
}

/// Why nothing can be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ArgsError {
    /// The options are not such as epmd has.
    Usage,
    /// `ERL_EPMD_PORT` is no port. Stock would listen on a port that nobody knows.
    Port(String),
}

impl fmt::Display for ArgsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ArgsError::Usage => f.write_str(USAGE),
            ArgsError::Port(value) => writeln!(
                f,
                "epmd: ERL_EPMD_PORT is {value:?}, which is no port number; set it to one, or unset it for {DEFAULT_PORT}"
            ),
        }
    }
}

impl std::error::Error for ArgsError {}

/// Takes the words after the program's name apart.
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
        let command = match word {
            "-d" | "-debug" => {
                options.debug = options.debug.saturating_add(1);
                continue;
            }
            "-daemon" => {
                options.daemon = true;
                continue;
            }
            "-systemd" => {
                options.systemd = true;
                continue;
            }
            "-relaxed_command_check" => {
                options.relaxed_command_check = true;
                continue;
            }
            "-address" => {
                options.address = words.next().ok_or(ArgsError::Usage)?.to_owned();
                continue;
            }
            "-port" => {
                port = Some(number(words.next())?);
                continue;
            }
            "-packet_timeout" => {
                options.packet_timeout = seconds(number(words.next())?);
                continue;
            }
            "-delay_accept" => {
                options.delay_accept = seconds(number(words.next())?);
                continue;
            }
            "-delay_write" => {
                options.delay_write = seconds(number(words.next())?);
                continue;
            }
            "-names" => Command::Names,
            "-dump" => Command::Dump,
            "-started" => Command::Started,
            "-kill" => Command::Kill,
            "-stop" => Command::Stop(words.next().ok_or(ArgsError::Usage)?.to_owned()),
            _ => return Err(ArgsError::Usage),
        };
        if words.next().is_some() {
            return Err(ArgsError::Usage);
        }
        let port = choose_port(port, environment)?;
        return Ok(Action::Ask { command, port });
    }
    options.port = choose_port(port, environment)?;
    Ok(Action::Serve(options))
}

fn choose_port(option: Option<i32>, environment: &Environment) -> Result<i32, ArgsError> {
    match (option, &environment.port) {
        (Some(port), _) => Ok(port),
        (None, None) => Ok(i32::from(DEFAULT_PORT)),
        // Of a number too large, the low 16 bits count, as with stock.
        (None, Some(text)) => match atoi(text) {
            port if port & 0xffff == 0 => Err(ArgsError::Port(text.clone())),
            port => Ok(port),
        },
    }
}

/// An option's number; stock takes 0, and what is none, for a mistake.
fn number(word: Option<&str>) -> Result<i32, ArgsError> {
    match word.map(atoi) {
        None | Some(0) => Err(ArgsError::Usage),
        Some(number) => Ok(number),
    }
}

/// Seconds as stock takes them: a negative number becomes one beyond all patience.
fn seconds(number: i32) -> Duration {
    Duration::from_secs(u64::from(number.cast_unsigned()))
}

/// The number that `text` begins with; 0 if it begins with none.
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
    // The library's number is a `long`, of which stock keeps the low half.
    let [.., a, b, c, d] = value.to_be_bytes();
    i32::from_be_bytes([a, b, c, d])
}

const USAGE: &str = "\
usage: epmd [-d|-debug] [DbgExtra...] [-address List]
            [-port No] [-daemon] [-relaxed_command_check] [-systemd]
       epmd [-d|-debug] [-port No] [-names|-dump|-started|-kill|-stop Name]

This is pmd in the place of epmd. `pmd --help` shows what it does beyond that.

Options of the server
    -address List
        Listen on these addresses, separated by commas, and on the loopback
        addresses; ERL_EPMD_ADDRESS does the same. Without: on all addresses.
    -port No
        Listen on this port, or talk to the epmd there; ERL_EPMD_PORT does the
        same. Without: 4369.
    -d, -debug
        Write what happens to standard error. More than one -d: more of it.
    -daemon
        Go to the background.
    -relaxed_command_check
        Allow -kill while nodes are registered, and -stop at all.
    -systemd
        Take the listening sockets from systemd.

DbgExtra
    -packet_timeout Seconds
        Close a connection that has not completed its request (60).
    -delay_accept Seconds
    -delay_write Seconds
        Pause before accepting a connection, or before writing, as a busy
        server would.

Commands for the running epmd
    -names
        List the registered names.
    -dump
        The same with details, and names that were registered before.
    -started
        Exit with 0 if an epmd is running, with 1 otherwise.
    -kill
        End it, if no node is registered.
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
    fn a_command_has_to_be_the_last_word() {
        let ask = |port| Ok(Action::Ask { command: Command::Names, port });
        assert_eq!(parse_words(&["-port", "6000", "-names"], &Environment::default()), ask(6000));
        assert_eq!(parse_words(&["-names", "-port", "6000"], &Environment::default()), Err(ArgsError::Usage));
        assert_eq!(parse_words(&["-stop"], &Environment::default()), Err(ArgsError::Usage));
        assert_eq!(parse_words(&["-stop", "a", "b"], &Environment::default()), Err(ArgsError::Usage));
    }

    #[test]
    fn what_stock_does_not_know_is_a_usage_error() {
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
        let Ok(Action::Serve(options)) = parse_words(&[], &environment) else { panic!("it serves") };
        assert_eq!((options.port, options.address.as_str()), (70000, "10.0.0.1"));
        assert!(options.relaxed_command_check);
        let Ok(Action::Serve(options)) = parse_words(&["-port", "5", "-address", "::1"], &environment) else {
            panic!("it serves")
        };
        assert_eq!((options.port, options.address.as_str()), (5, "::1"));
    }

    #[test]
    fn a_port_that_is_none_is_said_loudly() {
        let environment = Environment { port: Some("epmd".into()), ..Environment::default() };
        assert_eq!(parse_words(&[], &environment), Err(ArgsError::Port("epmd".into())));
        assert!(matches!(parse_words(&["-port", "7"], &environment), Ok(Action::Serve(_))));
    }

    #[test]
    fn debug_counts_and_a_negative_timeout_never_comes() {
        let options = serve(&["-d", "-debug", "-packet_timeout", "-1", "-daemon", "-systemd"]);
        assert_eq!(options.debug, 2);
        assert!(options.packet_timeout > Duration::from_secs(100 * 365 * 24 * 3600));
        assert!(options.daemon && options.systemd);
    }
}
