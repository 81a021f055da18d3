//! `pmd env`: the environment variables that a node needs to reach other hosts of the cluster.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::args::{self, Format, Shape};
use super::common::node_env::variables;
use super::common::output::{json, stdout};
use super::common::{Exit, Output, Result, Target, block_on, explain, note};

/// Prints the variables in the requested syntax.
pub fn run(target: &Target, args: &args::Env, output: Output) -> Result<Exit> {
    block_on(async {
        let tunnels = explain(target, target.client().tunnels_for_a_node().await).await?;
        print(&variables(&tunnels), args, output)?;
        Ok(Exit::Done)
    })
}

fn print(variables: &[(&'static str, String)], args: &args::Env, output: Output) -> Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        environment: BTreeMap<&'static str, &'a str>,
    }

    let mut out = stdout();
    if output.format.is_json() {
        let document =
            Document { environment: variables.iter().map(|(name, value)| (*name, value.as_str())).collect() };
        json(&mut out, &document, output.format == Format::Json)?;
        return Ok(out.flush()?);
    }
    let shape = args.shape();
    for (name, value) in variables {
        writeln!(out, "{}", line(shape, name, value))?;
    }
    out.flush()?;
    if shape == Shape::Elixir {
        note("note: add this to rel/env.sh.eex of a release, or run it before `iex` and `mix`");
    }
    Ok(())
}

fn line(shape: Shape, name: &str, value: &str) -> String {
    match shape {
        Shape::Sh | Shape::Elixir => format!("export {name}={}", quoted(value)),
        // In unit files, a percent sign starts a specifier (systemd.unit(5)).
        Shape::Systemd => {
            let value = value.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
            format!("Environment=\"{name}={value}\"")
        }
    }
}

/// A word quoted for a shell. `shell_words` does not quote the braces in `{a,b}`, which bash expands.
fn quoted(value: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/._-+:@,".contains(&byte);
    if !value.is_empty() && value.bytes().all(plain) {
        return value.to_owned();
    }
    format!("'{}'", value.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_survives_the_shell_and_systemd() {
        assert_eq!(line(Shape::Sh, "A", "/var/lib/pmd/x-1"), "export A=/var/lib/pmd/x-1");
        assert_eq!(line(Shape::Elixir, "A", "/it's here"), r"export A='/it'\''s here'");
        assert_eq!(line(Shape::Systemd, "A", "/100% \"x\""), r#"Environment="A=/100%% \"x\"""#);
    }
}
