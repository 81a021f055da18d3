//! Both sides of the control API, over a real socket and without the EPMD port.

use std::future::Future;
use std::sync::Arc;

use pmd_epmd::descriptors::Descriptors;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio_util::task::TaskTracker;

use super::client::{Client, ClientError};
use super::handles::{About, Handles, Measured};
use super::reload::Reloader;
use super::{api, server, socket};
use crate::base::clock::Monotonic;
use crate::base::clock::now_ms;
use crate::base::shutdown::Reason;
use crate::base::shutdown::Shutdown;
use crate::config::settings::Settings;
use crate::directory::Directory;
use crate::directory::events::WINDOW;
use crate::directory::local::Local;

/// A daemon without an EPMD port.
struct Daemon {
    handles: Handles,
    client: Client,
    server: tokio::task::JoinHandle<()>,
}

impl Daemon {
    fn start(folder: &TempDir) -> Daemon {
        let settings = Settings::new(4369, folder.path().join("pmd.sock"));
        Daemon::start_with(&settings)
    }

    fn start_with(settings: &Settings) -> Daemon {
        let client = Client::new(&settings.socket);
        let socket = socket::bind(settings).expect("a socket");
        let handles = handles(settings);
        let server = tokio::spawn(server::serve(handles.clone(), TaskTracker::new(), socket));
        Daemon { handles, client, server }
    }

    fn local(&self) -> &Local {
        self.handles.directory.local()
    }

    async fn end(self) {
        self.handles.shutdown.request(Reason::Stop);
        self.server.await.expect("it ends");
    }

    /// Sends bytes and returns everything that comes back before the connection ends.
    async fn raw(&self, request: &str) -> String {
        let mut stream = UnixStream::connect(self.client.socket()).await.expect("a connection");
        stream.write_all(request.as_bytes()).await.expect("room for a request");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("an answer");
        answer
    }
}

/// The parts of a daemon with these settings, outside a cluster.
fn handles(settings: &Settings) -> Handles {
    let about = About {
        host: settings.host.clone(),
        port: settings.port,
        listen_port: settings.listen_port(),
        listening: Vec::new(),
        socket: settings.socket.clone(),
        relaxed_command_check: false,
        metadata: settings.metadata.clone(),
        started_ms: now_ms(),
        started: Monotonic::now(),
        boot_id: "1-1".into(),
    };
    let measured = Measured {
        descriptors: Arc::new(Descriptors::new(10_000)),
        epmd: Arc::default(),
        latency: Arc::default(),
        counters: Arc::default(),
        refusals: Arc::default(),
        handshakes: Arc::default(),
    };
    let local = Arc::new(Local::new(settings.host.clone(), settings.port, settings.old_names));
    let (config_file, from_file) = (settings.config_file.clone(), settings.from_file.clone());
    Handles {
        about: Arc::new(about),
        measured,
        directory: Arc::new(Directory::new(local, None, Default::default())),
        member: None,
        shutdown: Shutdown::new(),
        reloader: Arc::new(Reloader { config_file, from_file, member: None }),
    }
}

fn on_a_runtime(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.expect("a runtime").block_on(test);
}

fn service(name: &str, port: u16) -> api::NewService {
    api::NewService { name: name.into(), port, metadata: [("k".into(), "v".into())].into(), ttl_ms: None }
}

fn adopted(name: &str) -> api::AdoptedName {
    api::AdoptedName {
        name: name.into(),
        port: 5000,
        node_type: 77,
        protocol: 0,
        highest_version: 6,
        lowest_version: 5,
        extra: vec![1, 2],
    }
}

fn code<T: std::fmt::Debug>(answer: Result<T, ClientError>) -> (u16, String) {
    match answer {
        Err(ClientError::Api { status, info }) => (status, info.code),
        other => panic!("not an error of the API: {other:?}"),
    }
}

async fn until(mut condition: impl AsyncFnMut() -> bool) {
    while !condition().await {
        tokio::task::yield_now().await;
    }
}

#[test]
fn services_are_registered_found_and_unregistered() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        let client = &daemon.client;
        let new = client.register(&service("web/1?&", 80)).await.expect("it is free");
        assert_eq!((new.port, new.held, new.metadata.len()), (80, false, 1));
        client.register(&service("web/1?&", 80)).await.expect("again is fine");
        assert_eq!(code(client.register(&service("web/1?&", 81)).await), (409, "conflict".into()));
        assert_eq!(code(client.register(&service("no spaces", 80)).await), (400, "invalid_request".into()));
        assert_eq!(code(client.register(&service("zero", 0)).await), (400, "invalid_request".into()));

        let found = client.lookup("web/1?&@localhost").await.expect("it is there");
        assert_eq!(found.matches.len(), 1);
        assert_eq!((found.matches[0].kind, found.matches[0].port), (api::Kind::Service, 80));
        assert_eq!(code(client.lookup("web/1?&@elsewhere").await), (404, "not_found".into()));
        assert_eq!(client.services().await.expect("a list").services.len(), 1);
        client.unregister("web/1?&").await.expect("it was there");
        assert_eq!(code(client.unregister("web/1?&").await), (404, "not_found".into()));
        assert_eq!(code(client.lookup("web/1?&").await), (404, "not_found".into()));
        daemon.end().await;
    });
}

#[test]
fn a_held_service_ends_with_its_connection() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        let held = daemon.client.hold(&service("web", 80)).await.expect("it is free");
        assert!(held.service.held);
        assert_eq!(code(daemon.client.hold(&service("web", 80)).await), (409, "conflict".into()));
        drop(held);
        until(async || daemon.local().count_services() == 0).await;
        let timed = api::NewService { ttl_ms: Some(1000), ..service("web", 80) };
        assert_eq!(code(daemon.client.hold(&timed).await), (400, "invalid_request".into()));
        daemon.end().await;
    });
}

#[test]
fn a_holder_can_tell_the_end_of_its_service_from_that_of_the_daemon() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        let mut web = daemon.client.hold(&service("web", 80)).await.expect("it is free");
        let mut api = daemon.client.hold(&service("api", 81)).await.expect("it is free");
        daemon.client.unregister("web").await.expect("it was there");
        assert_eq!(web.ended().await.as_deref(), Some("unregistered"));
        daemon.end().await;
        assert_eq!(api.ended().await, None);
    });
}

#[test]
fn many_names_are_adopted_in_several_requests() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        // Too many for one request.
        let names: Vec<_> = (0..900).map(|number| adopted(&format!("node-{number}"))).collect();
        let outcome = daemon.client.adopt(&names).await.expect("there is room");
        assert_eq!((outcome.adopted, outcome.registered), (900, 0));
        let outcome = daemon.client.adopt(&names[..1]).await.expect("there is room");
        assert_eq!((outcome.adopted, outcome.registered), (0, 1));
        let list = daemon.client.names(None).await.expect("a list");
        assert_eq!((list.names.len(), list.names[0].name.as_str()), (900, "node-899"));
        assert_eq!(daemon.client.names(Some(false)).await.expect("a list").names, []);
        assert_eq!(daemon.client.names(Some(true)).await.expect("a list").names.len(), 900);
        let bad = [api::AdoptedName { name: "x".repeat(256), ..adopted("a") }];
        assert_eq!(code(daemon.client.adopt(&bad).await), (400, "invalid_request".into()));
        let status = daemon.client.status().await.expect("a status");
        assert_eq!((status.names.registered, status.names.adopted), (900, 900));
        daemon.end().await;
    });
}

#[test]
fn odd_names_survive_both_ways() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        for name in ["a b", "new\nline", "\u{1b}[31m", "q\"uote", "ä@b", "50%"] {
            daemon.client.adopt(&[adopted(name)]).await.expect("there is room");
            let found = daemon.client.lookup(&format!("{name}@localhost")).await.expect("it is there");
            assert_eq!(found.matches[0].name, name);
        }
        let names = daemon.client.names(None).await.expect("a list").names;
        assert!(names.iter().any(|entry| entry.name == "new\nline"));
        daemon.end().await;
    });
}

async fn next_kind(events: &mut super::client::Events) -> (String, String) {
    let message = events.next().await.expect("a stream").expect("a message");
    (message.event, message.data)
}

#[test]
fn events_are_resumed_where_the_reader_stopped() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        let client = &daemon.client;
        client.register(&service("a", 1)).await.expect("it is free");
        let mut live = client.events(None, None, &[]).await.expect("a stream");
        assert_eq!(next_kind(&mut live).await.0, "hello");
        client.register(&service("b", 2)).await.expect("it is free");
        client.unregister("a").await.expect("it was there");
        let message = live.next().await.expect("a stream").expect("a message");
        assert_eq!((message.id, message.event.as_str()), (Some(2), "service_up"));
        let event: api::Event = serde_json::from_str(&message.data).expect("an event");
        assert_eq!((event.seq, event.name.as_str(), event.port, event.reason), (2, "b", Some(2), None));

        let boot = daemon.handles.about.boot_id.clone();
        let mut resumed = client.events(Some(1), Some(&boot), &[]).await.expect("a stream");
        assert_eq!(next_kind(&mut resumed).await.0, "hello");
        assert_eq!(next_kind(&mut resumed).await.0, "service_up");
        let (kind, data) = next_kind(&mut resumed).await;
        assert_eq!(kind, "service_down");
        assert!(data.contains("\"reason\":\"unregistered\""), "{data}");

        let kinds = ["service_down".to_owned()];
        let mut filtered = client.events(Some(0), None, &kinds).await.expect("a stream");
        assert_eq!(next_kind(&mut filtered).await.0, "hello");
        assert_eq!(next_kind(&mut filtered).await.0, "service_down");
        assert_eq!(
            code(client.events(None, None, &["nodeup".into()]).await),
            (400, "invalid_request".into())
        );
        daemon.end().await;
        assert!(filtered.next().await.expect("a stream").is_none(), "it ends with the daemon");
    });
}

#[test]
fn a_reader_is_told_what_it_missed() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        let boot = daemon.handles.about.boot_id.clone();
        for (since, boot) in [(7, None), (0, Some("another"))] {
            let mut events = daemon.client.events(Some(since), boot, &[]).await.expect("a stream");
            assert_eq!(next_kind(&mut events).await.0, "hello");
            let gap = next_kind(&mut events).await;
            assert_eq!(gap, ("gap".into(), r#"{"reason":"restarted"}"#.into()));
        }
        let times = WINDOW + 3;
        for _ in 0..times {
            let mut new = service("a", 1);
            new.ttl_ms = Some(1);
            let name = new.name.parse().expect("a name");
            let new = crate::directory::services::NewService {
                name,
                port: new.port,
                metadata: new.metadata,
                ttl_ms: new.ttl_ms,
                held: false,
            };
            daemon.local().register_service(new, now_ms()).expect("it is free");
            daemon.local().unregister_service("a", now_ms());
        }
        let mut events = daemon.client.events(Some(0), Some(&boot), &[]).await.expect("a stream");
        assert_eq!(next_kind(&mut events).await.0, "hello");
        let missed = 2 * times - WINDOW;
        let gap = next_kind(&mut events).await;
        assert_eq!(gap, ("gap".into(), format!(r#"{{"reason":"too_old","missed":{missed}}}"#)));
        let first = events.next().await.expect("a stream").expect("a message");
        assert_eq!(first.id, u64::try_from(missed + 1).ok());
        daemon.end().await;
    });
}

#[test]
fn every_bad_request_gets_a_structured_error() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        let close = "host: x\r\nconnection: close\r\n";
        for (request, status, code) in [
            (format!("GET /v1/nothing HTTP/1.1\r\n{close}\r\n"), 404, "not_found"),
            (format!("GET / HTTP/1.1\r\n{close}\r\n"), 404, "not_found"),
            (format!("PUT /v1/status HTTP/1.1\r\n{close}\r\n"), 405, "method_not_allowed"),
            (format!("GET /v1/names?adapted=1 HTTP/1.1\r\n{close}\r\n"), 400, "invalid_request"),
            (format!("GET /v1/lookup HTTP/1.1\r\n{close}\r\n"), 400, "invalid_request"),
            (format!("GET /v1/lookup?name=a&kind=b HTTP/1.1\r\n{close}\r\n"), 400, "invalid_request"),
            (format!("GET /v1/events?since=x HTTP/1.1\r\n{close}\r\n"), 400, "invalid_request"),
            (
                format!("POST /v1/services HTTP/1.1\r\n{close}content-length: 2\r\n\r\n{{}}"),
                400,
                "invalid_request",
            ),
            (
                format!(
                    "POST /v1/services HTTP/1.1\r\n{close}content-length: 70000\r\n\r\n{}",
                    "x".repeat(70000)
                ),
                413,
                "too_large",
            ),
        ] {
            let answer = daemon.raw(&request).await;
            let head = format!("HTTP/1.1 {status} ");
            assert!(answer.starts_with(&head), "{}\n{answer}", &request[..40]);
            let body = answer.split("\r\n\r\n").nth(1).expect("a body");
            let body: api::ErrorBody = serde_json::from_str(body).expect("an error");
            assert_eq!(body.error.code, code);
            assert!(!body.error.message.is_empty() && !body.error.hint.is_empty(), "{body:?}");
        }
        // Input that is not HTTP is answered or closed, and the server keeps running.
        daemon.raw("\0\0\0\x01n\r\n\r\n").await;
        daemon.raw(&format!("GET /{} HTTP/1.1\r\n\r\n", "x".repeat(70_000))).await;
        daemon.client.status().await.expect("it still answers");
        daemon.end().await;
    });
}

#[test]
fn stop_is_answered_before_the_end() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let daemon = Daemon::start(&folder);
        let stopping = daemon.client.stop().await.expect("an answer");
        assert_eq!(stopping.pid, std::process::id());
        assert_eq!(daemon.handles.shutdown.requested(), Some(Reason::Stop));
        daemon.server.await.expect("it ends");
        assert!(!daemon.client.socket().exists());
        assert!(matches!(daemon.client.status().await, Err(ClientError::NotReachable { .. })));
    });
}

#[test]
fn reload_says_what_a_restart_would_change() {
    on_a_runtime(async {
        let folder = TempDir::new().expect("a folder");
        let file = folder.path().join("pmd.toml");
        let mut settings = Settings::new(4369, folder.path().join("pmd.sock"));
        settings.config_file = Some(file.clone());
        let daemon = Daemon::start_with(&settings);
        assert_eq!(daemon.client.reload().await.expect("no file is fine").needs_restart, [""; 0]);
        std::fs::write(&file, "bind = \"::1\"\n").expect("a file");
        assert_eq!(daemon.client.reload().await.expect("it is right").needs_restart, ["bind"]);
        std::fs::write(&file, "bint = \"::1\"\n").expect("a file");
        match daemon.client.reload().await {
            Err(ClientError::Api { status: 400, info }) => {
                assert!(info.message.ends_with("pmd.toml:1: unknown key \"bint\""), "{}", info.message);
                assert_eq!(info.hint, "did you mean \"bind\"?");
            }
            other => panic!("{other:?}"),
        }
        daemon.end().await;
    });
}
