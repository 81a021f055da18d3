//! The panes of the view and their columns.

/// A pane.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Pane {
    /// The daemons of the cluster.
    #[default]
    Members,
    /// Erlang nodes and services.
    Names,
    /// The links of the daemon.
    Links,
    /// The events.
    Events,
}

impl Pane {
    /// All panes, from left to right.
    pub const ALL: [Pane; 4] = [Pane::Members, Pane::Names, Pane::Links, Pane::Events];

    /// The title.
    pub fn title(self) -> &'static str {
        match self {
            Pane::Members => "Members",
            Pane::Names => "Names",
            Pane::Links => "Links",
            Pane::Events => "Events",
        }
    }

    /// The position, from the left.
    pub fn index(self) -> usize {
        Pane::ALL.iter().position(|pane| *pane == self).unwrap_or_default()
    }

    /// The pane at this position, modulo their number.
    pub fn at(index: usize) -> Pane {
        Pane::ALL.get(index % Pane::ALL.len()).copied().unwrap_or_default()
    }

    /// The columns. The first one takes the remaining space.
    pub fn columns(self) -> &'static [Column] {
        const MEMBERS: [Column; 8] = [
            column("HOST", 19, 0),
            column("STATE", 7, 0),
            column("NAMES", 5, 1),
            column("RTT", 8, 2),
            column("PHI", 5, 4),
            column("PATH", 6, 5),
            column("ADDRESS", 21, 3),
            column("VERSION", 7, 6),
        ];
        const NAMES: [Column; 5] = [
            column("NAME", 10, 0),
            column("HOST", 14, 0),
            column("PORT", 5, 1),
            column("KIND", 7, 2),
            column("AGE", 8, 3),
        ];
        const LINKS: [Column; 9] = [
            column("HOST", 10, 0),
            column("RTT", 8, 0),
            column("PHI", 5, 1),
            column("HEARD", 6, 4),
            column("UP", 8, 5),
            column("RECEIVED", 9, 6),
            column("SENT", 9, 6),
            column("ADDRESS", 21, 3),
            column("AGREES", 6, 2),
        ];
        const EVENTS: [Column; 4] =
            [column("WHAT", 14, 0), column("KIND", 12, 0), column("TIME", 8, 1), column("REASON", 16, 2)];
        match self {
            Pane::Members => &MEMBERS,
            Pane::Names => &NAMES,
            Pane::Links => &LINKS,
            Pane::Events => &EVENTS,
        }
    }
}

/// A column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    /// The heading.
    pub heading: &'static str,
    /// The minimum width in characters.
    pub width: u16,
    /// Where space is short, columns with the greatest number are omitted first.
    pub dispensable: u8,
}

const fn column(heading: &'static str, width: u16, dispensable: u8) -> Column {
    Column { heading, width, dispensable }
}
