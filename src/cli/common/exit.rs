//! The exit codes of `pmd`: what a script may depend on.

use std::process::{ExitCode, ExitStatus};

/// How a command ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Done.
    Done,
    /// It failed for a reason that has no code of its own.
    General,
    /// It was called wrongly: flags, environment or configuration.
    Usage,
    /// No daemon answers.
    NotReachable,
    /// There is nothing of that name.
    NotFound,
    /// It is not allowed, or not advisable.
    Refused,
    /// It did not happen in time.
    TimedOut,
    /// A name or a port is taken.
    Conflict,
    /// The daemon, or what depends on it, is not well.
    Unhealthy,
    /// The user interrupted it.
    Interrupted,
    /// What a command ended with that was run on behalf of the user.
    Command(u8),
}

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        match self {
            Exit::Done => 0,
            Exit::General => 1,
            Exit::Usage => 2,
            Exit::NotReachable => 3,
            Exit::NotFound => 4,
            Exit::Refused => 5,
            Exit::TimedOut => 6,
            Exit::Conflict => 7,
            Exit::Unhealthy => 8,
            Exit::Interrupted => 130,
            Exit::Command(code) => code,
        }
    }

    /// The exit that has this number, as a failed daemon in the background reports it.
    pub fn of_code(code: i32) -> Exit {
        let known = [
            Exit::Usage,
            Exit::NotReachable,
            Exit::NotFound,
            Exit::Refused,
            Exit::TimedOut,
            Exit::Conflict,
            Exit::Unhealthy,
        ];
        known.into_iter().find(|exit| i32::from(exit.code()) == code).unwrap_or(Exit::General)
    }

    /// The exit of a command that was run on behalf of the user, by the rules of shells.
    pub fn of_command(status: ExitStatus) -> Exit {
        use std::os::unix::process::ExitStatusExt;
        let code = status.code().or_else(|| status.signal().map(|signal| 128 + signal));
        Exit::Command(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::ExitStatusExt;

    use super::*;

    #[test]
    fn the_numbers_are_those_of_the_manual() {
        let all = [
            (Exit::Done, 0),
            (Exit::General, 1),
            (Exit::Usage, 2),
            (Exit::NotReachable, 3),
            (Exit::NotFound, 4),
            (Exit::Refused, 5),
            (Exit::TimedOut, 6),
            (Exit::Conflict, 7),
            (Exit::Unhealthy, 8),
            (Exit::Interrupted, 130),
        ];
        for (exit, code) in all {
            assert_eq!(exit.code(), code, "{exit:?}");
        }
        for code in 1..=8 {
            assert_eq!(i32::from(Exit::of_code(code).code()), code);
        }
        assert_eq!(Exit::of_code(101), Exit::General);
    }

    #[test]
    fn a_command_hands_its_exit_on() {
        assert_eq!(Exit::of_command(ExitStatus::from_raw(7 << 8)), Exit::Command(7));
        assert_eq!(Exit::of_command(ExitStatus::from_raw(15)), Exit::Command(143));
    }
}
