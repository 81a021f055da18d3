use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use domain::base::iana::{Class, Rtype};
use domain::base::{MessageBuilder, Ttl};
use domain::resolv::stub::conf::{ServerConf, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;

/// The server's reaction to a query.
#[derive(Clone, Debug)]
enum Reply {
    /// SRV records with these hosts and ports.
    Records(Vec<(String, u16)>),
    /// The name does not exist.
    NoSuchName,
    /// Something that is not an answer.
    Garbage(Vec<u8>),
    /// A truncated answer over UDP, and these records over TCP.
    Truncated(Vec<(String, u16)>),
    /// A server failure.
    Failure,
    /// No answer.
    Silence,
}

type Answers = Arc<dyn Fn(&str) -> Reply + Send + Sync>;

/// A name server on loopback that answers queries for SRV records until it is dropped.
struct Server {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn new(answers: impl Fn(&str) -> Reply + Send + Sync + 'static) -> Server {
        let answers: Answers = Arc::new(answers);
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            // Another program may use the TCP port with that number.
            if let Ok(tcp) = TcpListener::bind(udp.local_addr().expect("its address")).await {
                break (udp, tcp);
            }
        };
        let port = udp.local_addr().expect("its address").port();
        let mut tasks = JoinSet::new();
        let by_udp = Arc::clone(&answers);
        tasks.spawn(async move {
            let mut buffer = [0; 4096];
            loop {
                let (length, from) = udp.recv_from(&mut buffer).await.expect("a question");
                if let Some(answer) = answer(&buffer[..length], &by_udp, false) {
                    udp.send_to(&answer, from).await.expect("sent");
                }
            }
        });
        tasks.spawn(async move {
            loop {
                let (stream, _) = tcp.accept().await.expect("a connection");
                // The resolver may close at any time.
                let _ = serve_tcp(stream, &answers).await;
            }
        });
        Server { port, _tasks: tasks }
    }

    fn asks(&self, name: &str) -> Dns {
        let mut configuration = ResolvConf::new();
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.port);
        configuration.servers.push(ServerConf::new(address, Transport::UdpTcp));
        configuration.options.timeout = Duration::from_millis(200);
        configuration.options.attempts = 1;
        configuration.options.search.push("cluster.test".parse().expect("a name"));
        Dns { servers: Servers::These(configuration), ..Dns::new(name.into(), 4369) }
    }
}

async fn serve_tcp(mut stream: TcpStream, answers: &Answers) -> std::io::Result<()> {
    let mut question = vec![0; stream.read_u16().await?.into()];
    stream.read_exact(&mut question).await?;
    if let Some(answer) = answer(&question, answers, true) {
        stream.write_u16(u16::try_from(answer.len()).expect("short")).await?;
        stream.write_all(&answer).await?;
    }
    Ok(())
}

fn answer(question: &[u8], answers: &Answers, by_tcp: bool) -> Option<Vec<u8>> {
    let question = Message::from_octets(question).expect("a question");
    let asked = question.sole_question().expect("one");
    assert_eq!((asked.qtype(), asked.qclass()), (Rtype::SRV, Class::IN));
    let reply = answers(&asked.qname().to_string());
    let (code, records) = match reply {
        Reply::Records(records) => (Rcode::NOERROR, records),
        Reply::Truncated(records) if by_tcp => (Rcode::NOERROR, records),
        Reply::Truncated(_) => (Rcode::NOERROR, vec![]),
        Reply::NoSuchName => (Rcode::NXDOMAIN, vec![]),
        Reply::Failure => (Rcode::SERVFAIL, vec![]),
        Reply::Garbage(bytes) => return Some(bytes),
        Reply::Silence => return None,
    };
    let mut message = MessageBuilder::new_vec().start_answer(&question, code).expect("room");
    for (target, port) in records {
        let target: Name<Vec<u8>> = target.parse().expect("a name");
        let ttl = Ttl::from_secs(30);
        message.push((asked.qname(), ttl, Srv::new(0, 0, port, target))).expect("room");
    }
    if matches!(answers(&asked.qname().to_string()), Reply::Truncated(_)) {
        message.header_mut().set_tc(!by_tcp);
    }
    Some(message.finish())
}

fn at(targets: &[(&str, u16)]) -> Vec<(String, u16)> {
    targets.iter().map(|(target, port)| ((*target).to_owned(), *port)).collect()
}

fn set(addresses: &[&str]) -> Addresses {
    addresses.iter().map(|address| (*address).to_owned()).collect()
}

#[tokio::test]
async fn srv_records_give_host_and_port() {
    let server = Server::new(|name| {
        assert_eq!(name, "_pmd._tcp.test");
        Reply::Records(at(&[("a.test.", 4369), ("b_1.test.", 99), (".", 1), ("c.test.", 0)]))
    })
    .await;
    let found = server.asks("_pmd._tcp.test").look_up().await.expect("an answer");
    assert_eq!(found, set(&["a.test:4369", "b_1.test:99"]));
}

#[tokio::test]
async fn a_short_name_is_looked_up_in_the_search_domains() {
    let server = Server::new(|name| match name {
        "_pmd._tcp.cluster.test" => Reply::Records(at(&[("a.test.", 4369)])),
        _ => Reply::NoSuchName,
    })
    .await;
    let found = server.asks("_pmd._tcp").look_up().await.expect("an answer");
    assert_eq!(found, set(&["a.test:4369"]));
    let found = server.asks("_pmd._tcp.").look_up().await.expect("an answer");
    assert_eq!(found, set(&[]), "a trailing dot disables the search domains");
}

#[test]
fn the_search_order_is_that_of_the_system() {
    let mut options = ResolvOptions::default();
    for domain in ["a.test", "b.test"] {
        options.search.push(domain.parse().expect("a name"));
    }
    options.ndots = 2;
    assert_eq!(candidates("_pmd._tcp", &options), ["_pmd._tcp.a.test", "_pmd._tcp.b.test", "_pmd._tcp"]);
    assert_eq!(candidates("_p._tcp.c", &options), ["_p._tcp.c", "_p._tcp.c.a.test", "_p._tcp.c.b.test"]);
    assert_eq!(candidates("_p._tcp.c.", &options), ["_p._tcp.c."]);
}

#[tokio::test]
async fn a_name_without_records_is_not_an_error() {
    let server = Server::new(|name| match name {
        "_empty._tcp.test" => Reply::Records(vec![]),
        _ => Reply::NoSuchName,
    })
    .await;
    for name in ["_empty._tcp.test", "_none._tcp.test"] {
        assert_eq!(server.asks(name).look_up().await.expect(name), set(&[]), "{name}");
    }
}

#[tokio::test]
async fn a_truncated_answer_is_queried_over_tcp() {
    let all = (0..200).map(|number| (format!("host{number}.test."), 4369));
    let all: Vec<_> = all.collect();
    let expected: Addresses =
        all.iter().map(|(host, _)| format!("{}:4369", host.trim_end_matches('.'))).collect();
    let server = Server::new(move |_| Reply::Truncated(all.clone())).await;
    let found = server.asks("_pmd._tcp.test").look_up().await.expect("an answer");
    assert_eq!(found, expected);
}

#[tokio::test]
async fn failures_and_invalid_answers_are_errors_that_name_the_query() {
    for reply in [
        Reply::Failure,
        Reply::Silence,
        Reply::Garbage(vec![]),
        Reply::Garbage(vec![0xff; 600]),
        Reply::Garbage(b"\0\0\x81\x80\0\x01\xff\xff\0\0\0\0\xc0\x0c".to_vec()),
    ] {
        let said = reply.clone();
        let server = Server::new(move |_| said.clone()).await;
        let error = server.asks("_pmd._tcp.test").look_up().await.expect_err("no answer").to_string();
        assert!(error.starts_with("cannot look up _pmd._tcp.test: "), "{reply:?}: {error}");
    }
}

#[tokio::test]
async fn the_next_server_is_queried_if_one_fails() {
    for reply in [Reply::Failure, Reply::Silence] {
        let said = reply.clone();
        let failing = Server::new(move |_| said.clone()).await;
        let working = Server::new(|_| Reply::Records(at(&[("a.test", 4369)]))).await;
        let mut dns = failing.asks("_pmd._tcp.test");
        let Servers::These(configuration) = &mut dns.servers else { unreachable!("these are asked") };
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), working.port);
        configuration.servers.push(ServerConf::new(address, Transport::UdpTcp));
        assert_eq!(dns.look_up().await.expect("an answer"), set(&["a.test:4369"]), "{reply:?}");
    }
}

/// Like a headless service in Kubernetes: no addresses at first, then those of the ready pods.
#[tokio::test]
async fn changed_records_are_found() {
    let now = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&now);
    let server = Server::new(move |_| Reply::Records(shown.lock().expect("no panic").clone())).await;
    let dns = server.asks("_epmd._tcp.pmd.default.svc");
    for (records, addresses) in [
        (at(&[]), set(&[])),
        (at(&[("a.test", 1)]), set(&["a.test:1"])),
        (at(&[("b.test", 1), ("c.test", 2)]), set(&["b.test:1", "c.test:2"])),
    ] {
        *now.lock().expect("no panic") = records;
        assert_eq!(dns.look_up().await.expect("an answer"), addresses);
    }
}

#[test]
fn lookups_become_rarer_while_nothing_changes() {
    let seconds = [1, 2, 3, 4, 5, 6].map(|same| PAUSES.pause(same).as_secs());
    assert_eq!(seconds, [5, 10, 20, 40, 60, 60]);
}

#[tokio::test]
async fn addresses_are_reported() {
    let server = Server::new(|_| Reply::Records(at(&[("a.test", 4369)]))).await;
    let (sender, mut receiver) = mpsc::channel(1);
    let dns = server.asks("_pmd._tcp.test");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let error = dns.run(&Finds::new(dns.name(), sender)).await;
        panic!("the plugin failed: {error:?}");
    });
    assert_eq!(receiver.recv().await, Some((NAME, Find::at("a.test:4369"))));
}

#[tokio::test]
async fn addresses_come_from_the_system_resolver() {
    let localhost = Dns::new("localhost".into(), 99).look_up().await.expect("every host has it");
    assert!(localhost.contains("127.0.0.1:99"), "{localhost:?}");
    // This name never exists (RFC 6761). If no name server answers at all, the lookup fails.
    match Dns::new("pmd.invalid".into(), 99).look_up().await {
        Ok(found) => assert_eq!(found, set(&[])),
        Err(error) => assert!(error.to_string().starts_with("cannot look up pmd.invalid: "), "{error}"),
    }
}
