//! The terminal: taken over, given back however the program ends, and the keys that are typed on it.

use std::io;
use std::thread;
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use tokio::sync::mpsc::{Receiver, Sender, channel};

use super::model::Key;

/// Keys that are typed faster than they are taken: as many as a line. The reader waits, and the terminal keeps more.
const KEYS: usize = 64;
/// How often the reader looks whether anybody still wants keys.
const LOOK: Duration = Duration::from_millis(250);

/// What comes from the terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Input {
    /// A key.
    Key(Key),
    /// It has another size.
    Resized,
}

/// A terminal that shows the view. Dropped, it is as it was before; a panic gives it back, too.
#[derive(Debug)]
pub struct Screen {
    /// What is drawn on.
    pub terminal: DefaultTerminal,
}

impl Screen {
    /// Takes the terminal over.
    ///
    /// # Errors
    ///
    /// If it cannot be drawn on.
    pub fn take() -> io::Result<Screen> {
        let terminal = ratatui::try_init().inspect_err(|_| ratatui::restore())?;
        Ok(Screen { terminal })
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        // A terminal that has gone needs nothing back.
        let _ = ratatui::try_restore();
    }
}

/// Reads the terminal for as long as the receiver is there. The channel ends with the terminal.
pub fn inputs() -> io::Result<Receiver<Input>> {
    let (to, inputs) = channel(KEYS);
    thread::Builder::new().name("keys".into()).spawn(move || {
        // An error means that the terminal has gone.
        let _ = read(&to);
    })?;
    Ok(inputs)
}

fn read(to: &Sender<Input>) -> io::Result<()> {
    while !to.is_closed() {
        if !event::poll(LOOK)? {
            continue;
        }
        let input = match event::read()? {
            Event::Key(pressed) => key(pressed).map(Input::Key),
            Event::Resize(..) => Some(Input::Resized),
            _ => None,
        };
        if let Some(input) = input
            && to.blocking_send(input).is_err()
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
