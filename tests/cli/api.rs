//! The control API, over raw HTTP.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use serde_json::json;

use crate::harness::{wait_until, wait_within};
use crate::support::{Home, host_name};

#[test]
fn every_endpoint_responds() {
    let (home, _daemon) = Home::started();
    let _node = home.node("rabbit", 25672);
    let (status, body) = home.http("GET", "/v1/status", "");
    assert_eq!((status, &body["port"], &body["names"]["registered"]), (200, &home.port.into(), &1.into()));
    let (status, body) = home.http("GET", "/v1/health?ready", "");
    assert_eq!((status, body), (200, json!({ "healthy": true, "problems": [] })));
    let (status, body) = home.http("GET", "/v1/names", "");
    assert_eq!((status, &body["host"]), (200, &host_name().into()));
    let name = &body["names"][0];
    assert_eq!(
        (&name["name"], &name["port"], &name["adopted"]),
        (&"rabbit".into(), &25672.into(), &false.into())
    );
    let (status, body) = home.http(
        "POST",
        "/v1/services",
        r#"{"name":"web","port":8080,"metadata":{"k":"v"},"ttl_ms":60000}"#,
    );
    assert_eq!((status, &body["name"], &body["held"]), (201, &"web".into(), &false.into()));
    let (status, _) = home.http("POST", "/v1/services", r#"{"name":"web","port":8080}"#);
    assert_eq!(status, 200, "a second registration is a renewal");
    let (status, body) = home.http("GET", "/v1/services", "");
    assert_eq!((status, &body["services"][0]["name"]), (200, &"web".into()));
    let (status, body) = home.http("GET", "/v1/lookup?name=rabbit%40localhost&kind=name", "");
    assert_eq!((status, &body["matches"][0]["port"]), (200, &25672.into()));
    let (status, body) = home.http("DELETE", "/v1/services/web", "");
    assert_eq!((status, &body["port"]), (200, &8080.into()));
    let (status, body) = home.http("POST", "/v1/reload", "");
    assert_eq!((status, &body["needs_restart"]), (200, &json!([])));
    let (status, body) = home.http(
        "POST",
        "/v1/names/adopt",
        r#"{"names":[{"name":"old","port":1,"node_type":77,"protocol":0,"highest_version":6,"lowest_version":5}]}"#,
    );
    assert_eq!((status, body), (200, json!({ "adopted": 1, "registered": 0 })));
    assert_eq!(home.prints(&["lookup", "old"]), "HOST:1\n");
    let (status, body) = home.http("POST", "/v1/stop", "");
    assert_eq!(status, 202);
    assert!(body["pid"].is_number());
    wait_until("the end", || !home.socket().exists());
}

#[test]
fn an_adopted_name_is_kept_while_its_port_is_open() {
    let (home, _daemon) = Home::started();
    let node = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = node.local_addr().expect("its address").port();
    let adopted = |name: &str, port: u16| json!({ "name": name, "port": port, "node_type": 77, "protocol": 0, "highest_version": 6, "lowest_version": 5 });
    // Nothing listens on the second name's port: it is privileged, and test hosts run no such service.
    let names = json!({ "names": [adopted("running", port), adopted("gone", 1)] }).to_string();
    assert_eq!(home.http("POST", "/v1/names/adopt", &names).0, 200);
    let is_found = |name: &str| home.http("GET", &format!("/v1/lookup?name={name}"), "").0 == 200;
    wait_within(Duration::from_secs(60), "the end of the name whose node is gone", || !is_found("gone"));
    assert!(is_found("running"));
    drop(node);
    wait_within(Duration::from_secs(60), "the end of the other one", || !is_found("running"));
}

#[test]
fn errors_have_one_form() {
    let (home, _daemon) = Home::started();
    for (method, path, body, status, code) in [
        ("GET", "/v1/nothing", "", 404, "not_found"),
        ("GET", "/", "", 404, "not_found"),
        ("POST", "/v1/names", "", 405, "method_not_allowed"),
        ("POST", "/v1/services", "{", 400, "invalid_request"),
        ("POST", "/v1/services", r#"{"name":"web","port":80,"tll_ms":1}"#, 400, "invalid_request"),
        ("POST", "/v1/services/hold", r#"{"name":"web","port":80,"ttl_ms":1}"#, 400, "invalid_request"),
        ("POST", "/v1/services", r#"{"name":"a b","port":80}"#, 400, "invalid_request"),
        ("DELETE", "/v1/services/web", "", 404, "not_found"),
        ("GET", "/v1/lookup?name=x@elsewhere", "", 404, "not_found"),
        ("GET", "/v1/events?sinec=1", "", 400, "invalid_request"),
    ] {
        let (found, body) = home.http(method, path, body);
        assert_eq!((found, &body["error"]["code"]), (status, &code.into()), "{method} {path}: {body}");
        for key in ["message", "hint"] {
            assert!(body["error"][key].as_str().is_some_and(|text| !text.is_empty()), "{body}");
        }
    }
}

#[test]
fn a_held_service_lasts_as_long_as_its_response() {
    let (home, _daemon) = Home::started();
    let body = r#"{"name":"web","port":80}"#;
    let mut stream = UnixStream::connect(home.socket()).expect("a daemon");
    let request =
        format!("POST /v1/services/hold HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    stream.write_all(request.as_bytes()).expect("writing the request");
    let mut answer = Vec::new();
    while !String::from_utf8_lossy(&answer).contains("\"held\":true}\n") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).expect("reading the response");
        assert!(length > 0, "it ended: {}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&piece[..length]);
    }
    assert_eq!(home.run(&["lookup", "web"]).code, 0);
    drop(stream);
    wait_until("the end of web", || home.run(&["lookup", "web"]).code == 4);
}

#[test]
fn an_event_source_resumes_by_its_header() {
    let (home, _daemon) = Home::started();
    for name in ["one", "two", "three"] {
        home.run(&["register", name, "-P", "80"]).ended_with(0);
    }
    let mut stream = UnixStream::connect(home.socket()).expect("a daemon");
    // A browser reconnects to the original URL and sends the last event id in a header.
    let request = "GET /v1/events?since=0 HTTP/1.1\r\nhost: x\r\nlast-event-id: 2\r\n\r\n";
    stream.write_all(request.as_bytes()).expect("writing the request");
    let mut answer = String::new();
    while !answer.contains("\"name\":\"three\"") {
        let mut piece = [0; 1024];
        let length = stream.read(&mut piece).expect("reading the response");
        assert!(length > 0, "it ended: {answer}");
        answer.push_str(std::str::from_utf8(&piece[..length]).expect("text"));
    }
    assert!(answer.contains("content-type: text/event-stream\r\n"), "{answer}");
    assert!(answer.contains("event: hello\ndata: {\"boot_id\":\""), "{answer}");
    assert!(answer.contains("id: 3\nevent: service_up\ndata: {\"seq\":3,"), "{answer}");
    assert!(!answer.contains("\"name\":\"two\""), "{answer}");
}

#[test]
fn idle_and_broken_connections_do_not_keep_others_out() {
    let (home, _daemon) = Home::started();
    let connect = || UnixStream::connect(home.socket()).expect("a daemon");
    let idle: Vec<UnixStream> = (0..100).map(|_| connect()).collect();
    let mut halves: Vec<UnixStream> = (0..20).map(|_| connect()).collect();
    for half in &mut halves {
        half.write_all(b"POST /v1/services HTTP/1.1\r\ncontent-length: 10\r\n").expect("writing");
    }
    for garbage in ["\0\0\0\0\r\n\r\n", "GET\r\n\r\n", "GET / HTTP/9.9\r\n\r\n", "\r\n\r\n\r\n\r\n"] {
        // A response is allowed but not required.
        let mut stream = connect();
        stream.write_all(garbage.as_bytes()).expect("writing");
        stream.shutdown(std::net::Shutdown::Write).expect("it is open");
        let _ = stream.read_to_end(&mut Vec::new());
    }
    home.run(&["status"]).ended_with(0);
    drop(idle);
}

#[test]
fn connections_beyond_the_limit_get_503_until_others_close() {
    let home = Home::new();
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 100 && exec \"$@\"", "sh"]);
    let own = home.command(&["start", "--foreground"]);
    command.arg(own.get_program()).args(own.get_args());
    command.env("PMD_HOME", home.path()).env("ERL_EPMD_PORT", home.port.to_string());
    let _daemon = crate::harness::program::Program::spawn(command);
    wait_until("the daemon", || UnixStream::connect(home.socket()).is_ok());

    // Opens connections until one gets a response without having sent a request.
    let mut taken = Vec::new();
    let refused = (0..100).find_map(|_| {
        let mut stream = UnixStream::connect(home.socket()).expect("a daemon");
        stream.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout");
        let mut answer = String::new();
        if stream.read_to_string(&mut answer).is_ok() && !answer.is_empty() {
            return Some(answer);
        }
        taken.push(stream);
        None
    });
    let refused = refused.expect("there is a limit");
    assert!(refused.starts_with("HTTP/1.1 503 "), "{refused}");
    assert!(refused.contains(r#"{"error":{"code":"full","#), "{refused}");
    let _node = home.node("rabbit", 25672);
    drop(taken);
    wait_until("room", || home.run(&["status"]).code == 0);
}
