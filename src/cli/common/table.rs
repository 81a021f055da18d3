//! Tables, with a layout for people and one for scripts.

use std::io::{self, Write};

use crate::base::text::printable;

/// Colours, used only for states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// A good state.
    Green,
    /// A state that needs attention.
    Yellow,
    /// A bad state.
    Red,
}

impl Colour {
    /// The text in this colour, for a terminal.
    pub fn paint(self, text: &str) -> String {
        let number = match self {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        format!("\u{1b}[{number}m{text}\u{1b}[0m")
    }
}

/// One column of a table.
#[derive(Debug)]
pub struct Column<T> {
    heading: &'static str,
    wide: bool,
    cell: fn(&T) -> String,
}

impl<T> Column<T> {
    /// A column of every table.
    pub const fn new(heading: &'static str, cell: fn(&T) -> String) -> Column<T> {
        Column { heading, wide: false, cell }
    }

    /// A column that is only shown on wide screens and to scripts.
    pub const fn wide(heading: &'static str, cell: fn(&T) -> String) -> Column<T> {
        Column { heading, wide: true, cell }
    }
}

/// A table of items.
#[derive(Debug)]
pub struct Table<'a, T> {
    /// The columns. The state is the last one, so that its colour does not shift other columns.
    pub columns: &'a [Column<T>],
    /// The colour of an item's last cell.
    pub colour: fn(&T) -> Option<Colour>,
    /// The message for people if there are no items.
    pub empty: String,
}

impl<T> Table<'_, T> {
    /// Writes one line per item: all cells, separated by tabs.
    pub fn write_plain(&self, out: &mut dyn Write, items: &[T]) -> io::Result<()> {
        for item in items {
            let cells: Vec<String> = self.columns.iter().map(|column| cell(column, item)).collect();
            writeln!(out, "{}", cells.join("\t"))?;
        }
        Ok(())
    }

    /// Writes aligned columns under their headings.
    pub fn write_aligned(
        &self,
        out: &mut dyn Write,
        items: &[T],
        wide: bool,
        coloured: bool,
    ) -> io::Result<()> {
        let columns: Vec<&Column<T>> = self.columns.iter().filter(|column| wide || !column.wide).collect();
        let headings = columns.iter().map(|column| column.heading.to_owned()).collect();
        let rows = items.iter().map(|item| Row {
            cells: columns.iter().map(|column| cell(column, item)).collect(),
            colour: (self.colour)(item).filter(|_| coloured),
        });
        align(out, headings, rows.collect())
    }
}

/// The printable content of a cell.
fn cell<T>(column: &Column<T>, item: &T) -> String {
    printable(&(column.cell)(item)).into_owned()
}

struct Row {
    cells: Vec<String>,
    colour: Option<Colour>,
}

/// Not generic, so that the layout code is compiled only once.
fn align(out: &mut dyn Write, headings: Vec<String>, rows: Vec<Row>) -> io::Result<()> {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::presets::NOTHING);
    table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
    table.set_header(headings);
    let mut states = vec![(None, String::new())];
    for row in rows {
        states.push((row.colour, row.cells.last().cloned().unwrap_or_default()));
        table.add_row(row.cells);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    // Colours are added after the layout, which would count escape sequences as characters.
    for (line, (colour, state)) in table.lines().zip(states) {
        let line = line.trim_end();
        match (colour, line.strip_suffix(state.as_str())) {
            (Some(colour), Some(before)) if !state.is_empty() => {
                writeln!(out, "{before}{}", colour.paint(&state))?;
            }
            _ => writeln!(out, "{line}")?,
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const PEOPLE: Table<'_, (&str, &str)> = Table {
        columns: &[
            Column::new("NAME", |(name, _)| (*name).to_owned()),
            Column::wide("SIZE", |(name, _)| name.len().to_string()),
            Column::new("STATE", |(_, state)| (*state).to_owned()),
        ],
        colour: |(_, state)| Some(if *state == "well" { Colour::Green } else { Colour::Red }),
        empty: String::new(),
    };

    fn table(wide: bool, coloured: bool) -> String {
        let mut out = Vec::new();
        let items = [("joe", "well"), ("robert\u{1b}[2J", "ill"), ("müller", "")];
        PEOPLE.write_aligned(&mut out, &items, wide, coloured).expect("in-memory write");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_table_has_aligned_columns_and_no_control_characters() {
        assert_eq!(
            table(false, false),
            "NAME             STATE\njoe              well\nrobert\\u{1b}[2J  ill\nmüller\n"
        );
        assert_eq!(
            table(true, false),
            "NAME             SIZE  STATE\njoe              3     well\nrobert\\u{1b}[2J  10    ill\n\
             müller           7\n"
        );
    }

    #[test]
    fn only_the_state_is_coloured() {
        assert_eq!(
            table(false, true),
            "NAME             STATE\njoe              \u{1b}[32mwell\u{1b}[0m\n\
             robert\\u{1b}[2J  \u{1b}[31mill\u{1b}[0m\nmüller\n"
        );
    }
}
