//! The most verbose log levels: all data read or written, in hexadecimal and as characters, and all names after each
//! change.

use std::fmt::Write;

use crate::names::NameRegistry;

/// The log target of the listings, by which they can be filtered out.
pub const NAMES: &str = "pmd::names";

/// The number of bytes shown of one piece of data.
const SHOWN: usize = 1024;
/// The number of bytes in one row.
const ROW: usize = 16;

/// Logs data that was read or written, if the level is enabled.
pub(super) fn bytes(piece: &[u8]) {
    if tracing::enabled!(tracing::Level::TRACE) {
        tracing::trace!("got {} bytes{}", piece.len(), dump(piece));
    }
}

/// Logs all names, if the level is enabled.
pub(super) fn names(registry: &NameRegistry) {
    if !tracing::enabled!(target: NAMES, tracing::Level::TRACE) {
        return;
    }
    let mut text = String::new();
    for entry in registry.all() {
        // Writing to a string cannot fail.
        let _ = write!(text, "\r\n*****     \"{}#{}\" at port {}", entry.name, entry.creation, entry.port);
    }
    let (active, old) = registry.count();
    tracing::trace!(target: NAMES, "{active} active and {old} old names{text}");
}

fn dump(piece: &[u8]) -> String {
    let mut text = String::new();
    for (number, row) in piece.get(..SHOWN.min(piece.len())).unwrap_or_default().chunks(ROW).enumerate() {
        let mut hex = String::new();
        for (column, byte) in row.iter().enumerate() {
            let gap = if column == ROW / 2 { "  " } else { " " };
            // Writing to a string cannot fail.
            let _ = write!(hex, "{}{byte:02x}", if column == 0 { "" } else { gap });
        }
        let printable = |byte: &u8| if (b' '..=b'~').contains(byte) { char::from(*byte) } else { '.' };
        let characters: String = row.iter().map(printable).collect();
        let _ = write!(text, "\r\n***** {:08x}  {hex:<48}  |{characters}|", number * ROW);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_sixteen_with_a_gap_in_the_middle() {
        assert_eq!(
            dump(b"\x00\x10x\x03\xe8M\x00\x00\x06\x00\x06\x00\x03foo\x00\x00"),
            "\r\n***** 00000000  00 10 78 03 e8 4d 00 00  06 00 06 00 03 66 6f 6f  |..x..M.......foo|\
             \r\n***** 00000010  00 00                                             |..|"
        );
    }
}
