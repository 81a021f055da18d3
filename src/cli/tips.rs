//! Tips for command lines that are invalid in a way that says what was meant.

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};

/// A tip for this error, if there is one.
pub fn tip(error: &clap::Error, args: &[OsString]) -> Option<String> {
    let words: Vec<String> = args.iter().map(|word| word.to_string_lossy().into_owned()).collect();
    let has = |wanted: &[&str]| words.iter().skip(1).any(|word| wanted.contains(&word.as_str()));
    match (error.kind(), error.get(ContextKind::InvalidArg)?) {
        (ErrorKind::UnknownArgument, ContextValue::String(program)) if has(&["run", "register"]) => {
            with_dashes(&words, program)
        }
        (ErrorKind::MissingRequiredArgument, ContextValue::Strings(missing))
            if missing.iter().any(|missing| missing.contains("--service-port")) && has(&["-p", "--port"]) =>
        {
            Some("-p (--port) selects the daemon; the port of the service is -P (--service-port)".to_owned())
        }
        _ => None,
    }
}

/// The command line with two dashes before the program.
fn with_dashes(words: &[String], program: &str) -> Option<String> {
    if program.starts_with('-') || words.iter().any(|word| word == "--") {
        return None;
    }
    let at = words.iter().skip(1).position(|word| word == program)? + 1;
    let (options, command) = words.split_at_checked(at)?;
    let options = shell_words::join(options.iter().skip(1));
    Some(format!("two dashes precede the program: pmd {options} -- {}", shell_words::join(command)))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::Cli;

    fn tip_for(line: &str) -> Option<String> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        tip(&Cli::try_parse_from(&words).expect_err("it is invalid"), &words)
    }

    #[test]
    fn a_program_without_dashes_gets_a_tip() {
        let tips = [
            ("pmd run erl -version", "pmd run -- erl -version"),
            (
                "pmd --port 5000 run --resolver-only iex --sname a",
                "pmd --port 5000 run --resolver-only -- iex --sname a",
            ),
            ("pmd register web -P 80 ./server -p 80", "pmd register web -P 80 -- ./server -p 80"),
        ];
        for (typed, tip) in tips {
            assert_eq!(tip_for(typed), Some(format!("two dashes precede the program: {tip}")), "{typed}");
        }
        for typed in ["pmd run --unknown", "pmd run", "pmd names a b", "pmd run x -- y"] {
            assert_eq!(tip_for(typed), None, "{typed}");
        }
    }

    #[test]
    fn the_port_of_a_service_is_told_from_the_port_of_the_daemon() {
        assert!(tip_for("pmd register web -p 8080").is_some_and(|tip| tip.contains("-P (--service-port)")));
        assert_eq!(tip_for("pmd register web"), None);
    }
}
