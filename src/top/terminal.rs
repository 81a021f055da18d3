//! Takes over the terminal, reads its keys, and restores it however the program ends.

use std::io::{self, IsTerminal};
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::model::Key;

/// Queued keys, about a line. If the queue is full, the reader waits and the terminal buffers more.
const KEYS: usize = 64;
/// How often the reader checks whether the view still wants keys.
const POLL: Duration = Duration::from_millis(250);

/// Whether standard input and output are terminals.
pub fn is_interactive() -> bool {
    io::stdout().is_terminal() && io::stdin().is_terminal()
}

/// The terminal that shows the view. Dropping this, or a panic, restores it.
#[derive(Debug)]
pub struct Screen {
    /// The terminal to draw on.
    pub terminal: DefaultTerminal,
}

impl Screen {
    /// Takes over the terminal.
    ///
    /// # Errors
    ///
    /// If the terminal cannot be drawn on.
    pub fn take() -> io::Result<Screen> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Screen { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone cannot be restored.
        let _ = ratatui::try_restore();
    }
}

/// Reads the keys from the terminal until the receiver is dropped. The channel closes with the terminal.
pub fn inputs() -> io::Result<Receiver<Key>> {
    let (to, inputs) = channel(KEYS);
    thread::Builder::new().name("keys".into()).spawn(move || {
        // An error means that the terminal has gone.
        let _ = read(&to);
    })?;
    Ok(inputs)
}

fn read(to: &Sender<Key>) -> io::Result<()> {
    while !to.is_closed() {
        if !event::poll(POLL)? {
            continue;
        }
        if let Event::Key(pressed) = event::read()?
            && let Some(key) = key(pressed)
            && to.blocking_send(key).is_err()
        {
            break;
        }
    }
    Ok(())
}

fn key(pressed: KeyEvent) -> Option<Key> {
    if pressed.kind == KeyEventKind::Release {
        return None;
    }
    if pressed.modifiers.contains(KeyModifiers::CONTROL) {
        return match pressed.code {
            KeyCode::Char('c' | 'd') => Some(Key::Interrupt),
            KeyCode::Char('f') => Some(Key::PageDown),
            KeyCode::Char('b') => Some(Key::PageUp),
            _ => None,
        };
    }
    Some(match pressed.code {
        KeyCode::Char(letter) => Key::Char(letter),
        KeyCode::Up => Key::Up,
        KeyCode::Down => Key::Down,
        KeyCode::PageUp => Key::PageUp,
        KeyCode::PageDown => Key::PageDown,
        KeyCode::Home => Key::Home,
        KeyCode::End => Key::End,
        KeyCode::Left | KeyCode::BackTab => Key::Left,
        KeyCode::Right | KeyCode::Tab => Key::Right,
        KeyCode::Enter => Key::Enter,
        KeyCode::Backspace => Key::Backspace,
        KeyCode::Esc => Key::Esc,
        _ => return None,
    })
}
