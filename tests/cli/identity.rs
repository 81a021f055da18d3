//! `pmd cookie` and `pmd ca`: the cluster secret and certificates.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, SystemTime};

use serde_json::json;

use crate::stub::{Stub, ok};
use crate::support::Home;

fn mode(path: &std::path::Path) -> u32 {
    fs::metadata(path).expect("a file").permissions().mode() & 0o777
}

#[test]
fn a_cookie_is_created_shown_and_rotated() {
    let home = Home::new();
    assert_eq!(home.prints(&["cookie", "path"]), "HOME/cookie\n");
    assert_eq!(
        home.run(&["cookie", "path", "--json"]).ended_with(0).json(),
        json!({ "path": home.path().join("cookie"), "exists": false })
    );
    home.run(&["cookie", "show"]).ended_with(4);
    home.run(&["cookie", "rotate"]).ended_with(0);
    let cookie = home.path().join("cookie");
    assert_eq!(mode(&cookie), 0o600);
    let old = home.prints(&["cookie", "show"]);
    let said = home.run(&["cookie", "rotate"]).ended_with(0);
    assert_eq!(
        (home.normal(&said.stdout), home.normal(&said.stderr)),
        (
            "HOME/cookie has a new cluster secret; the old one is still accepted\n".to_owned(),
            "next: 1. copy HOME/cookie to every other host of the cluster\n      \
             2. on every host: pmd reload\n      \
             3. then, on every host: pmd cookie rotate --finish --by-hand\n"
                .to_owned()
        )
    );
    let both = home.run(&["cookie", "show", "--json"]).ended_with(0).json();
    assert_eq!(both["path"], json!(cookie));
    assert_eq!(both["cookies"][1], old.trim_end());
    home.run(&["cookie", "rotate"]).ended_with(7);
    let finished = home.run(&["cookie", "rotate", "--finish", "--json"]).ended_with(0).json();
    assert_eq!(finished, json!({ "path": cookie, "outcome": "finished", "reloaded": false }));
    assert_eq!(json!(home.prints(&["cookie", "show"]).trim_end()), both["cookies"][0]);
}

#[test]
fn two_secrets_that_were_put_there_by_hand_are_a_warning_after_a_day() {
    let home = Home::new();
    home.run(&["cookie", "rotate"]).ended_with(0);
    home.run(&["cookie", "rotate"]).ended_with(0);
    let _daemon = home.daemon(&[]);
    let warns = || home.run(&["status"]).ended_with(0).stdout.contains("once every host has the new one");
    assert!(!warns());
    let file = fs::File::options().write(true).open(home.path().join("cookie")).expect("a file");
    let ago = |hours: u64| SystemTime::now() - Duration::from_secs(hours * 3_600);
    for (hours, expected) in [(23, false), (25, true)] {
        file.set_modified(ago(hours)).expect("ours");
        assert_eq!(warns(), expected, "{hours} hours");
    }
    home.run(&["cookie", "rotate", "--finish"]).ended_with(0);
    file.set_modified(ago(25)).expect("ours");
    assert!(!warns());
}

#[test]
fn a_running_daemon_reloads_a_rotated_cookie() {
    let home = Home::new();
    let reloaded = json!({ "config_file": null, "applied": [], "needs_restart": [] });
    let stub = Stub::start(&home, move |_, _| ok(&reloaded));
    let json = home.run(&["cookie", "rotate", "--by-hand", "--json"]).ended_with(0).json();
    assert_eq!((&json["outcome"], &json["reloaded"]), (&json!("made"), &json!(true)));
    assert_eq!(stub.requests()[0].what, "POST /v1/reload");
    home.run(&["cookie", "show"]).ended_with(0);
    assert_eq!(stub.requests().len(), 1);
}

#[test]
fn a_cookie_that_others_can_read_is_refused() {
    let home = Home::new();
    home.run(&["cookie", "rotate"]).ended_with(0);
    let cookie = home.path().join("cookie");
    fs::set_permissions(&cookie, fs::Permissions::from_mode(0o644)).expect("changing the mode");
    for args in [&["cookie", "show"][..], &["cookie", "rotate"], &["cookie", "rotate", "--finish"]] {
        assert_eq!(
            home.complains(args),
            (
                5,
                "error: the cookie file HOME/cookie is readable by other users (mode 0644)\n\
                 hint: chmod 600 HOME/cookie\n"
                    .to_owned()
            )
        );
    }
}

#[test]
fn the_configuration_may_name_the_cookie() {
    let home = Home::new();
    home.configure("cookie_file = \"secrets/shop\"\n");
    assert_eq!(home.prints(&["cookie", "path"]), "HOME/secrets/shop\n");
    home.run(&["cookie", "rotate"]).ended_with(0);
    assert!(home.path().join("secrets/shop").exists());
    // With several candidates, the command does not guess.
    home.configure("cookie_flie = \"x\"\n");
    home.run(&["cookie", "rotate"]).ended_with(2);
    assert!(!home.path().join("cookie").exists());
}

#[test]
fn an_authority_issues_certificates() {
    let home = Home::new();
    home.run(&["ca", "issue", "host1"]).ended_with(4);
    let made = home.run(&["ca", "init", "--name", "shop", "--json"]).ended_with(0).json();
    let dir = home.path().join("ca");
    assert_eq!((&made["certificate"], &made["subject"]), (&json!(dir.join("ca.pem")), &json!("CN=shop")));
    assert_eq!((mode(&dir), mode(&dir.join("ca.key"))), (0o700, 0o600));
    let again = home.complains(&["ca", "init"]);
    assert_eq!(again.0, 7);
    assert!(again.1.starts_with("error: HOME/ca/ca.pem already exists\n"), "{}", again.1);

    let out = home.path().join("out");
    let issue = ["ca", "issue", "host1.example.org", "--out", out.to_str().expect("a path"), "--json"];
    let issued = home.run(&issue).ended_with(0).json();
    assert_eq!(issued["names"], json!(["host1.example.org", "host1"]));
    assert_eq!(issued["renewed"], json!(false));
    let key = out.join("host1.example.org.key");
    assert_eq!((&issued["key"], mode(&key)), (&json!(key), 0o600));
    let renewed = home.run(&issue).ended_with(0).json();
    assert_eq!((&renewed["renewed"], &renewed["node_id"]), (&json!(true), &issued["node_id"]));
    home.run(&["ca", "issue", "10.0.0.1"]).ended_with(2);
    home.run(&["ca", "issue", "../host"]).ended_with(2);
}

#[test]
fn ca_show_warns_of_a_certificate_about_to_expire() {
    let home = Home::new();
    home.run(&["ca", "init"]).ended_with(0);
    home.run(&["ca", "issue", "host1", "--days", "29"]).ended_with(0);
    let file = home.path().join("ca/host1.pem");
    let said = home.run(&["ca", "show", file.to_str().expect("a path")]).ended_with(0);
    assert_eq!(said.stderr, "warning: CN=host1 expires in 28d 23h; renew it: pmd ca issue HOST\n");
    assert!(said.stdout.contains("\n  issued by    CN=pmd CA\n"), "{said:?}");
    let said = home.run(&["ca", "show"]).ended_with(0);
    assert_eq!(said.stderr, "");
    home.run(&["ca", "show", "/nowhere.pem"]).ended_with(4);
    home.run(&["ca", "show", home.path().join("ca/host1.key").to_str().expect("a path")]).ended_with(2);
}
