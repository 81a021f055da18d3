//! A program on a pseudo-terminal: its keys and its screen.

use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::pty::{Winsize, openpty};
use nix::sys::termios::{Termios, tcgetattr};

use crate::harness::program::Program;
use crate::harness::{PATIENCE, wait_within};

/// A program on its own terminal.
pub(crate) struct Terminal {
    pub(crate) program: Program,
    keys: Option<File>,
    /// Kept open, so that the terminal can be examined after the program has exited.
    line: OwnedFd,
    before: Termios,
    screen: Arc<Mutex<vt100::Parser>>,
}

impl Terminal {
    /// Runs `command` on a terminal of this size.
    pub(crate) fn run(command: &Command, columns: u16, lines: u16) -> Terminal {
        let size = Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        let pty = openpty(Some(&size), None).expect("a pseudo-terminal");
        let before = tcgetattr(&pty.slave).expect("its modes");
        // setsid(1) sets the controlling terminal and execs the program.
        let mut on_terminal = Command::new("setsid");
        on_terminal.arg("--ctty").arg(command.get_program()).args(command.get_args()).env("TERM", "xterm");
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => on_terminal.env(name, value),
                None => on_terminal.env_remove(name),
            };
        }
        let line = || pty.slave.try_clone().expect("a descriptor");
        let what = format!("{command:?} on a terminal");
        let child = on_terminal
            .stdin(line())
            .stdout(line())
            .stderr(line())
            .spawn()
            .unwrap_or_else(|error| panic!("starting {what} with setsid (util-linux): {error}"));
        let screen = Arc::new(Mutex::new(vt100::Parser::new(some(lines), some(columns), 0)));
        let keys = File::from(pty.master);
        let mut output = keys.try_clone().expect("a descriptor");
        let seen = Arc::clone(&screen);
        // Ends when all slave ends are closed.
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length @ 1..) = output.read(&mut bytes) {
                seen.lock().expect("a screen").process(&bytes[..length]);
            }
        });
        let program = Program::adopt(child, &what);
        Terminal { program, keys: Some(keys), line: pty.slave, before, screen }
    }

    /// Sends keystrokes.
    pub(crate) fn type_keys(&mut self, keys: &str) {
        let terminal = self.keys.as_mut().expect("the terminal is open");
        terminal.write_all(keys.as_bytes()).expect("writing to the terminal");
    }

    /// The contents of the screen.
    pub(crate) fn text(&self) -> String {
        self.screen.lock().expect("a screen").screen().contents()
    }

    /// Waits until the screen shows this text.
    pub(crate) fn wait_for(&mut self, text: &str) {
        self.wait_until(&format!("{text:?} on the screen"), |screen| screen.contains(text));
    }

    /// Waits until the screen meets the condition.
    pub(crate) fn wait_until(&mut self, what: &str, condition: impl Fn(&str) -> bool) {
        let deadline = std::time::Instant::now() + PATIENCE;
        while !condition(&self.text()) {
            let running = self.program.is_running();
            assert!(
                running && std::time::Instant::now() < deadline,
                "timed out waiting for {what} (running: {running}):\n{}",
                self.text()
            );
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Resizes the terminal.
    pub(crate) fn resize(&mut self, columns: u16, lines: u16) {
        self.screen.lock().expect("a screen").screen_mut().set_size(some(lines), some(columns));
        let size = rustix::termios::Winsize { ws_row: lines, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        rustix::termios::tcsetwinsize(self.line.as_fd(), size).expect("resizing the terminal");
    }

    /// Closes the terminal, as when its window is closed.
    pub(crate) fn hang_up(self) -> Program {
        let Terminal { program, keys, line, screen, .. } = self;
        // The thread that reads the screen keeps the master open, so the hang-up is simulated by the signal that a
        // closing window also causes.
        program.signal(rustix::process::Signal::HUP);
        drop((keys, line, screen));
        program
    }

    /// Waits for the program to exit, which must succeed and restore the terminal.
    pub(crate) fn ends_in_order(mut self) {
        let status = self.program.wait(PATIENCE);
        assert_eq!(status.code(), Some(0), "{}", self.text());
        assert_eq!(tcgetattr(&self.line).expect("its modes"), self.before, "the modes of the terminal");
        // Its last output may not have been read yet.
        wait_within(PATIENCE, "the terminal to be given back", || {
            let screen = self.screen.lock().expect("a screen");
            !screen.screen().alternate_screen() && !screen.screen().hide_cursor()
        });
    }
}

/// Columns or lines: a terminal has at least one.
fn some(number: u16) -> NonZero<u16> {
    NonZero::new(number).expect("a terminal has room")
}
