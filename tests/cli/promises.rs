//! The promises of `docs/security-model.md` name tests that exist.

use std::collections::BTreeSet;
use std::path::Path;

/// The names of all functions in the Rust files below this folder, build output excepted.
fn functions(folder: &Path, names: &mut BTreeSet<String>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            functions(&path, names);
        } else if name.ends_with(".rs") {
            let text = std::fs::read_to_string(&path).expect("a text");
            let after = text.split("fn ").skip(1);
            names.extend(after.filter_map(|rest| Some(rest.split_once('(')?.0.to_owned())));
        }
    }
}

#[test]
fn every_promise_names_its_tests() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = std::fs::read_to_string(root.join("docs/security-model.md")).expect("the page");
    let (_, section) = page.split_once("## Promises").expect("the section");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows: Vec<(&str, &str)> = section
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.strip_suffix(" |")?.split_once(" | "))
        .filter(|(promise, _)| *promise != "promise")
        .collect();
    assert!(rows.len() > 20, "{rows:?}");
    let mut known = BTreeSet::new();
    functions(root, &mut known);
    for (promise, tests) in rows {
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        assert!(!named.is_empty(), "{promise}: no test");
        for name in named {
            let exists = name.starts_with("make ") || known.contains(name) || root.join(name).exists();
            assert!(exists, "{promise}: there is no {name}");
        }
    }
}
