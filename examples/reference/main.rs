//! Prints `docs/reference.md`: `cargo run --example reference > docs/reference.md`.

use std::io::{self, Write};

mod page;

fn main() -> io::Result<()> {
    io::stdout().write_all(page::page().as_bytes())
}
