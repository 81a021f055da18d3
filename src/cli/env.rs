//! `pmd env`: the environment variables that a node needs to reach other hosts of the cluster.

use std::collections::BTreeMap;
use std::io::Write;

use serde::Serialize;

use super::args::{self, Format, Shape};
use super::common::node_env::{
    Assignment, Loading, MODULE, has_module, missing_module, with_module, with_resolver,
};
use super::common::output::{json, stdout};
use super::common::{Exit, Output, Result, Target, block_on, node_files, note};

/// Prints the variables in the requested syntax.
pub fn run(target: &Target, args: &args::Env, output: Output) -> Result<Exit> {
    block_on(async {
        let tunnels = node_files::for_a_node(target).await?;
        let is_missing = !args.resolver_only && !has_module(&tunnels);
        if is_missing {
            note(&missing_module(&tunnels));
        }
        let loading = match args.shape() {
            Shape::Elixir => Loading::ByElixir,
            Shape::Sh | Shape::Systemd => Loading::ByFlag,
        };
        let variables = if args.resolver_only || is_missing {
            with_resolver(&tunnels)
        } else {
            with_module(&tunnels, loading)
        };
        print(&variables, args, output)?;
        Ok(Exit::Done)
    })
}

fn print(variables: &[Assignment], args: &args::Env, output: Output) -> Result<()> {
    #[derive(Serialize)]
    struct Document<'a> {
        environment: BTreeMap<&'static str, &'a str>,
    }

    let mut out = stdout();
    if output.format.is_json() {
        let environment = variables.iter().map(|variable| (variable.name, variable.value.as_str())).collect();
        let document = Document { environment };
        json(&mut out, &document, output.format == Format::Json)?;
        return Ok(out.flush()?);
    }
    let shape = args.shape();
    for variable in variables {
        writeln!(out, "{}", line(shape, variable))?;
    }
    out.flush()?;
    if shape == Shape::Elixir {
        note("note: add this to rel/env.sh.eex of a release, or run it before `iex` and `mix`");
    }
    Ok(())
}

fn line(shape: Shape, Assignment { name, value, before }: &Assignment) -> String {
    match shape {
        // The value may already be there, from an earlier evaluation of this line.
        Shape::Sh | Shape::Elixir if *before => format!(
            "case \"${{{name}-}}\" in *{MODULE}*) ;; *) export {name}={}\"${{{name}:+ ${name}}}\" ;; esac",
            quoted(value)
        ),
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

    fn set(value: &str) -> Assignment {
        Assignment { name: "A", value: value.into(), before: false }
    }

    #[test]
    fn a_value_survives_the_shell_and_systemd() {
        assert_eq!(line(Shape::Sh, &set("/var/lib/pmd/x-1")), "export A=/var/lib/pmd/x-1");
        assert_eq!(line(Shape::Elixir, &set("/it's here")), r"export A='/it'\''s here'");
        assert_eq!(line(Shape::Systemd, &set("/100% \"x\"")), r#"Environment="A=/100%% \"x\"""#);
    }

    #[test]
    fn a_value_is_put_before_what_is_there_and_only_once() {
        let flags = Assignment { name: "A", value: r"-pa /it's\ here pmd_epmd".into(), before: true };
        let line = line(Shape::Sh, &flags);
        let value = |there: &str| {
            let script = format!("A='{there}'; {line}; {line}; printf %s \"$A\"");
            let output = std::process::Command::new("sh").args(["-euc", &script]).output().expect("a shell");
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        assert_eq!(value(""), flags.value);
        assert_eq!(value("+P 1000"), format!("{} +P 1000", flags.value));
    }
}
