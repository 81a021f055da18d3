//! A stalled log: a journal that hangs, or a paused terminal.

use std::fs::File;
use std::io::{ErrorKind, Read};

use crate::harness::program::full_pipe;
use crate::harness::wait_until;
use crate::wire::Alive2;
use crate::world::{Setting, play};

/// Times that all residents are looked up: together more log lines than the daemon can queue.
const ROUNDS: usize = 400;
/// The daemon's message about lines that it could not write.
const LOST: &str = " log lines were lost: ";

/// The log as read so far.
struct Log {
    pipe: File,
    text: String,
}

impl Log {
    /// Reads until `text` appears.
    fn wait_for(&mut self, text: &str) {
        let mut buffer = [0; 4096];
        wait_until(&format!("{text:?} in the log"), || {
            match self.pipe.read(&mut buffer) {
                Ok(length) => self.text.push_str(&String::from_utf8_lossy(&buffer[..length])),
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock, "{error}"),
            }
            self.text.contains(text)
        });
    }

    /// The numbers of lost lines that the daemon has reported.
    fn losses(&self) -> Vec<usize> {
        let reports = self.text.lines().filter_map(|line| line.split_once(LOST));
        reports
            .map(|(before, _)| before.rsplit(' ').next().and_then(|n| n.parse().ok()).expect("a number"))
            .collect()
    }
}

/// Clients are served while the log is stalled; when it is read again, it reports the lost lines and continues.
fn clients_do_not_wait_for_the_log(setting: Setting) {
    let (pipe, writer) = full_pipe();
    let mut log = Log { pipe, text: String::new() };
    play(&setting.stderr(writer), |world| {
        let before = world.resident_memory();
        (0..ROUNDS).for_each(|_| world.look_up_residents());
        let grown = world.resident_memory().saturating_sub(before);
        assert!(grown < 1024, "a stalled log cost {grown} KiB");

        log.wait_for(LOST);
        assert!(matches!(log.losses().as_slice(), [lost] if *lost > 0), "{:?}", log.losses());
        let node = world.register(Alive2::new("after_the_loss"));
        log.wait_for("after_the_loss");
        assert_eq!(log.losses().len(), 1, "more lines were lost after the log resumed");
        drop(node);
    });
}

#[test]
fn epmd_does_not_wait_for_its_log() {
    clients_do_not_wait_for_the_log(Setting::new().args(&["-d", "-d"]));
}

#[test]
fn pmd_does_not_wait_for_its_log() {
    clients_do_not_wait_for_the_log(Setting::new().threads(2).log("trace"));
}
