//! The status page: access, contents, and behaviour in a real browser.

use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::fleet::cell::mortal;
use crate::harness::program::Program;
use crate::harness::wait_until;
use crate::machine::PORT;
use crate::world::World;

/// Sends a request from one host to an address and returns the whole response.
fn ask(world: &World, from: usize, to: Ipv4Addr, request: &str) -> String {
    let request = request.to_owned();
    world.site(from).cell.run(move || {
        let mut stream = TcpStream::connect(SocketAddr::from((to, PORT))).expect("a daemon");
        stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
        stream.write_all(request.as_bytes()).expect("writing the request");
        let mut answer = Vec::new();
        // Closing with unread input causes a reset; a response may have arrived before it.
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    })
}

fn request(method: &str, path: &str, host: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n")
}

#[test]
fn the_page_is_local_and_read_only() {
    let world = World::joined(2);
    let own = Ipv4Addr::LOCALHOST;
    let page = ask(&world, 0, own, &request("GET", "/", "localhost:4369"));
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<!doctype html>"), "{page}");
    for header in ["content-security-policy: default-src 'self'", "x-content-type-options: nosniff"] {
        assert!(page.contains(header), "{header}: {page}");
    }
    let status = |method: &str, path: &str, host: &str| {
        let answer = ask(&world, 0, own, &request(method, path, host));
        answer.split(' ').nth(1).map(str::to_owned).unwrap_or(answer)
    };
    assert_eq!(status("GET", "/v1/nodes", "h1:4369"), "200");
    assert_eq!(status("GET", "/v1/nodes", "evil.example"), "403");
    let metrics = ask(&world, 0, own, &request("GET", "/metrics", "localhost:4369"));
    assert!(metrics.contains("\npmd_cluster_members{state=\"alive\"} 2\n"), "{metrics}");
    assert_eq!(status("GET", "/metrics", "evil.example"), "403");
    assert_eq!(status("POST", "/v1/stop", "localhost"), "405");
    assert_eq!(status("GET", "/v1/stop", "localhost"), "404");
    assert_eq!(status("DELETE", "/v1/services/web", "localhost"), "405");
    assert_eq!(status("GET", &format!("/{}", "a".repeat(40_000)), "localhost"), "431");
    // A request from another host is closed without a response.
    let first = world.site(0).ip;
    assert_eq!(ask(&world, 1, first, &request("GET", "/", "localhost")), "");
    // Clients with incomplete requests block neither lookups nor other clients.
    let slow = world.site(0).cell.run(move || {
        let visitors = (0..100).map(|_| {
            let mut stream = TcpStream::connect(SocketAddr::from((own, PORT))).expect("a daemon");
            stream.write_all(b"GET / HTTP/1.1\r\n").expect("writing");
            stream
        });
        visitors.collect::<Vec<_>>()
    });
    let node = world.register(0, "rabbit", 25_672);
    assert!(world.run(0, &["lookup", "rabbit"]).ended_with(0).stdout.contains("25672"));
    drop((slow, node));
}

#[test]
fn the_page_can_be_opened_to_others_or_switched_off() {
    let mut world = World::new(3);
    world[0].configure("web = \"open\"\n");
    world[1].configure("web = \"off\"\n");
    world.start(0);
    world.start(1);
    let first = world.site(0).ip;
    // Any Host header is accepted, because a host behind a proxy does not know its public name.
    let page = ask(&world, 2, first, &request("GET", "/", "pmd.example.org"));
    assert!(page.starts_with("HTTP/1.1 200 ") && page.contains("<!doctype html>"), "{page}");
    let nodes = ask(&world, 2, first, &request("GET", "/v1/nodes", "h1:4369"));
    assert!(nodes.contains("\"host\":\"h1\""), "{nodes}");
    assert!(ask(&world, 2, first, &request("POST", "/v1/stop", "h1")).starts_with("HTTP/1.1 405 "));
    // What commands of local users need is for them alone, and not for the browsers of theirs.
    for (method, path) in [("GET", "/v1/lookup?name=x"), ("GET", "/v1/tunnels"), ("POST", "/v1/ping")] {
        let answer = ask(&world, 2, first, &request(method, path, "h1"));
        assert!(answer.starts_with("HTTP/1.1 40"), "{path}: {answer}");
        assert!(!answer.contains("application/json"), "{path}: {answer}");
    }
    let own = Ipv4Addr::LOCALHOST;
    assert!(ask(&world, 0, own, &request("GET", "/v1/tunnels", "localhost")).starts_with("HTTP/1.1 200 "));
    let foreign = ask(&world, 0, own, &request("GET", "/v1/tunnels", "pmd.example.org"));
    assert!(foreign.starts_with("HTTP/1.1 403 "), "{foreign}");
    // When off, it is off for this host as well, and lookups still work.
    for (from, to) in [(1, Ipv4Addr::LOCALHOST), (2, world.site(1).ip)] {
        assert_eq!(ask(&world, from, to, &request("GET", "/", "localhost")), "");
    }
    let _node = world.register(1, "rabbit", 25_672);
    world.run(1, &["lookup", "rabbit"]).ended_with(0);
    assert!(world.run(1, &["epmd", "-names"]).ended_with(0).stdout.contains("rabbit"));
}

/// Connections that the daemon of a host has open.
fn sockets(world: &World, host: usize) -> usize {
    let folder = std::fs::read_dir(format!("/proc/{}/fd", world[host].pid())).expect("it runs");
    let links = folder.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.filter(|link| link.to_string_lossy().starts_with("socket:")).count()
}

#[test]
fn web_connections_are_limited() {
    let world = World::started(1);
    let visit = |text: String| {
        world.site(0).cell.run(move || {
            let mut stream =
                TcpStream::connect(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT))).expect("a daemon");
            stream.set_read_timeout(Some(Duration::from_secs(30))).expect("a timeout");
            stream.write_all(text.as_bytes()).expect("writing the request");
            stream
        })
    };
    let begun = |stream: &mut TcpStream| {
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).expect("a response");
        line
    };
    // A list that exceeds the socket buffers.
    let nodes = world[0].register_burst(world.site(0), &"n".repeat(200), 2000);
    wait_until("the nodes", || sockets(&world, 0) >= nodes.len());
    let before = sockets(&world, 0);
    // Half of all slots are for event streams; one that ends frees its slot.
    let events = || visit("GET /v1/events HTTP/1.1\r\nhost: localhost\r\n\r\n".into());
    let mut streams: Vec<TcpStream> = (0..32).map(|_| events()).collect();
    for stream in &mut streams {
        assert_eq!(begun(stream), "HTTP/1.1 200 OK\r\n");
    }
    assert!(begun(&mut events()).contains(" 503 "));
    let page = ask(&world, 0, Ipv4Addr::LOCALHOST, &request("GET", "/", "localhost"));
    assert!(page.starts_with("HTTP/1.1 200 "), "{page}");
    drop(streams.pop());
    wait_until("room for another stream", || begun(&mut events()).contains(" 200 "));
    drop(streams);
    wait_until("the streams to be gone", || sockets(&world, 0) <= before);

    // An incomplete request and an unread response both end the connection.
    let mut slow = visit("GET / HTTP/1.1\r\nhost: loc".into());
    let unread = visit("GET /v1/names HTTP/1.1\r\nhost: localhost\r\n\r\n".into());
    let mut rest = Vec::new();
    slow.read_to_end(&mut rest).expect("reading to the end");
    wait_until("the visitor that does not read to be let go", || sockets(&world, 0) <= before);
    drop((unread, nodes));
}

/// A real browser, driven over its DevTools pipe.
struct Browser {
    _program: Program,
    to: File,
    from: BufReader<File>,
    session: Option<String>,
    number: u64,
}

impl Browser {
    /// Starts one on the first host and opens the page in it.
    fn open(world: &World, folder: &Path) -> Browser {
        let (input, output) = (folder.join("in"), folder.join("out"));
        let made = Command::new("mkfifo").args([&input, &output]).status().expect("mkfifo");
        assert!(made.success());
        let mut command = mortal("sh");
        command.arg("-c").arg(format!(
            "exec chromium --headless=new --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run \
             --user-data-dir={0}/profile --remote-debugging-pipe about:blank 3<>{0}/in 4<>{0}/out",
            folder.display()
        ));
        command.env("HOME", folder);
        let program = world.site(0).cell.run(move || Program::spawn(command).quietly());
        let both = |path| OpenOptions::new().read(true).write(true).open(path).expect("a pipe");
        let (to, from) = (both(input), BufReader::new(both(output)));
        let mut browser = Browser { _program: program, to, from, session: None, number: 0 };
        let target = browser.call("Target.createTarget", &json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.call("Target.attachToTarget", &attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.call("Page.navigate", &json!({ "url": format!("http://localhost:{PORT}/") }));
        browser
    }

    fn call(&mut self, method: &str, params: &Value) -> Value {
        self.number += 1;
        let mut message = json!({ "id": self.number, "method": method, "params": params });
        if let Some(session) = &self.session {
            message["sessionId"] = session.as_str().into();
        }
        self.to
            .write_all(format!("{message}\0").as_bytes())
            .expect("chromium reads (Debian package chromium)");
        loop {
            let mut answer = Vec::new();
            self.from.read_until(0, &mut answer).expect("chromium answers (Debian package chromium)");
            answer.pop();
            let answer: Value = serde_json::from_slice(&answer).expect("JSON");
            if answer["id"] == self.number {
                assert!(answer["error"].is_null(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    fn eval(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true });
        self.call("Runtime.evaluate", &asked)["result"]["value"].clone()
    }

    fn wait_for(&mut self, expression: &str) {
        wait_until(expression, || self.eval(expression) == true);
    }

    fn key(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let mut event = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code });
            if kind == "keyDown" && key.len() == 1 {
                event["text"] = key.into();
            }
            self.call("Input.dispatchKeyEvent", &event);
        }
    }
}

#[test]
fn a_browser_shows_the_cluster_as_it_changes() {
    assert!(crate::fleet::installed("chromium"), "chromium is missing: run scripts/install-test-deps");
    let world = World::joined(3);
    let first = world.register(1, "rabbit", 25_672);
    world.wait_for_names(&world.all(), [&first]);
    let folder = tempfile::TempDir::new().expect("a folder");
    let mut browser = Browser::open(&world, folder.path());
    browser.wait_for("document.querySelectorAll('#members tbody tr').length === 3");
    browser.wait_for("document.querySelector('#names').innerText.includes('rabbit@h2')");
    browser.eval("window.notReloaded = true");
    // Later registrations appear and disappear without a reload, and names are shown as plain text.
    let later = world.register(2, "<b>hare", 25_673);
    browser.wait_for("document.querySelector('#names').innerText.includes('<b>hare@h3')");
    browser.wait_for("document.querySelector('#events').innerText.includes('name_up')");
    // The keyboard reaches the filter.
    browser.key("/", 191);
    browser.wait_for("document.activeElement.id === 'filter' && document.activeElement.value === ''");
    browser.call("Input.insertText", &json!({ "text": "hare" }));
    browser.wait_for("document.querySelectorAll('#names tbody tr').length === 1");
    browser.wait_for("document.querySelectorAll('#members tbody tr').length === 0");
    browser.key("Escape", 27);
    browser.wait_for("document.querySelectorAll('#members tbody tr').length === 3");
    drop(later);
    browser.wait_for("!document.querySelector('#names').innerText.includes('hare')");
    assert_eq!(browser.eval("window.notReloaded"), true);
    // Dark and light, and a phone without sideways scrolling.
    let mut grounds = ["dark", "light"].map(|scheme| {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        browser.call("Emulation.setEmulatedMedia", &json!({ "features": features }));
        browser.eval("getComputedStyle(document.body).backgroundColor")
    });
    grounds.sort_by_key(Value::to_string);
    assert_ne!(grounds[0], grounds[1]);
    let phone = json!({ "width": 360, "height": 740, "deviceScaleFactor": 1, "mobile": true });
    browser.call("Emulation.setDeviceMetricsOverride", &phone);
    browser.wait_for("document.documentElement.scrollWidth <= 360");
    // 1,000 members and 10,000 names, injected in place of the daemon's lists: one page of each is drawn.
    browser.eval(
        "state.nodes = Array.from({length: 1000}, (_, i) => ({...state.nodes[0], host: 'm' + i, id: 'm' + i}));
         state.names = new Map(Array.from({length: 10000}, (_, i) =>
             [i, {name: 'n' + i, host: 'm' + i, port: 1, registered_at: new Date().toISOString()}]));
         draw()",
    );
    browser.wait_for("document.querySelector('#names').innerText.includes('10000, page 1 of 200')");
    assert_eq!(browser.eval("document.querySelectorAll('#members tbody tr').length"), 50);
    // The page reports a daemon that has stopped.
    let mut world = world;
    world[0].kill();
    browser.wait_for("document.querySelector('#connection').innerText.startsWith('disconnected since')");
}
