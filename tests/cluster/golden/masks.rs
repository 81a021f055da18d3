//! Masks values that differ from run to run: times, ids, ephemeral ports, and counts of background activity.

use serde_json::Value;

use crate::world::World;

/// Lines shown of long generated output.
const SHOWN: usize = 3;
/// Columns whose cells vary.
const COLUMNS: [&str; 18] = [
    "AGE",
    "CLOCK",
    "CREATION",
    "ENTRY",
    "FOUNDING",
    "HEARD",
    "ID",
    "NUMBER",
    "PHI",
    "RECEIVED",
    "REGISTERED",
    "RTT",
    "SENT",
    "STARTED",
    "TIME",
    "UP",
    "VERSION",
    "ENDS",
];
/// JSON keys whose values vary; for objects, all values in them.
const KEYS: [&str; 37] = [
    "age_seconds",
    "at",
    "boot_id",
    "bytes",
    "clock_ahead_ms",
    "cookies",
    "creation",
    "descriptors",
    "entries",
    "entry",
    "expires_at",
    "fingerprint",
    "founding",
    "heard_ms",
    "home",
    "id",
    "limit",
    "node_id",
    "not_after",
    "not_before",
    "pem",
    "phi",
    "pid",
    "received_bytes",
    "registered_at",
    "revoked_at",
    "rtt_us",
    "sent_bytes",
    "seq",
    "sha256",
    "started_at",
    "tunnels",
    "took_us",
    "up_seconds",
    "updated_at",
    "uptime_seconds",
    "version",
];
/// Rows of `pmd status` with counts of background activity.
const COUNTS: [&str; 5] = ["descriptors", "tunnels", "lookups", "registrations", "connections"];

/// The masks of one command's transcript.
#[derive(Debug)]
pub(super) struct Masks {
    homes: Vec<String>,
    /// Headings of the last wide table, which the plain format omits.
    headings: Vec<String>,
}

impl Masks {
    pub(super) fn new(world: &World) -> Masks {
        let homes = world.all().into_iter().map(|host| world[host].file("").display().to_string());
        Masks {
            homes: homes.map(|home| home.trim_end_matches('/').to_owned()).collect(),
            headings: Vec::new(),
        }
    }

    /// The standard output of a command.
    pub(super) fn output(&mut self, args: &[&str], output: &str) -> String {
        let command = args.first().copied().unwrap_or_default();
        let lines: Vec<&str> = output.lines().collect();
        if let Ok(mut document) = serde_json::from_str::<Value>(output) {
            mask_value("", &mut document);
            let whole = if lines.len() > 1 { format!("{document:#}\n") } else { format!("{document}\n") };
            return self.cut(command, &self.homely(&whole));
        }
        let documents: Result<Vec<Value>, _> = lines.iter().map(|line| serde_json::from_str(line)).collect();
        if let Some(documents) = documents.ok().filter(|documents| !documents.is_empty()) {
            let masked = documents.into_iter().map(|mut document| {
                mask_value("", &mut document);
                format!("{document}\n")
            });
            return self.cut(command, &self.homely(&masked.collect::<String>()));
        }
        match command {
            "metrics" => lines
                .iter()
                .filter(|line| line.starts_with("# HELP"))
                .map(|line| format!("{line}\n"))
                .collect(),
            "completion" | "man" => {
                self.cut(command, &output.replace(env!("CARGO_PKG_VERSION"), "<version>"))
            }
            _ if is_heading(lines.first().copied().unwrap_or_default()) => self.table(&lines),
            _ if lines.iter().all(|line| line.contains('\t')) => self.plain(&lines),
            _ => self.text(output),
        }
    }

    /// Text for people.
    pub(super) fn text(&self, text: &str) -> String {
        let text = self.homely(text);
        text.lines()
            .map(|line| format!("{}\n", mask_line(line)))
            .collect::<String>()
            .trim_end_matches('\n')
            .to_owned()
            + if text.ends_with('\n') { "\n" } else { "" }
    }

    /// Text without the paths of this run.
    pub(super) fn homely(&self, text: &str) -> String {
        let text = self.homes.iter().fold(text.to_owned(), |text, home| text.replace(home, "HOME"));
        masked_paths(&text)
    }

    fn cut(&self, command: &str, text: &str) -> String {
        let generated = matches!(command, "metrics" | "completion" | "man");
        let lines = text.lines().count();
        if !generated || lines <= SHOWN || text.contains("\"error\"") {
            return text.to_owned();
        }
        let shown: String = text.lines().take(SHOWN).map(|line| format!("{line}\n")).collect();
        shown + "...\n"
    }

    /// A table: columns are located by its headings, which also checks the alignment.
    fn table(&mut self, lines: &[&str]) -> String {
        let starts = columns(lines[0]);
        let rows: Vec<Vec<String>> = lines.iter().map(|line| cells(line, &starts)).collect();
        let headings = rows[0].clone();
        let rows: Vec<Vec<String>> = rows
            .into_iter()
            .enumerate()
            .map(|(row, cells)| if row == 0 { cells } else { self.cells(&headings, cells) })
            .collect();
        self.headings = headings;
        let width =
            |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or_default();
        let widths: Vec<usize> = (0..starts.len()).map(width).collect();
        let line = |row: &Vec<String>| {
            let padded: String =
                row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
            format!("{}\n", padded.trim_end())
        };
        rows.iter().map(line).collect()
    }

    /// Tab-separated values: either the columns of the last wide table, or paths with values.
    fn plain(&self, lines: &[&str]) -> String {
        let lines = lines.iter().filter(|line| !line.starts_with("counters."));
        let row = |line: &&str| {
            let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
            let cells = match cells.as_slice() {
                [path, value] if self.headings.len() != 2 => {
                    let mut value = Value::String(value.clone());
                    let varies = path.split('.').any(|key| KEYS.contains(&key));
                    if varies {
                        mask_all(path.rsplit('.').next().unwrap_or_default(), &mut value);
                    }
                    vec![path.clone(), mask_line(value.as_str().unwrap_or_default())]
                }
                _ => self.cells(&self.headings, cells),
            };
            format!("{}\n", self.homely(&cells.join("<TAB>")))
        };
        lines.map(row).collect()
    }

    fn cells(&self, headings: &[String], cells: Vec<String>) -> Vec<String> {
        let mask = |(column, cell): (usize, String)| match headings.get(column) {
            Some(heading) if !cell.is_empty() && COLUMNS.contains(&heading.as_str()) => {
                format!("<{}>", heading.to_lowercase())
            }
            _ => self.text(&cell),
        };
        cells.into_iter().enumerate().map(mask).collect()
    }
}

/// Whether a line consists of headings.
fn is_heading(line: &str) -> bool {
    line.contains("  ") && line.chars().all(|c| c.is_ascii_uppercase() || c == ' ' || c == '-')
}

/// The starts of the columns, each after two or more blanks.
fn columns(heading: &str) -> Vec<usize> {
    let bytes = heading.as_bytes();
    let begins = |at: &usize| {
        bytes[*at] != b' ' && (*at == 0 || (*at > 1 && bytes[*at - 1] == b' ' && bytes[*at - 2] == b' '))
    };
    (0..bytes.len()).filter(begins).collect()
}

/// The cells of a row, each of which must be preceded by two blanks.
fn cells(line: &str, starts: &[usize]) -> Vec<String> {
    let letters: Vec<char> = line.chars().collect();
    let ends = starts.iter().skip(1).copied().chain([usize::MAX]);
    let cell = |(start, end): (&usize, usize)| {
        let before = &letters[start.saturating_sub(2).min(letters.len())..(*start).min(letters.len())];
        assert!(before.iter().all(|c| *c == ' '), "a cell is out of its column in {line:?}");
        let text: String = letters.iter().take(end).skip(*start).collect();
        text.trim_end().to_owned()
    };
    starts.iter().zip(ends).map(cell).collect()
}

fn mask_value(key: &str, value: &mut Value) {
    // There are many, and the schema checks that all are numbers.
    if key == "counters" {
        *value = "<counters>".into();
    }
    if KEYS.contains(&key) {
        mask_all(key, value);
        return;
    }
    match value {
        Value::Object(fields) => {
            // The daemons of `pmd demo` use ephemeral ports.
            if fields.contains_key("home") {
                fields.insert("port".into(), Value::from(0));
            }
            // The round-trip time is present once the kernel has measured it.
            if fields.contains_key("phi") {
                fields.entry("rtt_us").or_insert(Value::from(0));
            }
            fields.iter_mut().for_each(|(key, value)| mask_value(key, value));
        }
        Value::Array(items) => items.iter_mut().for_each(|item| mask_value("", item)),
        Value::String(text) => {
            let masked: Vec<String> = text.lines().map(mask_line).collect();
            *text = masked.join("\n");
        }
        _ => {}
    }
}

/// Keeps only the type of a value.
fn mask_all(key: &str, value: &mut Value) {
    match value {
        Value::Object(fields) => fields.iter_mut().for_each(|(key, value)| mask_all(key, value)),
        Value::Array(items) => items.iter_mut().for_each(|item| mask_all(key, item)),
        Value::String(text) => *text = format!("<{key}>"),
        Value::Number(number) => *number = 0.into(),
        Value::Bool(_) | Value::Null => {}
    }
}

/// A line of text, word by word.
fn mask_line(line: &str) -> String {
    let row = line.trim_start().split("  ").next().unwrap_or_default();
    let counts = (line.starts_with("  ") && COUNTS.contains(&row)) || line.ends_with(" may be open");
    let mut masked = String::new();
    let mut word = String::new();
    for c in line.chars().chain(['\n']) {
        if c.is_ascii_alphanumeric() || matches!(c, ':' | '.' | '-' | '_' | '+') {
            word.push(c);
            continue;
        }
        let mask = mask_word(&masked, &word, counts);
        if word == "ms" {
            // The number is a separate word.
            let number = masked.trim_end().trim_end_matches(|c: char| c.is_ascii_digit() || c == '.').len();
            masked.truncate(number);
            masked += "<span>";
        } else {
            masked += &mask;
        }
        word.clear();
        masked.push(c);
    }
    let masked = masked.trim_end_matches('\n').replace("<span> <span>", "<span>");
    if masked == line { masked } else { single_gaps(&masked) }
}

fn mask_word(before: &str, word: &str, counts: bool) -> String {
    if let Some(masked) = with_own_port(word) {
        return masked;
    }
    let core = word.trim_end_matches(['.', ':']);
    let rest = &word[core.len()..];
    let digits = !core.is_empty() && core.bytes().all(|byte| byte.is_ascii_digit());
    let unit = core.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
    let mask = if core.len() >= 16 && core.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        "<id>"
    } else if core.len() >= 20 && core.ends_with('Z') && core.contains('T') {
        "<time>"
    } else if core.starts_with(|c: char| c.is_ascii_digit())
        && ["us", "ms", "s", "m", "h", "d"].contains(&unit)
    {
        "<span>"
    } else if core.starts_with("127.77.") {
        "<alias>"
    } else if core == env!("CARGO_PKG_VERSION") {
        "<version>"
    } else if digits && ["pid ", "process "].iter().any(|what| before.ends_with(what)) {
        "<pid>"
    } else if digits && (counts || before.ends_with("room for ") || before.ends_with("ports from ")) {
        "<n>"
    } else {
        return word.to_owned();
    };
    format!("{mask}{rest}")
}

/// An address with an ephemeral port.
fn with_own_port(word: &str) -> Option<String> {
    let (ip, port) = word.rsplit_once(':')?;
    let chosen = port.parse::<u16>().is_ok_and(|port| port >= 32_768);
    (chosen && ip.parse::<std::net::Ipv4Addr>().is_ok()).then(|| format!("{ip}:<port>"))
}

/// Collapses padding whose width varies.
fn single_gaps(line: &str) -> String {
    let indent = line.len() - line.trim_start().len();
    let pieces: Vec<&str> =
        line.trim_start().split("  ").map(str::trim).filter(|piece| !piece.is_empty()).collect();
    format!("{}{}", &line[..indent], pieces.join("  "))
}

/// Paths that vary: the directory of `pmd demo`, and the installed epmd.
fn masked_paths(text: &str) -> String {
    let mut masked = String::new();
    let mut rest = text;
    let places = [("/tmp/pmd-demo-", "<demo>"), ("/usr/lib/erlang/erts-", "<erts>")];
    while let Some((at, (path, mask))) =
        places.iter().filter_map(|place| Some((rest.find(place.0)?, place))).min_by_key(|(at, _)| *at)
    {
        masked += &rest[..at];
        masked += mask;
        let tail = &rest[at + path.len()..];
        rest = &tail[tail.find('/').unwrap_or(tail.len())..];
    }
    masked + rest
}
