//! `pmd services`: the services of this host or of the cluster.

use super::common::{Column, Exit, Output, Result, Table, Target, block_on, explain};
use crate::base::text::metadata;
use crate::control::api::{ClusterService, ServiceInfo};
use crate::control::json;

/// Lists services.
pub fn run(target: &Target, cluster: bool, output: Output) -> Result<Exit> {
    block_on(async {
        let client = target.client();
        if cluster {
            let found = explain(target, client.cluster_services().await).await?;
            output.list(&found, &found.services, &cluster_table(target))?;
        } else {
            let found = explain(target, client.services().await).await?;
            output.list(&found, &found.services, &local_table(target))?;
        }
        Ok(Exit::Done)
    })
}

fn local_table(target: &Target) -> Table<'static, ServiceInfo> {
    const COLUMNS: [Column<ServiceInfo>; 6] = [
        Column::new("NAME", |service| service.name.clone()),
        Column::new("PORT", |service| service.port.to_string()),
        Column::new("METADATA", |service| metadata(&service.metadata)),
        Column::wide("REGISTERED", |service| json::rfc3339(service.registered_at)),
        Column::wide("EXPIRES", |service| service.expires_at.map(json::rfc3339).unwrap_or_default()),
        Column::new("LIFETIME", lifetime),
    ];
    let register = target.command("register web -P 8080");
    Table {
        columns: &COLUMNS,
        colour: |_| None,
        empty: format!("No services are registered. Register one: {register}"),
    }
}

fn lifetime(service: &ServiceInfo) -> String {
    let text = if service.held {
        "while its command runs"
    } else if service.expires_at.is_some() {
        "until it expires"
    } else {
        "until unregistered"
    };
    text.to_owned()
}

fn cluster_table(target: &Target) -> Table<'static, ClusterService> {
    const COLUMNS: [Column<ClusterService>; 6] = [
        Column::new("NAME", |service| service.name.clone()),
        Column::new("HOST", |service| service.host.clone()),
        Column::new("PORT", |service| service.port.to_string()),
        Column::new("METADATA", |service| metadata(&service.metadata)),
        Column::wide("REGISTERED", |service| json::rfc3339(service.registered_at)),
        Column::wide("DAEMON", |service| service.node_id.clone()),
    ];
    let register = target.command("register web -P 8080");
    Table {
        columns: &COLUMNS,
        colour: |_| None,
        empty: format!("No services are registered in the cluster. Register one: {register}"),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::*;
    use crate::cli::args::Format;
    use crate::cli::args::Global;
    use crate::control::api::ClusterServiceList;

    #[test]
    fn services_of_the_cluster_are_listed() {
        let service = ClusterService {
            name: "web".into(),
            host: "host1".into(),
            node_id: "0123456789abcdef".repeat(4),
            port: 8080,
            metadata: [("path".to_owned(), "/\n".to_owned())].into(),
            registered_at: json::timestamp(1_700_000_000_000),
        };
        let document = ClusterServiceList { services: vec![service] };
        let global = Global { port: "5000".parse().ok(), socket: Some("/x".into()), ..Global::default() };
        let table = cluster_table(&Target::of(&global).expect("port and socket are given"));
        let shown = |format| {
            let mut out = Vec::new();
            let output = Output::new(format, false);
            output.write_list(&mut out, &document, &document.services, &table).expect("in-memory write");
            String::from_utf8(out).expect("text")
        };
        assert_snapshot!(shown(Format::Wide), @r"
        NAME  HOST   PORT  METADATA  REGISTERED                DAEMON
        web   host1  8080  path=/\n  2023-11-14T22:13:20.000Z  0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
        ");
        assert_snapshot!(shown(Format::Plain).replace('\t', "|"), @r"web|host1|8080|path=/\n|2023-11-14T22:13:20.000Z|0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef");
        assert!(table.empty.ends_with("Register one: pmd --port 5000 --socket /x register web -P 8080"));
    }
}
