//! `pmd env`: what a node needs in its environment to see the cluster.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::args::{self, Shape};
use super::common::diagnosis::explain;
use super::common::exit::Exit;
use super::common::failure::Result;
use super::common::output::{Format, Output, json, note, stdout};
use super::common::runtime::block_on;
use super::common::target::Target;
use crate::config::environment;
use crate::config::settings;
use crate::control::api::TunnelList;

/// The variable that names the resolver file.
const INETRC: &str = "ERL_INETRC";

/// The variables that a node needs, with their values.
pub fn variables(tunnels: &TunnelList) -> Vec<(&'static str, String)> {
    let mut variables = vec![(INETRC, tunnels.inetrc.display().to_string())];
    if tunnels.port != settings::PORT {
        variables.push((environment::PORT, tunnels.port.to_string()));
    }
    variables
}

/// Prints them, in the form that is asked for.
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
        note("this belongs into rel/env.sh.eex of a release, or before `iex` and `mix`");
    }
    Ok(())
}

fn line(shape: Shape, name: &str, value: &str) -> String {
    match shape {
        Shape::Sh | Shape::Elixir => format!("export {name}={}", quoted(value)),
        // In a unit file a percent sign begins a specifier (systemd.unit(5)).
        Shape::Systemd => {
            let value = value.replace('%', "%%").replace('\\', "\\\\").replace('"', "\\\"");
            format!("Environment=\"{name}={value}\"")
        }
    }
}

/// A word as a shell reads it.
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
