//! The output of commands.

use std::process::{Command, Output};

use serde_json::Value;

use super::program::run;

/// The output and exit code of a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Said {
    /// Its exit code.
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a command to its end.
pub fn said(command: Command) -> Said {
    Said::of(&run(command))
}

impl Said {
    /// The output of a program that has exited.
    pub fn of(output: &Output) -> Said {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Said {
            code: output.status.code().unwrap_or(-1),
            stdout: text(&output.stdout),
            stderr: text(&output.stderr),
        }
    }

    /// Its standard output as JSON.
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("not JSON: {error}\n{self:#?}"))
    }

    /// Fails the test unless the command exited with this code.
    pub fn ended_with(self, code: i32) -> Said {
        assert_eq!(self.code, code, "{self:#?}");
        self
    }
}
