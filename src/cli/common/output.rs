//! Output of commands: data on standard output in the requested format, messages on standard error.

use std::io::{self, BufWriter, IsTerminal, StdoutLock, Write};

use serde::Serialize;
use serde_json::Value;

use super::failure::{Failure, Result};
use super::table::Colour;
use super::table::Table;
use crate::base::text::{printable, without_numbers};
use crate::cli::args::Format;
use crate::control::api::ErrorBody;

/// How a command prints.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    /// The format of the data.
    pub format: Format,
    colour: bool,
    /// Whether each document replaces the previous one on the terminal.
    redraws: bool,
}

impl Output {
    /// Output in this format, in colour if `colour` and the environment allow it and standard output is a terminal.
    pub fn new(format: Format, colour: bool) -> Output {
        let terminal =
            io::stdout().is_terminal() && std::env::var_os("TERM").is_some_and(|term| term != "dumb");
        let allowed = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Output { format, colour: colour && allowed && terminal, redraws: false }
    }

    /// Whether output is coloured.
    pub fn has_colour(&self) -> bool {
        self.colour
    }

    /// The output of a command that prints repeatedly: redraws a terminal, otherwise prints JSON lines.
    pub fn watched(self) -> Output {
        if io::stdout().is_terminal() && !self.format.is_json() {
            Output { redraws: true, ..self }
        } else {
            Output { format: Format::Jsonl, ..self }
        }
    }

    /// Prints a list: `document` as JSON, or `items` as lines or a table.
    pub fn list<T: Serialize>(
        &self,
        document: &impl Serialize,
        items: &[T],
        table: &Table<'_, T>,
    ) -> Result<()> {
        let mut out = self.begin()?;
        self.write_list(&mut out, document, items, table)?;
        Ok(out.flush()?)
    }

    /// Writes the output of [`Output::list`].
    pub fn write_list<T: Serialize>(
        &self,
        out: &mut impl Write,
        document: &impl Serialize,
        items: &[T],
        table: &Table<'_, T>,
    ) -> io::Result<()> {
        match self.format {
            Format::Json => json(out, document, true),
            Format::Jsonl => items.iter().try_for_each(|item| json(out, item, false)),
            Format::Plain => table.write_plain(out, items),
            Format::Table | Format::Wide if items.is_empty() => {
                note(&table.empty);
                Ok(())
            }
            Format::Table | Format::Wide => {
                table.write_aligned(out, items, self.format == Format::Wide, self.colour)
            }
        }
    }

    /// Prints one document; `human` writes the version for people.
    pub fn one(
        &self,
        document: &impl Serialize,
        human: impl FnOnce(&mut dyn Write) -> io::Result<()>,
    ) -> Result<()> {
        let mut out = self.begin()?;
        match self.format {
            Format::Json => json(&mut out, document, true)?,
            Format::Jsonl => json(&mut out, document, false)?,
            Format::Plain => flat(&mut out, "", &serde_json::to_value(document).unwrap_or_default())?,
            Format::Table | Format::Wide => human(&mut out)?,
        }
        Ok(out.flush()?)
    }

    /// The text, coloured if colours are enabled.
    pub fn paint(&self, colour: Colour, text: &str) -> String {
        if self.colour { colour.paint(text) } else { text.to_owned() }
    }

    /// Reports a failure on standard error, and if JSON was requested also on standard output.
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
            // If this fails too, the exit code still reports the failure.
            let _ = json(&mut out, &body, self.format == Format::Json).and_then(|()| out.flush());
        }
    }

    fn begin(&self) -> io::Result<BufWriter<StdoutLock<'static>>> {
        let mut out = stdout();
        if self.redraws {
            // Flushed at once, so that it does not erase a later message on standard error.
            out.write_all(b"\x1b[H\x1b[2J")?;
            out.flush()?;
        }
        Ok(out)
    }
}

/// Writes a message to standard error. Ignores errors: standard error may be closed.
pub fn note(text: &str) {
    let _ = writeln!(io::stderr(), "{}", without_numbers(text));
}

/// Standard output, buffered; the caller flushes it.
pub fn stdout() -> BufWriter<StdoutLock<'static>> {
    BufWriter::new(io::stdout().lock())
}

/// Writes a JSON document and a newline.
pub fn json(out: &mut impl Write, document: &impl Serialize, pretty: bool) -> io::Result<()> {
    if pretty {
        serde_json::to_writer_pretty(&mut *out, document)?;
    } else {
        serde_json::to_writer(&mut *out, document)?;
    }
    writeln!(out)
}

/// Writes a document as lines of path and value, separated by a tab.
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

    #[test]
    fn a_document_can_be_flat() {
        let mut out = Vec::new();
        flat(&mut out, "", &json!({"a": {"b": [1, "x\ny"]}, "c": null})).expect("in-memory write");
        assert_eq!(String::from_utf8(out).expect("text"), "a.b.0\t1\na.b.1\tx\\ny\nc\tnull\n");
    }
}
