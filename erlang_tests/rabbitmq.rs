//! A RabbitMQ cluster of three hosts is built, disturbed and repaired.

use std::fs;
use std::process::{Command, Output};
use std::time::Duration;

use crate::harness::netns::{Host, Lan};
use crate::harness::program::{Program, run_within};
use crate::harness::wait_within;
use crate::support::cluster::inetrc;
use crate::support::mapper::{Daemon, assert_no_stock_epmd};
use crate::support::{hosts, installed, told};

/// Three brokers share the machine with other tests, so a start can take this long. Nothing here is timed.
const PATIENCE: Duration = Duration::from_secs(150);

/// A minority pauses and resumes automatically, so a lost network heals without intervention.
const CONFIGURATION: &str = "\
cluster_partition_handling = pause_minority
listeners.tcp.default = 5672
vm_memory_high_watermark.absolute = 256MB
disk_free_limit.absolute = 1MB
log.console = true
log.console.level = info
log.file = false
queue_master_locator = client-local
";

/// Lost neighbours are noticed after five seconds instead of a minute.
const ERL_ARGUMENTS: &str = "+S 1:1 +SDio 1 +A 2 -kernel net_ticktime 5";

/// Sets up a command so that RabbitMQ stays inside the host's directory.
fn confine(command: &mut Command, host: &Host) {
    let home = host.dir().join("rabbitmq");
    let place = |name: &str| home.join(name);
    command
        .env("RABBITMQ_NODENAME", format!("rabbit@{}", host.name))
        .env("RABBITMQ_CONF_ENV_FILE", place("no-environment.conf"))
        .env("RABBITMQ_CONFIG_FILE", place("rabbitmq.conf"))
        .env("RABBITMQ_ADVANCED_CONFIG_FILE", place("no-advanced.config"))
        .env("RABBITMQ_GENERATED_CONFIG_DIR", place("generated"))
        .env("RABBITMQ_MNESIA_BASE", place("mnesia"))
        .env("RABBITMQ_LOG_BASE", place("log"))
        .env("RABBITMQ_LOGS", "-")
        .env("RABBITMQ_PID_FILE", place("pid"))
        .env("RABBITMQ_ENABLED_PLUGINS_FILE", place("enabled_plugins"))
        .env("RABBITMQ_PLUGINS_EXPAND_DIR", place("plugins"))
        .env("RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS", ERL_ARGUMENTS)
        .env("RABBITMQ_CTL_ERL_ARGS", "+S 1:1 +SDio 1 +A 1")
        .env("ERL_CRASH_DUMP_SECONDS", "0")
        .env("LC_ALL", "C.UTF-8")
        // Exists only where pmd resolves other hosts; Erlang's resolver ignores a missing file.
        .envs(Some(inetrc(host)).filter(|file| file.exists()).map(|file| ("ERL_INETRC", file)))
        // The script execs the node instead of supervising it, so the test's child is the node.
        .env("RUNNING_UNDER_SYSTEMD", "true");
}

pub(crate) fn start_broker(host: &Host) -> Program {
    let home = host.dir().join("rabbitmq");
    fs::create_dir_all(&home).expect("a directory for the broker");
    fs::write(home.join("rabbitmq.conf"), CONFIGURATION).expect("the configuration");
    fs::write(home.join("enabled_plugins"), "[].\n").expect("no plugins");
    let mut command = host.command(installed("/usr/lib/rabbitmq/bin/rabbitmq-server", "rabbitmq-server"));
    confine(&mut command, host);
    Program::spawn(command)
}

pub(crate) fn wait_for_start(host: &Host, broker: &mut Program) {
    wait_within(PATIENCE, &format!("the broker on {}", host.name), || {
        assert!(broker.is_running(), "the broker ended:\n{}\n{}", broker.stdout(), broker.stderr());
        broker.stdout().contains("Server startup complete")
    });
}

/// The output of `rabbitmqctl` on the host, whether it succeeds or not.
pub(crate) fn control(host: &Host, args: &[&str]) -> Output {
    let mut command = host.command(installed("/usr/lib/rabbitmq/bin/rabbitmqctl", "rabbitmq-server"));
    confine(&mut command, host);
    command.args(args);
    run_within(PATIENCE, command)
}

/// Standard output of a `rabbitmqctl` that must succeed.
pub(crate) fn rabbitmqctl(host: &Host, args: &[&str]) -> String {
    let (stdout, stderr, code) = told(&control(host, args));
    assert_eq!(code, Some(0), "rabbitmqctl {args:?} on {}:\n{stdout}{stderr}", host.name);
    stdout
}

/// Waits until one host's broker sees exactly these other brokers (and itself) running. Asks that broker directly, because
/// `cluster_status` queries every member in turn and waits long for those that are gone.
pub(crate) fn wait_for_running(observer: &Host, expected: &[&Host]) {
    let question = "lists:sort([Node || Node <- [node() | nodes()], rabbit:is_running(Node)]).";
    let names: Vec<String> = expected.iter().map(|host| format!("rabbit@{}", host.name)).collect();
    let answer = format!("[{}]", names.join(","));
    wait_within(PATIENCE, &format!("{} to see {answer}", observer.name), || {
        told(&control(observer, &["eval", question])).0.trim() == answer
    });
}

/// Every host reports that all hosts are in the cluster and running.
pub(crate) fn assert_whole(hosts: &[&Host; 3]) {
    for host in hosts {
        wait_for_running(host, hosts);
        let status = rabbitmqctl(host, &["-q", "cluster_status", "--formatter", "json"]);
        let status: serde_json::Value = serde_json::from_str(&status).expect("a status in JSON");
        let mut running: Vec<&str> = status["running_nodes"]
            .as_array()
            .expect("a list of running nodes")
            .iter()
            .filter_map(|node| node.as_str())
            .collect();
        running.sort_unstable();
        assert_eq!(running, ["rabbit@rabbit1", "rabbit@rabbit2", "rabbit@rabbit3"], "{status:#}");
    }
}

/// The length of the queue, as one host sees it.
fn messages(host: &Host) -> u32 {
    let listed = rabbitmqctl(host, &["-q", "list_queues", "name", "messages", "--no-table-headers"]);
    let count = listed.trim().strip_prefix("orders\t").and_then(|count| count.parse().ok());
    // A queue that is electing a leader is listed without a length.
    count.unwrap_or_default()
}

/// Publishes on one host until all hosts see the queue grow, which shows that the cluster works. Messages are not
/// confirmed: one that meets a queue without a leader is lost, and a later one counts.
pub(crate) fn assert_works(hosts: &[&Host], publisher: &Host) {
    // RabbitMQ 4 has another interface inside than 3.
    let publish = "Exchange = rabbit_misc:r(<<\"/\">>, exchange, <<>>),
        case erlang:function_exported(rabbit_basic, publish, 4) of
            true -> rabbit_basic:publish(Exchange, <<\"orders\">>, [], <<\"one\">>);
            false ->
                Content = rabbit_basic:build_content(rabbit_basic:properties([]), <<\"one\">>),
                {ok, Message} = mc_amqpl:message(Exchange, <<\"orders\">>, Content),
                rabbit_queue_type:publish_at_most_once(Exchange, Message)
        end, ok.";
    let before = messages(publisher);
    for host in hosts {
        wait_within(PATIENCE, &format!("a message in sight of {}", host.name), || {
            assert_eq!(rabbitmqctl(publisher, &["eval", publish]).trim(), "ok");
            messages(host) > before
        });
    }
}

#[test]
fn rabbitmq_clusters_three_hosts_and_recovers() {
    let lan = Lan::new();
    let [one, two, three] = &hosts(&lan, ["rabbit1", "rabbit2", "rabbit3"]);
    let all = [one, two, three];
    let _daemons = all.map(Daemon::start);
    let mut brokers = all.map(start_broker);
    for (host, broker) in all.into_iter().zip(&mut brokers) {
        wait_for_start(host, broker);
    }
    for host in [two, three] {
        rabbitmqctl(host, &["stop_app"]);
        rabbitmqctl(host, &["join_cluster", "rabbit@rabbit1"]);
        rabbitmqctl(host, &["start_app"]);
    }
    assert_whole(&all);
    let declare = "element(1, rabbit_amqqueue:declare(rabbit_misc:r(<<\"/\">>, queue, <<\"orders\">>),
        true, false, [{<<\"x-queue-type\">>, longstr, <<\"quorum\">>}], none, <<\"test\">>)).";
    assert_eq!(rabbitmqctl(two, &["eval", declare]).trim(), "new");
    assert_works(&all, three);

    // A broker dies.
    brokers[2].kill();
    wait_for_running(one, &[one, two]);
    assert_works(&[one, two], one);
    brokers[2] = start_broker(three);
    wait_for_start(three, &mut brokers[2]);
    assert_whole(&all);
    assert_works(&all, three);

    // A host loses its network.
    lan.plug(two, false);
    wait_for_running(one, &[one, three]);
    assert_works(&[one, three], three);
    lan.plug(two, true);
    assert_whole(&all);
    assert_works(&all, two);

    for host in all {
        assert_no_stock_epmd(host);
    }
}
