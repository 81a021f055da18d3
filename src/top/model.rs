//! The state of the view, which keys change: the pane, the selected line, the search and the order.

use jiff::Timestamp;

use super::pane::Pane;
use super::world::{Update, World};

/// Maximum bytes of the search text, more than anyone would type.
const MAX_SEARCH: usize = 128;

/// A key that the view handles.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A letter, digit or symbol.
    Char(char),
    /// One line up.
    Up,
    /// One line down.
    Down,
    /// One page up.
    PageUp,
    /// One page down.
    PageDown,
    /// To the first line.
    Home,
    /// To the last line.
    End,
    /// The pane to the left.
    Left,
    /// The pane to the right.
    Right,
    /// Accepts the search text.
    Enter,
    /// Deletes the last letter.
    Backspace,
    /// Clears the search, or quits.
    Esc,
    /// Quits, even while a search is typed.
    Interrupt,
}

/// The selected line and the order of one pane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    /// The selected line.
    pub selected: usize,
    /// The first visible line.
    pub first: usize,
    /// The column to sort by.
    pub sort: usize,
    /// Whether the largest comes first.
    pub reverse: bool,
}

/// What to do after a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Keep the view open.
    Stay,
    /// Close the view.
    End,
}

/// The state of the view.
#[derive(Debug)]
pub struct View {
    /// The known state of the cluster.
    pub world: World,
    /// The visible pane.
    pub pane: Pane,
    /// The cursor in each pane.
    cursors: [Cursor; Pane::ALL.len()],
    /// The search text; if empty, all rows are shown.
    pub search: String,
    /// Whether the search text is being typed.
    pub typing: bool,
    /// Whether to use colours.
    pub colour: bool,
    /// The current time.
    pub now: Timestamp,
    /// The number of visible lines of the pane.
    page: usize,
}

impl View {
    /// A view without data.
    pub fn new(colour: bool, now: Timestamp) -> View {
        let mut cursors = [Cursor::default(); Pane::ALL.len()];
        if let Some(events) = cursors.get_mut(Pane::Events.index()) {
            // The latest event first.
            events.reverse = true;
        }
        View {
            world: World::default(),
            pane: Pane::default(),
            cursors,
            search: String::new(),
            typing: false,
            colour,
            now,
            page: 1,
        }
    }

    /// Applies an update.
    pub fn update(&mut self, update: Update) {
        self.world.update(update);
    }

    /// The cursor in the visible pane.
    pub fn cursor(&self) -> Cursor {
        self.cursors.get(self.pane.index()).copied().unwrap_or_default()
    }

    /// Fits the cursor to a pane of `lines` lines of which `page` are visible, and returns it.
    pub fn fit(&mut self, lines: usize, page: usize) -> Cursor {
        self.page = page.max(1);
        let page = self.page;
        self.change(|cursor| {
            cursor.selected = cursor.selected.min(lines.saturating_sub(1));
            cursor.first = cursor.first.min(cursor.selected).max((cursor.selected + 1).saturating_sub(page));
            // Scroll back rather than show empty lines at the end.
            cursor.first = cursor.first.min(lines.saturating_sub(page));
        });
        self.cursor()
    }

    /// Handles a key.
    pub fn key(&mut self, key: Key) -> Next {
        self.world.notice = None;
        match key {
            Key::Interrupt => return Next::End,
            _ if self.typing => self.typed(key),
            Key::Char('q') => return Next::End,
            Key::Esc if self.search.is_empty() => return Next::End,
            Key::Esc => self.search_for(String::new()),
            Key::Char('/') => {
                self.typing = true;
                self.search_for(String::new());
            }
            Key::Char('s') => {
                let columns = self.pane.columns().len().max(1);
                self.change(|cursor| cursor.sort = (cursor.sort + 1) % columns);
            }
            Key::Char('r') => self.change(|cursor| cursor.reverse = !cursor.reverse),
            Key::Char(digit @ '1'..='4') => {
                self.pane = Pane::at((digit.to_digit(10).unwrap_or(1) as usize).saturating_sub(1));
            }
            Key::Right | Key::Char('l') => self.pane = Pane::at(self.pane.index() + 1),
            Key::Left | Key::Char('h') => self.pane = Pane::at(self.pane.index() + Pane::ALL.len() - 1),
            other => self.moved(other),
        }
        Next::Stay
    }

    fn moved(&mut self, key: Key) {
        let page = self.page;
        self.change(|cursor| {
            cursor.selected = match key {
                Key::Up | Key::Char('k') => cursor.selected.saturating_sub(1),
                // `fit` clamps it to the last line.
                Key::Down | Key::Char('j') => cursor.selected.saturating_add(1),
                Key::PageUp => cursor.selected.saturating_sub(page),
                Key::PageDown | Key::Char(' ') => cursor.selected.saturating_add(page),
                Key::Home | Key::Char('g') => 0,
                Key::End | Key::Char('G') => usize::MAX - 1,
                _ => cursor.selected,
            };
        });
    }

    fn typed(&mut self, key: Key) {
        let mut text = self.search.clone();
        match key {
            Key::Enter => self.typing = false,
            Key::Esc => {
                self.typing = false;
                self.search_for(String::new());
            }
            Key::Backspace => {
                text.pop();
                self.search_for(text);
            }
            Key::Char(letter) if text.len() < MAX_SEARCH => {
                text.push(letter);
                self.search_for(text);
            }
            other => self.moved(other),
        }
    }

    fn search_for(&mut self, text: String) {
        self.search = text;
        self.cursors.iter_mut().for_each(|cursor| cursor.selected = 0);
    }

    fn change(&mut self, change: impl FnOnce(&mut Cursor)) {
        if let Some(cursor) = self.cursors.get_mut(self.pane.index()) {
            change(cursor);
        }
    }
}
