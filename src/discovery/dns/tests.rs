use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};

use hickory_resolver::config::{ConnectionConfig, NameServerConfig, ResolveHosts};
use hickory_resolver::proto::op::{Message, ResponseCode};
use hickory_resolver::proto::rr::rdata::SRV;
use hickory_resolver::proto::rr::{Record, RecordType};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream, UdpSocket};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use super::*;

/// What the server says to a question.
#[derive(Clone, Debug)]
enum Reply {
    /// These records, for so many seconds.
    Records(Vec<RData>, u32),
    /// There is no such name.
    NoSuchName,
    /// Something that is no answer.
    Garbage(Vec<u8>),
    /// That it does not fit into a datagram; these, if asked by TCP.
    Truncated(Vec<RData>),
    /// It does not work.
    Failure,
    /// Nothing.
    Silence,
}

type Answers = Arc<dyn Fn(&str, RecordType) -> Reply + Send + Sync>;

/// A name server on loopback. It ends with this value.
struct Server {
    port: u16,
    _tasks: JoinSet<()>,
}

impl Server {
    async fn new(answers: impl Fn(&str, RecordType) -> Reply + Send + Sync + 'static) -> Server {
        let answers: Answers = Arc::new(answers);
        let (udp, tcp) = loop {
            let udp = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            // Somebody else may have that number.
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
                // The resolver closes when it likes.
                let _ = serve_tcp(stream, &answers).await;
            }
        });
        Server { port, _tasks: tasks }
    }

    fn asks(&self, name: &str) -> Dns {
        let mut connections = [ConnectionConfig::udp(), ConnectionConfig::tcp()];
        connections.iter_mut().for_each(|connection| connection.port = self.port);
        let server = NameServerConfig::new(IpAddr::V4(Ipv4Addr::LOCALHOST), true, connections.into());
        let config = ResolverConfig::from_parts(None, vec![], vec![server]);
        let mut options = ResolverOpts::default();
        options.use_hosts_file = ResolveHosts::Never;
        options.timeout = Duration::from_millis(200);
        options.attempts = 1;
        let servers = Servers::These(Box::new((config, options)));
        Dns { servers, ..Dns::new(name.into(), 4369) }
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
    let question = Message::from_vec(question).expect("a question");
    let query = question.queries.first().expect("one");
    let mut message = Message::response(question.metadata.id, question.metadata.op_code);
    message.add_query(query.clone());
    let mut records = |records: Vec<RData>, ttl| {
        message
            .add_answers(records.into_iter().map(|data| Record::from_rdata(query.name().clone(), ttl, data)));
    };
    match answers(&query.name().to_ascii(), query.query_type()) {
        Reply::Records(data, ttl) => records(data, ttl),
        Reply::Truncated(data) if by_tcp => records(data, 30),
        Reply::Truncated(_) => message.metadata.truncation = true,
        Reply::NoSuchName => message.metadata.response_code = ResponseCode::NXDomain,
        Reply::Failure => message.metadata.response_code = ResponseCode::ServFail,
        Reply::Garbage(bytes) => return Some(bytes),
        Reply::Silence => return None,
    }
    Some(message.to_vec().expect("an answer"))
}

fn ip(text: &str) -> RData {
    RData::from(text.parse::<IpAddr>().expect("an address"))
}

#[tokio::test]
async fn all_addresses_of_a_name_are_found() {
    let server = Server::new(|name, kind| match (name, kind) {
        ("pmd.test.", RecordType::A) => Reply::Records(vec![ip("10.0.0.1"), ip("10.0.0.2")], 20),
        ("pmd.test.", RecordType::AAAA) => Reply::Records(vec![ip("2001:db8::1")], 10),
        _ => Reply::NoSuchName,
    })
    .await;
    let answer = server.asks("pmd.test").look_up().await.expect("an answer");
    assert_eq!(answer.addresses, ["10.0.0.1:4369", "10.0.0.2:4369", "[2001:db8::1]:4369"]);
    assert!(answer.ttl <= Duration::from_secs(10), "what runs out first counts: {:?}", answer.ttl);
    let other_port = Dns { port: 99, ..server.asks("pmd.test.") };
    assert_eq!(other_port.look_up().await.expect("an answer").addresses[0], "10.0.0.1:99");
}

#[tokio::test]
async fn one_family_of_addresses_is_enough() {
    let server = Server::new(|_, kind| match kind {
        RecordType::AAAA => Reply::Records(vec![ip("2001:db8::1")], 10),
        _ => Reply::NoSuchName,
    })
    .await;
    let answer = server.asks("rabbit_1.test").look_up().await.expect("an answer");
    assert_eq!(answer.addresses, ["[2001:db8::1]:4369"]);
}

#[tokio::test]
async fn srv_records_tell_host_and_port() {
    let server = Server::new(|name, kind| {
        assert_eq!((name, kind), ("_pmd._tcp.test.", RecordType::SRV));
        let srv =
            |port, target: &str| RData::SRV(SRV::new(0, 0, port, Name::from_ascii(target).expect("a name")));
        Reply::Records(vec![srv(4369, "a.test."), srv(99, "b_1.test."), srv(1, "."), srv(0, "c.test.")], 10)
    })
    .await;
    let answer = server.asks("_pmd._tcp.test").look_up().await.expect("an answer");
    assert_eq!(answer.addresses, ["a.test:4369", "b_1.test:99"]);
}

#[tokio::test]
async fn a_name_that_stands_for_nothing_is_no_error() {
    let server = Server::new(|name, _| match name {
        "empty.test." => Reply::Records(vec![], 0),
        _ => Reply::NoSuchName,
    })
    .await;
    for name in ["empty.test", "none.test", "_none._tcp.test"] {
        assert_eq!(server.asks(name).look_up().await.expect(name).addresses, [""; 0], "{name}");
    }
}

#[tokio::test]
async fn an_answer_that_does_not_fit_is_asked_for_by_tcp() {
    let all = |number: u8| ip(&format!("10.0.1.{number}"));
    let server = Server::new(move |_, kind| match kind {
        RecordType::A => Reply::Truncated((0..200).map(all).collect()),
        _ => Reply::NoSuchName,
    })
    .await;
    let answer = server.asks("pmd.test").look_up().await.expect("an answer");
    let addresses: BTreeSet<String> = answer.addresses.into_iter().collect();
    assert_eq!(addresses, (0..200).map(|number| format!("10.0.1.{number}:4369")).collect());
}

#[tokio::test]
async fn servers_that_fail_and_servers_that_lie_are_errors_with_the_name_in_them() {
    for reply in [
        Reply::Failure,
        Reply::Silence,
        Reply::Garbage(vec![]),
        Reply::Garbage(vec![0xff; 600]),
        Reply::Garbage(b"\0\0\x81\x80\0\x01\xff\xff\0\0\0\0\xc0\x0c".to_vec()),
    ] {
        let said = reply.clone();
        let server = Server::new(move |_, _| said.clone()).await;
        for name in ["pmd.test", "_pmd._tcp.test"] {
            let error = server.asks(name).look_up().await.expect_err(name).to_string();
            assert!(error.starts_with(&format!("cannot look up {name}: ")), "{reply:?}: {error}");
        }
    }
}

/// As the name of a headless service of Kubernetes: nothing at first, then what is ready.
#[tokio::test]
async fn a_name_is_followed_as_its_addresses_change() {
    let now = Arc::new(Mutex::new(Vec::new()));
    let shown = Arc::clone(&now);
    let server = Server::new(move |_, kind| match kind {
        RecordType::A => Reply::Records(shown.lock().expect("no panic").clone(), 3600),
        _ => Reply::NoSuchName,
    })
    .await;
    let dns = server.asks("pmd.default.svc");
    for (records, addresses) in [
        (vec![], vec![]),
        (vec![ip("10.1.0.1")], vec!["10.1.0.1:4369"]),
        (vec![ip("10.1.0.2"), ip("10.1.0.3")], vec!["10.1.0.2:4369", "10.1.0.3:4369"]),
    ] {
        *now.lock().expect("no panic") = records;
        // Whatever the time to live of the answer before was.
        assert_eq!(dns.look_up().await.expect("an answer").addresses, addresses);
    }
}

#[tokio::test]
async fn what_is_found_is_reported() {
    let server = Server::new(|_, kind| match kind {
        RecordType::A => Reply::Records(vec![ip("10.0.0.1")], 10),
        _ => Reply::NoSuchName,
    })
    .await;
    let (sender, mut receiver) = mpsc::channel(1);
    let dns = server.asks("pmd.test");
    let mut tasks = JoinSet::new();
    tasks.spawn(async move {
        let error = dns.run(&Finds::new(dns.name(), sender)).await;
        panic!("it does not go on: {error:?}");
    });
    assert_eq!(receiver.recv().await, Some((NAME, Find::at("10.0.0.1:4369"))));
}

#[tokio::test]
async fn without_a_configuration_the_system_is_asked() {
    let dns = |name: &str| Dns::new(name.into(), 4369);
    let answer = dns("localhost").ask_system().await.expect("every host has it");
    assert!(answer.addresses.contains(&"127.0.0.1:4369".to_owned()), "{answer:?}");
    let error = dns("_pmd._tcp.test").ask_system().await.expect_err("it cannot").to_string();
    assert_eq!(error, "cannot look up _pmd._tcp.test: SRV records need a name server in /etc/resolv.conf");
}
