//! Configuration: file, environment, flags, and their error messages.

use crate::support::{Home, said};

#[test]
fn an_unknown_key_is_reported_with_file_line_and_suggestion() {
    let home = Home::new();
    home.configure("# mine\nbind = \"127.0.0.1\"\nrelaxed_comand_check = true\n");
    let expected = "error: HOME/pmd.toml:3: unknown key \"relaxed_comand_check\"\n\
                    hint: did you mean \"relaxed_command_check\"?\n";
    for args in [&["start"][..], &["start", "--foreground"], &["takeover"]] {
        assert_eq!(home.complains(args), (2, expected.into()), "{args:?}");
    }
    let json = home.run(&["start", "--json"]).ended_with(2).json();
    assert_eq!(json["error"]["code"], "configuration");
    assert_eq!(json["error"]["hint"], "did you mean \"relaxed_command_check\"?");
}

#[test]
fn an_invalid_value_is_reported_with_file_and_line() {
    let home = Home::new();
    for (text, complaint) in [
        ("port = 0", "HOME/pmd.toml:1: port: 0: a port is a number from 1 to 65535"),
        (
            "\npacket_timeout_secs = \"1m\"",
            "HOME/pmd.toml:2: packet_timeout_secs: invalid type: string \"1m\", expected u64",
        ),
        (
            "bind = [\"eth0\"]",
            "HOME/pmd.toml:1: bind: \"eth0\" is not an IP address such as 127.0.0.1, 0.0.0.0 or ::1",
        ),
    ] {
        home.configure(text);
        let (code, said) = home.complains(&["start"]);
        assert_eq!((code, said.lines().next()), (2, Some(format!("error: {complaint}").as_str())));
    }
}

#[test]
fn commands_reach_a_running_daemon_despite_an_invalid_file() {
    let (home, _daemon) = Home::started();
    home.configure("prot = 1\n");
    let said = home.run(&["stop"]).ended_with(0);
    assert_eq!(
        home.normal(&said.stderr),
        "warning: HOME/pmd.toml:1: unknown key \"prot\"\n\
         warning: ignoring the configuration file\n"
    );
}

#[test]
fn a_portmapd_file_is_accepted_unchanged() {
    let home = Home::new();
    home.configure(
        "bind = \"127.0.0.1\"\nheartbeat_interval_secs = 10\nsync_interval_secs = 5\nphi_threshold = 8.0\n\
         phi_window_size = 1000\nphi_min_std_deviation_ms = 500\n\
         [metadata]\nrole = \"worker\"\n",
    );
    let said = home.run(&["start"]).ended_with(0);
    assert_eq!(said.stderr, "");
    let status = home.run(&["status", "--json"]).ended_with(0).json();
    assert_eq!(status["metadata"]["role"], "worker");
    assert_eq!(status["listening"].as_array().map(Vec::len), Some(2));
}

#[test]
fn an_authority_without_a_certificate_for_this_host_is_an_error() {
    let home = Home::new();
    home.configure("host_name = \"db1\"\nca_cert_path = \"ca.pem\"\n");
    assert_eq!(
        home.complains(&["start"]),
        (
            1,
            "error: cannot read HOME/db1.pem: No such file or directory\n\
             hint: check that the file exists and that pmd's user can read it\n"
                .into()
        )
    );
}

#[test]
fn flags_override_the_environment_which_overrides_the_file() {
    let home = Home::new();
    home.configure("bind = \"127.0.0.2\"\nrelaxed_command_check = true\n");
    let listening = |home: &Home| {
        let status = home.run(&["status", "--json"]).ended_with(0).json();
        home.run(&["stop"]).ended_with(0);
        let third = status["listening"][2].as_str().unwrap_or_default().to_owned();
        (home.normal(&third), status["relaxed_command_check"].as_bool())
    };
    home.run(&["start"]).ended_with(0);
    assert_eq!(listening(&home), ("127.0.0.2:PORT".into(), Some(true)));
    let mut by_environment = home.command(&["start"]);
    by_environment.env("ERL_EPMD_ADDRESS", "127.0.0.3").env("PMD_RELAXED_COMMAND_CHECK", "0");
    said(by_environment).ended_with(0);
    assert_eq!(listening(&home), ("127.0.0.3:PORT".into(), Some(false)));
    let mut by_flag = home.command(&["start", "--bind", "127.0.0.4"]);
    by_flag.env("ERL_EPMD_ADDRESS", "127.0.0.3").env("ERL_EPMD_RELAXED_COMMAND_CHECK", "");
    said(by_flag).ended_with(0);
    assert_eq!(listening(&home), ("127.0.0.4:PORT".into(), Some(true)));
}

#[test]
fn an_explicitly_named_file_must_exist() {
    let home = Home::new();
    let (code, said) = home.complains(&["start", "--config", "/nowhere/pmd.toml"]);
    assert_eq!(
        (code, said.lines().next()),
        (2, Some("error: the configuration file /nowhere/pmd.toml does not exist"))
    );
    let mut command = home.command(&["start"]);
    command.env("PMD_CONFIG", "/nowhere/pmd.toml");
    assert_eq!(crate::support::said(command).code, 2);
}

#[test]
fn every_command_takes_port_and_socket_from_the_file() {
    let home = Home::new();
    home.configure(&format!("port = {}\nsocket = \"here.sock\"\n", home.port));
    let command = |word: &str| {
        let mut command = home.command(&[word]);
        command.env_remove("ERL_EPMD_PORT");
        said(command)
    };
    command("start").ended_with(0);
    assert!(home.path().join("here.sock").exists());
    let status = command("status").ended_with(0);
    assert!(home.normal(&status.stdout).contains("control socket  HOME/here.sock"), "{status:?}");
    command("stop").ended_with(0);
}

#[test]
fn relative_paths_keep_their_meaning_in_the_background() {
    let home = Home::new();
    let mut command = home.command(&["start", "--socket", "mine.sock"]);
    command.current_dir(home.path()).env("PMD_HOME", ".");
    said(command).ended_with(0);
    let socket = home.path().join("mine.sock");
    let socket = socket.to_str().expect("a path");
    home.run(&["status", "--socket", socket]).ended_with(0);
    home.run(&["stop", "--socket", socket]).ended_with(0);
}

#[test]
fn an_invalid_environment_variable_is_named() {
    let home = Home::new();
    for (variable, value) in [("ERL_EPMD_PORT", "epmd"), ("PMD_BIND", "eth0"), ("PMD_PACKET_TIMEOUT", "soon")]
    {
        let mut command = home.command(&["start"]);
        command.env(variable, value);
        let said = said(command).ended_with(2);
        let expected = format!("error: invalid environment variable {variable}={value}: ");
        assert!(said.stderr.starts_with(&expected), "{said:?}");
        assert!(said.stderr.ends_with(&format!("\nhint: correct or unset {variable}\n")), "{said:?}");
    }
}

#[test]
fn reload_lists_the_keys_that_need_a_restart() {
    let (home, _daemon) = Home::started();
    assert_eq!(home.prints(&["reload"]), "HOME/pmd.toml: configuration is valid; no changes\n");
    home.configure("relaxed_command_check = true\n[metadata]\na = \"b\"\n");
    assert_eq!(
        home.prints(&["reload"]),
        "HOME/pmd.toml: configuration is valid; needs a restart: relaxed_command_check, metadata\n\
         restart the daemon: pmd stop && pmd start\n"
    );
    home.configure("oops");
    let said = home.run(&["reload"]).ended_with(2);
    assert!(home.normal(&said.stderr).contains("error: HOME/pmd.toml:1: "), "{said:?}");
}
