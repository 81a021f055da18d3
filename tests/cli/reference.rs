//! `docs/reference.md` is up to date and complete.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use pmd::config::file;

#[path = "../../examples/reference/page.rs"]
mod page;

/// Variables that pmd sets for its own child processes.
const INTERNAL: [&str; 2] = ["PMD_READY_PIPE", "PMD_STARTER"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_reference_is_up_to_date() {
    let written = std::fs::read_to_string(root().join("docs/reference.md")).unwrap_or_default();
    let made = page::page();
    let differs = written.lines().zip(made.lines()).position(|(written, made)| written != made);
    assert!(
        written == made,
        "docs/reference.md is out of date from line {} on; renew it: cargo run --example reference > docs/reference.md",
        differs.unwrap_or(written.lines().count().min(made.lines().count())) + 1
    );
}

#[test]
fn no_placeholders_of_the_template_remain() {
    let page = page::page();
    let marks: Vec<&str> =
        page.lines().filter(|line| line.starts_with("<!-- ") && line.ends_with(" -->")).collect();
    assert_eq!(marks, [""; 0]);
}

#[test]
fn the_examples_of_configuration_are_valid() {
    let page = page::page();
    let examples: Vec<&str> =
        page.split("```toml\n").skip(1).filter_map(|block| block.split("```").next()).collect();
    assert_eq!(examples.len(), 1);
    for example in examples {
        file::parse(example, Path::new("pmd.toml")).expect(example);
    }
}

#[test]
fn every_environment_variable_is_in_the_reference() {
    let page = page::page();
    let mut found = BTreeSet::new();
    for file in sources(&root().join("src")) {
        let text = std::fs::read_to_string(file).expect("a source file");
        let code = text.lines().filter(|line| !line.trim_start().starts_with("//"));
        let literals = code.flat_map(|line| line.split('"')).filter(|part| {
            part.starts_with("PMD_") && part.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
        });
        found.extend(literals.map(str::to_owned));
    }
    found.retain(|name| name != "PMD_" && !INTERNAL.contains(&name.as_str()));
    assert!(found.len() > 12, "{found:?}");
    let missing: Vec<&String> =
        found.iter().filter(|name| !page.contains(&format!("| `{name}` |"))).collect();
    assert_eq!(missing, Vec::<&String>::new());
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    entries
        .flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] })
        .filter(|path| path.extension().is_some_and(|extension| extension == "rs"))
        .collect()
}
