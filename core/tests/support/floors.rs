//! Checks the dependencies between the modules of a crate in its sources.
//!
//! Modules are arranged in floors. A module may only use modules on lower floors. The files of one module must not have
//! cyclic dependencies.
//!
//! Dependencies are found in `use` declarations and in paths that start with `crate`, `self`, `super` or the name of a
//! child module. Items under `#[cfg(test)]` are skipped.

#![allow(
    dead_code,
    unreachable_pub,
    reason = "shared by several test crates, each of which uses only a part"
)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "an unreadable source fails the test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// All violations in the crate whose sources are in `root`, each with the two files involved.
///
/// `floors` lists the module names of each floor from the bottom up. Modules on the same floor must not use each other.
pub fn violations(root: &Path, floors: &[&[&str]]) -> Vec<String> {
    let mut sources = BTreeMap::new();
    read_folder(root, "", &mut sources);
    violations_in(&sources, floors)
}

/// Like [`violations`], for sources in memory: file names relative to the root, with `/`, and their text.
pub fn violations_in(sources: &BTreeMap<String, String>, floors: &[&[&str]]) -> Vec<String> {
    let mut krate = Crate::new(sources);
    let arrows = krate.arrows(sources);
    let mut found = unplaced(&krate, floors);
    let floor_of = |room: &str| floors.iter().position(|floor| floor.contains(&room));
    for arrow in &arrows {
        let (from, to) = (room(&arrow.from), room(&arrow.to));
        if from == to {
            continue;
        }
        // The root of the crate uses all modules, so no module may use the root.
        let above = usize::MAX;
        let (below, top) = (floor_of(from).unwrap_or(above), floor_of(to).unwrap_or(above));
        if below <= top {
            let direction = if below == top { "sideways" } else { "upwards" };
            found.push(format!(
                "{}:{} uses {} {direction}: {}",
                krate.files[&arrow.from], arrow.line, krate.files[&arrow.to], arrow.path
            ));
        }
    }
    found.extend(cycles(&krate, &arrows));
    found
}

/// The path of a module: `["a", "b"]` for `crate::a::b`.
type Module = Vec<String>;

/// The top-level module that a module belongs to; empty for the root of the crate.
fn room(module: &[String]) -> &str {
    module.first().map_or("", String::as_str)
}

struct Arrow {
    from: Module,
    to: Module,
    line: usize,
    path: String,
}

struct Crate {
    files: BTreeMap<Module, String>,
    /// Modules that are only compiled for tests.
    tests: BTreeSet<Module>,
}

impl Crate {
    fn new(sources: &BTreeMap<String, String>) -> Self {
        let files = sources.keys().map(|file| (module_of(file), file.clone())).collect();
        Self { files, tests: BTreeSet::new() }
    }

    fn arrows(&mut self, sources: &BTreeMap<String, String>) -> Vec<Arrow> {
        let mut arrows = Vec::new();
        let mut tests = BTreeSet::new();
        for (module, file) in &self.files {
            let mut walk =
                Walk { krate: self, module, inline: Vec::new(), arrows: &mut arrows, tests: &mut tests };
            walk.run(&tokens(&sources[file]));
        }
        let is_test = |module: &Module| (1..=module.len()).any(|length| tests.contains(&module[..length]));
        // The root declares and re-exports all modules.
        arrows.retain(|arrow| !arrow.from.is_empty() && arrow.from != arrow.to && !is_test(&arrow.from));
        self.tests = tests;
        arrows
    }

    /// The module that a path leads to: its longest prefix that is a module.
    fn resolve(&self, path: &[String]) -> Module {
        let lengths = (0..=path.len()).rev();
        lengths
            .map(|length| path[..length].to_vec())
            .find(|module| self.files.contains_key(module))
            .unwrap_or_default()
    }
}

fn unplaced(krate: &Crate, floors: &[&[&str]]) -> Vec<String> {
    let rooms: BTreeSet<_> = krate
        .files
        .keys()
        .filter(|module| !krate.tests.contains(&module[..module.len().min(1)]))
        .map(|module| room(module))
        .filter(|room| !room.is_empty())
        .collect();
    let placed: Vec<_> = floors.iter().flat_map(|floor| floor.iter().copied()).collect();
    let mut found: Vec<_> = rooms
        .iter()
        .filter(|room| !placed.contains(room))
        .map(|room| format!("{room} has no floor"))
        .collect();
    found.extend(
        placed.iter().filter(|name| !rooms.contains(*name)).map(|name| format!("there is no module {name}")),
    );
    found
}

/// Cyclic dependencies among the files of one module, each reported once.
fn cycles(krate: &Crate, arrows: &[Arrow]) -> Vec<String> {
    let mut uses: BTreeMap<&Module, BTreeSet<&Module>> = BTreeMap::new();
    for arrow in arrows.iter().filter(|arrow| room(&arrow.from) == room(&arrow.to)) {
        uses.entry(&arrow.from).or_default().insert(&arrow.to);
    }
    let mut found = Vec::new();
    let mut reported = BTreeSet::new();
    for start in uses.keys() {
        let Some(cycle) = cycle_through(start, &uses) else { continue };
        if cycle.iter().any(|module| !reported.insert(*module)) {
            continue;
        }
        let files: Vec<_> = cycle.iter().chain([start]).map(|module| krate.files[*module].as_str()).collect();
        found.push(format!("cycle: {}", files.join(" -> ")));
    }
    found
}

/// The shortest cycle through `start`.
fn cycle_through<'a>(
    start: &'a Module,
    uses: &BTreeMap<&'a Module, BTreeSet<&'a Module>>,
) -> Option<Vec<&'a Module>> {
    let mut paths = vec![vec![start]];
    let mut seen = BTreeSet::new();
    while !paths.is_empty() {
        let mut longer = Vec::new();
        for path in paths {
            for next in uses.get(path[path.len() - 1]).into_iter().flatten() {
                if *next == start {
                    return Some(path);
                }
                if seen.insert(*next) {
                    longer.push([path.as_slice(), &[*next]].concat());
                }
            }
        }
        paths = longer;
    }
    None
}

fn read_folder(folder: &Path, prefix: &str, sources: &mut BTreeMap<String, String>) {
    for item in fs::read_dir(folder).unwrap() {
        let item = item.unwrap();
        let name = format!("{prefix}{}", item.file_name().to_str().unwrap());
        if item.path().is_dir() {
            read_folder(&item.path(), &format!("{name}/"), sources);
        } else if name.ends_with(".rs") {
            sources.insert(name, fs::read_to_string(item.path()).unwrap());
        }
    }
}

fn module_of(file: &str) -> Module {
    let path = file.trim_end_matches(".rs");
    let path = path.strip_suffix("/mod").unwrap_or(path);
    if matches!(path, "lib" | "main" | "mod") {
        Vec::new()
    } else {
        path.split('/').map(str::to_owned).collect()
    }
}

/// One pass over the tokens of a file.
struct Walk<'a> {
    krate: &'a Crate,
    module: &'a Module,
    /// The inline modules around the current token, each with the brace depth at which it ends.
    inline: Vec<(String, usize)>,
    arrows: &'a mut Vec<Arrow>,
    tests: &'a mut BTreeSet<Module>,
}

impl Walk<'_> {
    fn run(&mut self, tokens: &[Token<'_>]) {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
        let (mut at, mut depth, mut exported) = (0, 0_usize, false);
        while at < tokens.len() {
            match text(at) {
                "#" if is_cfg_test(&tokens[at..]) => {
                    at = self.skip_test_item(tokens, at);
                    continue;
                }
                "{" => depth += 1,
                "}" => {
                    depth = depth.saturating_sub(1);
                    while self.inline.last().is_some_and(|(_, end)| *end >= depth) {
                        self.inline.pop();
                    }
                }
                ";" => exported = false,
                "mod" if text(at + 2) == "{" => self.inline.push((text(at + 1).to_owned(), depth)),
                "use" => exported = at > 0 && matches!(text(at - 1), "pub" | ")"),
                first if text(at + 1) == "::" && (at == 0 || text(at - 1) != "::") => {
                    if let Some(base) = self.base(first) {
                        at = self.path(tokens, at + 2, base, exported);
                        continue;
                    }
                }
                _ => {}
            }
            at += 1;
        }
    }

    /// The module of this crate that the first word of a path refers to, if any.
    fn base(&self, first: &str) -> Option<Module> {
        let here: Module =
            self.module.iter().chain(self.inline.iter().map(|(name, _)| name)).cloned().collect();
        match first {
            "crate" => Some(Vec::new()),
            "self" => Some(here),
            "super" => Some(here[..here.len().saturating_sub(1)].to_vec()),
            child => {
                let child = [here.as_slice(), &[child.to_owned()]].concat();
                self.krate.files.contains_key(&child).then_some(child)
            }
        }
    }

    /// Follows a path or a tree of paths from `at`, after `base::`, and returns where it ends.
    fn path(&mut self, tokens: &[Token<'_>], mut at: usize, mut base: Module, exported: bool) -> usize {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
        loop {
            match text(at) {
                "{" => {
                    at += 1;
                    while !matches!(text(at), "}" | "") {
                        at = if text(at) == "," {
                            at + 1
                        } else {
                            self.path(tokens, at, base.clone(), exported)
                        };
                    }
                    return at + 1;
                }
                "super" => {
                    base.pop();
                }
                "self" | "*" => {}
                word if is_word(word) => base.push(word.to_owned()),
                // Type arguments, or no path at all.
                _ => {
                    self.arrow(tokens[at - 1].line, &base, exported);
                    return at;
                }
            }
            at += 1;
            if text(at) != "::" {
                self.arrow(tokens[at - 1].line, &base, exported);
                return if text(at) == "as" { at + 2 } else { at };
            }
            at += 1;
        }
    }

    fn arrow(&mut self, line: usize, path: &[String], exported: bool) {
        let to = self.krate.resolve(path);
        // A module that re-exports items of its children does not use them.
        if exported && to.starts_with(self.module) {
            return;
        }
        let path = format!("crate::{}", path.join("::"));
        self.arrows.push(Arrow { from: self.module.clone(), to, line, path });
    }

    /// Skips the item that a `#[cfg(test)]` at `at` belongs to, and returns where it ends.
    fn skip_test_item(&mut self, tokens: &[Token<'_>], mut at: usize) -> usize {
        let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
        let close = |mut at: usize, (open, close): (&str, &str)| {
            let mut depth = 0;
            while at < tokens.len() {
                depth += usize::from(text(at) == open);
                depth -= usize::from(text(at) == close);
                at += 1;
                if depth == 0 {
                    break;
                }
            }
            at
        };
        while text(at) == "#" {
            at = close(at + 1, ("[", "]"));
        }
        let mut is_use = false;
        while at < tokens.len() {
            match text(at) {
                "use" => is_use = true,
                "mod" if text(at + 2) == ";" => {
                    self.tests.insert([self.module.as_slice(), &[text(at + 1).to_owned()]].concat());
                }
                ";" => return at + 1,
                "{" if !is_use => return close(at, ("{", "}")),
                _ => {}
            }
            at += 1;
        }
        at
    }
}

fn is_cfg_test(tokens: &[Token<'_>]) -> bool {
    let text = |at: usize| tokens.get(at).map_or("", |token| token.text);
    let is_cfg = text(1) == "[" && text(2) == "cfg" && text(3) == "(";
    // Items under `not(test)` are compiled in all other builds.
    is_cfg && (text(4) == "test" || (text(4) == "all" && text(6) == "test"))
}

/// A word, `::`, or any other single character of code, with its line.
struct Token<'a> {
    text: &'a str,
    line: usize,
}

fn is_word(text: &str) -> bool {
    text.starts_with(|c: char| c.is_alphanumeric() || c == '_')
}

/// The tokens of a source, without comments, strings and character literals.
fn tokens(source: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let (mut rest, mut line) = (source, 1);
    while let Some(first) = rest.chars().next() {
        let (length, is_code) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), false)
        } else if rest.starts_with("/*") {
            (block_comment(rest), false)
        } else if let Some(length) = literal(rest) {
            (length, false)
        } else if is_word(rest) {
            (rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len()), true)
        } else if rest.starts_with("::") {
            (2, true)
        } else {
            (first.len_utf8(), !first.is_whitespace())
        };
        let (text, after) = rest.split_at(length);
        if is_code {
            tokens.push(Token { text, line });
        }
        line += text.matches('\n').count();
        rest = after;
    }
    tokens
}

fn block_comment(source: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < source.len() {
        let rest = &source.as_bytes()[at..];
        let (opens, closes) = (rest.starts_with(b"/*"), rest.starts_with(b"*/"));
        depth += usize::from(opens);
        depth -= usize::from(closes);
        at += if opens || closes { 2 } else { 1 };
        if depth == 0 {
            return at;
        }
    }
    source.len()
}

/// The length of the string or character literal at the start of the source, if any.
fn literal(source: &str) -> Option<usize> {
    let prefix = source.find(|c| !matches!(c, 'b' | 'c' | 'r')).filter(|length| *length <= 2)?;
    let is_raw = source[..prefix].contains('r');
    let body = &source[prefix..];
    if is_raw && body.starts_with(['"', '#']) {
        let hashes = body.find(|c| c != '#')?;
        let end = format!("\"{}", &body[..hashes]);
        let text = body[hashes..].strip_prefix('"')?;
        return Some(prefix + hashes + 1 + text.find(&end)? + end.len());
    }
    let quote = body.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut characters = body.char_indices().skip(1);
    let is_lifetime = quote == '\'' && !body[1..].starts_with('\\') && body.chars().nth(2) != Some('\'');
    if is_lifetime {
        return Some(prefix + 1);
    }
    while let Some((at, c)) = characters.next() {
        if c == '\\' {
            characters.next();
        } else if c == quote {
            return Some(prefix + at + 1);
        }
    }
    None
}
