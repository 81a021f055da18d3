//! Output formats.

use clap::ValueEnum;

/// The output format of a command.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A table for people.
    #[default]
    Table,
    /// A table with more columns, for wide screens.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON document per line.
    Jsonl,
    /// Tab-separated values without headings, for scripts without a JSON parser.
    Plain,
}

impl Format {
    /// Whether the output is JSON, including errors.
    pub fn is_json(self) -> bool {
        matches!(self, Format::Json | Format::Jsonl)
    }

    /// Whether the output is meant for people.
    pub fn is_for_people(self) -> bool {
        matches!(self, Format::Table | Format::Wide)
    }
}
