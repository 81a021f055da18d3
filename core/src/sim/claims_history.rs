//! What commands that ran under claims have seen, and whether that is what a claim promises.

use std::collections::BTreeMap;

/// A command: its host, the start of the host, and its attempt to claim.
pub(super) type Command = (usize, u64, u64);

/// The commands of all hosts, checked as they begin and end.
#[derive(Debug, Default)]
pub struct History {
    running: BTreeMap<Command, usize>,
    /// The highest number of each name, and how often it was granted.
    last: BTreeMap<usize, (u64, usize)>,
    numbers: BTreeMap<u64, Command>,
    violations: Vec<String>,
}

impl History {
    /// What contradicts the promise: two commands of one name at one time, a number that does not rise, or two commands
    /// with one number.
    #[must_use]
    pub fn violations(&self) -> &[String] {
        &self.violations
    }

    /// How many commands ran under this name.
    #[must_use]
    pub fn grants(&self, name: usize) -> usize {
        self.last.get(&name).map_or(0, |(_, count)| *count)
    }

    pub(super) fn begin(&mut self, now_ms: u64, command: Command, name: usize, number: u64) {
        for (other, _) in self.running.iter().filter(|(_, running)| **running == name) {
            self.violations.push(format!("{now_ms}: {command:?} begins {name} while {other:?} runs"));
        }
        let (last, count) = self.last.entry(name).or_default();
        if number <= *last {
            self.violations.push(format!("{now_ms}: {command:?} has {number:x} of {name}, after {last:x}"));
        }
        (*last, *count) = (number.max(*last), *count + 1);
        if let Some(other) = self.numbers.insert(number, command) {
            self.violations.push(format!("{now_ms}: {command:?} and {other:?} have {number:x}"));
        }
        self.running.insert(command, name);
    }

    pub(super) fn end(&mut self, command: Command) {
        self.running.remove(&command);
    }
}
