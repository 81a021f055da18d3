//! Validation of JSON output against the published schema.

use std::io::Write;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::machine::Said;

/// The path of the schema.
const SCHEMA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/json-schema.json");

/// Reads `[[definition, command, document]...]` from standard input and prints what is wrong with each document.
const VALIDATOR: &str = r#"
import json, sys
from jsonschema import Draft202012Validator
schema = json.load(open(sys.argv[1]))
Draft202012Validator.check_schema(schema)
for name, command, document in json.load(sys.stdin):
    if name not in schema["$defs"]:
        print(f"{command}: no definition {name}")
        continue
    validator = Draft202012Validator({**schema, "$ref": '#/$defs/' + name})
    for error in validator.iter_errors(document):
        print(f"{command}: {error.json_path}: {error.message}")
"#;

/// The collected JSON output.
#[derive(Debug, Default)]
pub(super) struct Documents(Vec<Value>);

impl Documents {
    /// Keeps a command's output if it is JSON.
    pub(super) fn collect(&mut self, args: &[&str], said: &Said) {
        let lines = args.contains(&"jsonl") || matches!(args[0], "subscribe") || args.contains(&"--watch");
        if !args.contains(&"--json") && !args.contains(&"jsonl") && !args.contains(&"--watch") {
            return;
        }
        let words: Vec<&str> = match args[0] {
            "ca" | "cookie" | "claim" => args[..2].to_vec(),
            "names" | "services" if args.contains(&"--cluster") => vec![args[0], "cluster"],
            "names" if args.len() > 1 && !args[1].starts_with('-') => vec!["names", "host"],
            other => vec![other],
        };
        let dry = args.contains(&"--dry-run").then_some("dry-run");
        let name = words.into_iter().chain(dry).collect::<Vec<_>>().join("-");
        let parse = |text: &str| -> Value {
            serde_json::from_str(text)
                .unwrap_or_else(|error| panic!("{args:?}: not JSON: {error}\n{said:#?}"))
        };
        // In JSON lines, each line is one item of a list.
        let failed = serde_json::from_str(&said.stdout).is_ok_and(|found: Value| !found["error"].is_null());
        let whole = !lines || failed;
        let found: Vec<Value> =
            if whole { vec![parse(&said.stdout)] } else { said.stdout.lines().map(parse).collect() };
        for document in found {
            let definition = match (&document["error"], whole) {
                (Value::Null, true) => name.clone(),
                (Value::Null, false) => format!("{name}-line"),
                _ => "error".to_owned(),
            };
            self.0.push(json!([definition, args.join(" "), document]));
        }
    }

    /// Fails the test unless every document matches the schema.
    pub(super) fn are_valid(&self) {
        let mut child = Command::new("python3")
            .args(["-c", VALIDATOR, SCHEMA])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 (scripts/install-test-deps installs it)");
        let documents = Value::Array(self.0.clone()).to_string();
        let mut input = child.stdin.take().expect("a pipe");
        input.write_all(documents.as_bytes()).expect("python3 reads (Debian package python3-jsonschema)");
        drop(input);
        let output = child.wait_with_output().expect("it ends");
        assert!(output.status.success(), "no validator: install the package python3-jsonschema");
        let wrong = String::from_utf8_lossy(&output.stdout);
        assert!(wrong.is_empty(), "does not match docs/json-schema.json:\n{wrong}");
    }
}
