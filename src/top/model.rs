//! What is looked at: the pane, the place in it, what is searched for and how it is sorted. Changed by keys.

use jiff::Timestamp;

use super::table;
use super::world::{Update, World};

/// The longest text that can be searched for: longer than a name of a node that somebody would type.
const MAX_SEARCH: usize = 128;

/// A key, as far as it means something here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// A letter, digit or sign.
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
    /// Takes what was typed.
    Enter,
    /// Takes the last letter back.
    Backspace,
    /// Gives up, or ends.
    Esc,
    /// Ends, whatever else is going on.
    Interrupt,
}

/// A pane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pane {
    /// The daemons.
    #[default]
    Members,
    /// Erlang nodes and services.
    Names,
    /// The links of the daemon.
    Links,
    /// What happened.
    Events,
}

impl Pane {
    /// All of them, from left to right.
    pub const ALL: [Pane; 4] = [Pane::Members, Pane::Names, Pane::Links, Pane::Events];

    /// Its title.
    pub fn title(self) -> &'static str {
        match self {
            Pane::Members => "Members",
            Pane::Names => "Names",
            Pane::Links => "Links",
            Pane::Events => "Events",
        }
    }

    /// Its place, from the left.
    pub fn index(self) -> usize {
        Pane::ALL.iter().position(|pane| *pane == self).unwrap_or_default()
    }

    fn at(index: usize) -> Pane {
        Pane::ALL.get(index % Pane::ALL.len()).copied().unwrap_or_default()
    }
}

/// The place in one pane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Permit {
    /// The line that is marked.
    pub selected: usize,
    /// The first line that is seen.
    pub first: usize,
    /// The column that is sorted by.
    pub sort: usize,
    /// Whether the largest is first.
    pub reverse: bool,
}

/// Whether to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// Go on.
    Stay,
    /// The user wants to end.
    End,
}

/// The state of the view.
#[derive(Debug)]
pub struct View {
    /// What is known.
    pub world: World,
    /// The pane that is seen.
    pub pane: Pane,
    /// The place in each pane.
    places: [Permit; Pane::ALL.len()],
    /// What is searched for; empty shows all.
    pub search: String,
    /// Whether it is being typed.
    pub typing: bool,
    /// Whether there are colours.
    pub colour: bool,
    /// What time it is.
    pub now: Timestamp,
    /// Lines of the pane that can be seen at once.
    page: usize,
}

impl View {
    /// A view of nothing yet.
    pub fn new(colour: bool, now: Timestamp) -> View {
        let mut places = [Permit::default(); Pane::ALL.len()];
        if let Some(events) = places.get_mut(Pane::Events.index()) {
            // The latest is what somebody wants to see.
            events.reverse = true;
        }
        View {
            world: World::default(),
            pane: Pane::default(),
            places,
            search: String::new(),
            typing: false,
            colour,
            now,
            page: 1,
        }
    }

    /// Takes in something new.
    pub fn update(&mut self, update: Update) {
        self.world.update(update);
    }

    /// The place in the pane that is seen.
    pub fn place(&self) -> Permit {
        self.places.get(self.pane.index()).copied().unwrap_or_default()
    }

    /// Makes the place fit a pane of so many lines of which so many can be seen, and returns it.
    pub fn fit(&mut self, lines: usize, page: usize) -> Permit {
        self.page = page.max(1);
        let page = self.page;
        self.change(|place| {
            place.selected = place.selected.min(lines.saturating_sub(1));
            place.first = place.first.min(place.selected).max((place.selected + 1).saturating_sub(page));
            // No empty lines at the end while there is something to be seen at the beginning.
            place.first = place.first.min(lines.saturating_sub(page));
        });
        self.place()
    }

    /// Does what a key means.
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
                let columns = table::columns(self.pane).len().max(1);
                self.change(|place| place.sort = (place.sort + 1) % columns);
            }
            Key::Char('r') => self.change(|place| place.reverse = !place.reverse),
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
        self.change(|place| {
            place.selected = match key {
                Key::Up | Key::Char('k') => place.selected.saturating_sub(1),
                // What is too far is put right when the lines are counted.
                Key::Down | Key::Char('j') => place.selected.saturating_add(1),
                Key::PageUp => place.selected.saturating_sub(page),
                Key::PageDown | Key::Char(' ') => place.selected.saturating_add(page),
                Key::Home | Key::Char('g') => 0,
                Key::End | Key::Char('G') => usize::MAX - 1,
                _ => place.selected,
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
        self.places.iter_mut().for_each(|place| place.selected = 0);
    }

    fn change(&mut self, change: impl FnOnce(&mut Permit)) {
        if let Some(place) = self.places.get_mut(self.pane.index()) {
            change(place);
        }
    }
}
