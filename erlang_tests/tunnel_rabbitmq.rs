//! A RabbitMQ cluster of three hosts that know each other through pmd alone.

use crate::harness::netns::Lan;
use crate::rabbitmq::{
    assert_whole, assert_works, rabbitmqctl, start_broker, wait_for_running, wait_for_start,
};
use crate::support::cluster::{cluster, islands};
use crate::support::mapper::assert_no_stock_epmd;

/// All brokers use port 25672, including one that restarts while the others have tunnels to that port.
#[test]
fn rabbitmq_clusters_through_tunnels_alone() {
    let lan = Lan::new();
    let hosts = islands(&lan, ["rabbit1", "rabbit2", "rabbit3"]);
    let _daemons = cluster(&hosts);
    let [one, two, three] = &hosts;
    let all = [one, two, three];
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

    brokers[2].kill();
    wait_for_running(one, &[one, two]);
    brokers[2] = start_broker(three);
    wait_for_start(three, &mut brokers[2]);
    assert_whole(&all);
    assert_works(&all, three);
    hosts.iter().for_each(assert_no_stock_epmd);
}
