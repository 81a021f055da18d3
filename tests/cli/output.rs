//! Behaviour common to all commands: usage errors, output formats, pipes, help, completions, manual pages.

use std::io::Read;
use std::process::Stdio;

use crate::harness::wait_until;
use crate::support::Home;

#[test]
fn invalid_command_lines_are_usage_errors() {
    let home = Home::new();
    for args in [
        &[][..],
        &["nmes"],
        &["names", "--prot", "1"],
        &["--port", "0", "names"],
        &["--port", "65536", "names"],
    ] {
        let said = home.run(args).ended_with(2);
        assert_eq!(said.stdout, "", "{args:?}");
        assert!(!said.stderr.is_empty(), "{args:?}");
    }
    let said = home.run(&["--port", "0", "names"]);
    assert!(
        said.stderr
            .starts_with("error: invalid value '0' for '--port <PORT>': a port is a number from 1 to 65535"),
        "{said:?}"
    );
    let json = home.run(&["nmes", "--json"]).ended_with(2).json();
    assert_eq!(json["error"]["code"], "usage");
    assert_eq!(json["error"]["message"], "unrecognized subcommand 'nmes'");
}

#[test]
fn a_closed_pipe_is_not_an_error() {
    let (home, _daemon) = Home::started();
    let _node = home.node("rabbit", 25672);
    for args in [
        &["names"][..],
        &["status"],
        &["status", "--json"],
        &["--help"],
        &["man"],
        &["completion", "bash"],
        &["subscribe", "--since", "0"],
        &["lookup", "nobody", "--json"],
    ] {
        let mut child = home
            .command(args)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("pmd");
        drop(child.stdout.take());
        let mut complaint = String::new();
        child.stderr.take().expect("a pipe").read_to_string(&mut complaint).expect("text");
        let code = child.wait().expect("it ends").code();
        if args[0] == "lookup" {
            assert_eq!(code, Some(4), "the exit code still reports the failed lookup");
        } else {
            assert_eq!((code, complaint.as_str()), (Some(0), ""), "{args:?}");
        }
    }
}

#[test]
fn closed_standard_streams_are_survived() {
    let (home, _daemon) = Home::started();
    let script = "\"$0\" lookup nobody --json >&- 2>&-; test $? = 4";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", script]).arg(crate::harness::pmd());
    command.env("PMD_HOME", home.path()).env("ERL_EPMD_PORT", home.port.to_string());
    assert_eq!(crate::support::said(command).code, 0);
}

#[test]
fn output_without_a_terminal_has_no_colour() {
    let (home, _daemon) = Home::started();
    assert!(!home.prints(&["status"]).contains('\u{1b}'));
}

#[test]
fn a_terminal_gets_colour_unless_disabled() {
    let (home, _daemon) = Home::started();
    // script(1) gives its command a terminal.
    let on_terminal = |flag: &str, no_color: Option<&str>| {
        let mut command = std::process::Command::new("script");
        let own = format!("{} health {flag}", crate::harness::pmd());
        command.args(["-qec", &own, "/dev/null"]).env("TERM", "xterm");
        command.env("PMD_HOME", home.path()).env("ERL_EPMD_PORT", home.port.to_string());
        match no_color {
            Some(value) => command.env("NO_COLOR", value),
            None => command.env_remove("NO_COLOR"),
        };
        crate::support::said(command).ended_with(0).stdout
    };
    assert_eq!(on_terminal("", None).trim_end(), "\u{1b}[32mhealthy\u{1b}[0m");
    assert_eq!(on_terminal("--no-color", None).trim_end(), "healthy");
    assert_eq!(on_terminal("", Some("1")).trim_end(), "healthy");
}

#[test]
fn help_begins_with_examples() {
    let home = Home::new();
    let help = home.prints(&["--help"]);
    let place = |text: &str| help.find(text).unwrap_or_else(|| panic!("no {text:?} in\n{help}"));
    assert!(place("Examples:") < place("Usage:"));
    assert!(place("Usage:") < place("Commands:"));
    assert!(help.contains("Exit codes: 0 success"), "{help}");
    for command in ["start", "names", "lookup", "register", "subscribe", "takeover"] {
        let help = home.prints(&[command, "--help"]);
        assert!(help.find("Examples:") < help.find("Usage:"), "{help}");
    }
}

#[test]
fn version_is_printed_in_every_format() {
    let home = Home::new();
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(home.prints(&["version"]), format!("pmd {version}\n"));
    assert_eq!(home.prints(&["--version"]), format!("pmd {version}\n"));
    assert_eq!(
        home.prints(&["version", "-o", "jsonl"]),
        format!("{{\"name\":\"pmd\",\"version\":\"{version}\"}}\n")
    );
    assert_eq!(home.prints(&["version", "-o", "plain"]), format!("name\tpmd\nversion\t{version}\n"));
}

#[test]
fn completions_and_manual_pages_are_generated() {
    let home = Home::new();
    for shell in ["bash", "zsh", "fish"] {
        assert!(home.prints(&["completion", shell]).contains("takeover"), "{shell}");
    }
    let page = home.prints(&["man"]);
    assert!(page.contains(".TH pmd 1") && page.contains("Examples:"), "{page}");
    let folder = home.path().join("man");
    home.prints(&["man", "--dir", folder.to_str().expect("a path")]);
    for page in ["pmd.1", "pmd-start.1", "pmd-takeover.1"] {
        assert!(folder.join(page).exists(), "{page}");
    }
    let (code, said) = home.complains(&["man", "--dir", "/proc/nowhere"]);
    assert_eq!(code, 1);
    assert!(said.starts_with("error: cannot write manual pages into /proc/nowhere: "), "{said}");
}

#[test]
fn epmd_options_work_as_a_subcommand() {
    let (home, _daemon) = Home::started();
    let _node = home.node("rabbit", 25672);
    wait_until("the node", || home.run(&["lookup", "rabbit"]).code == 0);
    assert_eq!(
        home.prints(&["epmd", "-names"]),
        "epmd: up and running on port PORT with data:\nname rabbit at port 25672\n"
    );
    let port = home.port.to_string();
    assert_eq!(home.run(&["epmd", "-port", &port, "-started"]).code, 0);
    assert_eq!(home.run(&["epmd", "--help"]).code, 1, "stock epmd has no such flag");
}
