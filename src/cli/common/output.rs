//! What commands print: data on standard output in the form that was asked for, messages on standard error.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use clap::ValueEnum;
use serde::Serialize;
use serde_json::Value;

use super::failure::{Failure, Result};
use crate::base::text::{printable, without_numbers};
use crate::control::api::ErrorBody;

/// The form of a command's data.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide screens: more columns.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON document a line.
    Jsonl,
    /// Values separated by tabs, without headings: for scripts without a JSON parser.
    Plain,
}

impl Format {
    /// Whether programs are to read it as JSON, errors included.
    pub fn is_json(self) -> bool {
        matches!(self, Format::Json | Format::Jsonl)
    }
}

/// Colours, which only ever stand for a state.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// As it should be.
    Green,
    /// To be looked after.
    Yellow,
    /// Bad.
    Red,
}

/// Where and how a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The form of the data.
    pub format: Format,
    colour: bool,
}

/// A table.
#[derive(Debug)]
pub struct List<T> {
    /// The headings. Those that begin with `+` are for wide screens; a state is in the last column.
    pub headings: &'static [&'static str],
    /// The cells of one item, as many as there are headings.
    pub cells: fn(&T) -> Vec<String>,
    /// The colour of an item's last cell.
    pub colour: fn(&T) -> Option<Colour>,
    /// What is said to people if there is nothing.
    pub empty: String,
}

impl Output {
    /// Prints in this form; coloured only where `colour` allows it and a person looks.
    pub fn new(format: Format, colour: bool) -> Output {
        let person =
            io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output { format, colour: colour && wanted && person }
    }

    /// Whether there are colours.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// The same in another form.
    pub fn with_format(self, format: Format) -> Output {
        Output { format, ..self }
    }

    /// Prints `items`, which are the list at `key` of `document`.
    pub fn list<T: Serialize>(&self, document: &impl Serialize, items: &[T], list: &List<T>) -> Result<()> {
        let mut out = stdout();
        self.write_list(&mut out, document, items, list)?;
        Ok(out.flush()?)
    }

    /// The same, to any place.
    pub fn write_list<T: Serialize>(
        &self,
        out: &mut impl Write,
        document: &impl Serialize,
        items: &[T],
        list: &List<T>,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => json(out, document, true)?,
            Format::Jsonl => {
                for item in items {
                    json(out, item, false)?;
                }
            }
            Format::Plain => {
                for item in items {
                    let cells = (list.cells)(item);
                    let cells: Vec<_> = cells.iter().map(|cell| printable(cell)).collect();
                    writeln!(out, "{}", cells.join("\t"))?;
                }
            }
            Format::Table | Format::Wide if items.is_empty() => note(&list.empty),
            Format::Table | Format::Wide => self.table(out, items, list)?,
        }
        Ok(())
    }

    /// Prints one thing; `human` writes it for people.
    pub fn one(
        &self,
        document: &impl Serialize,
        human: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let mut out = stdout();
        match self.format {
            Format::Json => json(&mut out, document, true)?,
            Format::Jsonl => json(&mut out, document, false)?,
            Format::Plain => flat(&mut out, "", &serde_json::to_value(document).unwrap_or_default())?,
            Format::Table | Format::Wide => human(&mut out)?,
        }
        Ok(out.flush()?)
    }

    /// Text in a colour, if there are any.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colour {
            return text.to_owned();
        }
        let number = match colour {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
        };
        format!("\u{1b}[{number}m{text}\u{1b}[0m")
    }

    /// Tells why a command failed: people on standard error, programs that asked for JSON also on standard
    /// output.
    pub fn failure(&self, failure: &Failure) {
        if failure.message.is_empty() {
            return;
        }
        note(&format!(
            "error: {}\nhint: {}",
            printable_lines(&failure.message),
            printable_lines(&failure.hint)
        ));
        if self.format.is_json() {
            let mut out = stdout();
            let body = ErrorBody { error: failure.info() };
            // If that cannot be said either, the exit code is what is left.
            let _ = json(&mut out, &body, self.format == Format::Json).and_then(|()| out.flush());
        }
    }

    fn table<T>(&self, out: &mut impl Write, items: &[T], list: &List<T>) -> io::Result<()> {
        let wide = self.format == Format::Wide;
        let shown: Vec<bool> =
            list.headings.iter().map(|heading| wide || !heading.starts_with('+')).collect();
        let select = |cells: Vec<String>| {
            cells
                .into_iter()
                .zip(&shown)
                .filter(|(_, shown)| **shown)
                .map(|(cell, _)| cell)
                .collect::<Vec<_>>()
        };
        let mut table = comfy_table::Table::new();
        table.load_style(comfy_table::presets::NOTHING);
        table.set_content_arrangement(comfy_table::ContentArrangement::Disabled);
        table.set_header(select(
            list.headings.iter().map(|text| text.trim_start_matches('+').into()).collect(),
        ));
        let mut states = vec![(None, String::new())];
        for item in items {
            let cells: Vec<String> =
                select((list.cells)(item)).iter().map(|cell| printable(cell).into_owned()).collect();
            states.push(((list.colour)(item), cells.last().cloned().unwrap_or_default()));
            table.add_row(cells);
        }
        for column in table.column_iter_mut() {
            column.set_padding((0, 2));
        }
        // The state is last in its line, so that its colour cannot move anything else.
        for (line, (colour, state)) in table.lines().zip(states) {
            let line = line.trim_end();
            match (colour, line.strip_suffix(state.as_str())) {
                (Some(colour), Some(before)) if !state.is_empty() => {
                    writeln!(out, "{before}{}", self.paint(colour, &state))?;
                }
                _ => writeln!(out, "{line}")?,
            }
        }
        Ok(())
    }
}

/// Says something to people. If they have closed their ears, that is no failure.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", without_numbers(text));
}

/// Standard output, to be flushed by whoever has written.
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Writes a JSON document and ends the line.
pub fn json(out: &mut impl Write, document: &impl Serialize, pretty: bool) -> io::Result<()> {
    if pretty {
        serde_json::to_writer_pretty(&mut *out, document)?;
    } else {
        serde_json::to_writer(&mut *out, document)?;
    }
    writeln!(out)
}

/// A document as lines of path and value, separated by a tab.
fn flat(out: &mut impl Write, path: &str, value: &Value) -> io::Result<()> {
    let below = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(key, value)| flat(out, &below(key), value)),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .try_for_each(|(index, value)| flat(out, &below(&index.to_string()), value)),
        Value::String(text) => writeln!(out, "{path}\t{}", printable(text)),
        other => writeln!(out, "{path}\t{other}"),
    }
}

fn printable_lines(text: &str) -> String {
    text.lines().map(printable).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const PEOPLE: List<(&str, &str)> = List {
        headings: &["NAME", "+SIZE", "STATE"],
        cells: |(name, state)| vec![(*name).to_owned(), name.len().to_string(), (*state).to_owned()],
        colour: |(_, state)| Some(if *state == "well" { Colour::Green } else { Colour::Red }),
        empty: String::new(),
    };

    fn table(format: Format, colour: bool) -> String {
        let mut out = Vec::new();
        let items = [("joe", "well"), ("robert\u{1b}[2J", "ill"), ("müller", "")];
        Output { format, colour }.table(&mut out, &items, &PEOPLE).expect("memory takes it");
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_table_has_aligned_columns_and_no_control_characters() {
        assert_eq!(
            table(Format::Table, false),
            "NAME             STATE\njoe              well\nrobert\\u{1b}[2J  ill\nmüller\n"
        );
        assert_eq!(
            table(Format::Wide, false),
            "NAME             SIZE  STATE\njoe              3     well\nrobert\\u{1b}[2J  10    ill\n\
             müller           7\n"
        );
    }

    #[test]
    fn only_the_state_is_coloured() {
        assert_eq!(
            table(Format::Table, true),
            "NAME             STATE\njoe              \u{1b}[32mwell\u{1b}[0m\n\
             robert\\u{1b}[2J  \u{1b}[31mill\u{1b}[0m\nmüller\n"
        );
    }

    #[test]
    fn a_document_can_be_flat() {
        let mut out = Vec::new();
        flat(&mut out, "", &json!({"a": {"b": [1, "x\ny"]}, "c": null})).expect("memory takes it");
        assert_eq!(String::from_utf8(out).expect("text"), "a.b.0\t1\na.b.1\tx\\ny\nc\tnull\n");
    }
}
