//! Every path of the control API, declared once. The routers, the client, the error for an unknown path and the
//! reference are made from this table.

use std::fmt;

/// The methods that the API uses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Changes something, or starts something that takes time.
    Post,
    /// Removes something.
    Delete,
}

impl Method {
    /// The method as written in a request.
    pub const fn as_str(self) -> &'static str {
        match self {
            Method::Get => "GET",
            Method::Post => "POST",
            Method::Delete => "DELETE",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Where the EPMD port serves an endpoint, and to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Web {
    /// Its path there.
    pub path: &'static str,
    /// Whether it is for clients on this host alone, whoever may see the status page.
    pub local: bool,
}

/// A path for everybody who may see the status page, and for monitoring.
const fn page(path: &'static str) -> Option<Web> {
    Some(Web { path, local: false })
}

/// A path for the commands of users of this host who may not use the control socket.
const fn local(path: &'static str) -> Option<Web> {
    Some(Web { path, local: true })
}

/// One method of one path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Endpoint {
    /// Identifies it in code.
    pub call: Call,
    /// Its method.
    pub method: Method,
    /// Its path on the control socket; a part in braces is a variable.
    pub path: &'static str,
    /// Its parameters as shown in the reference; empty if it takes none.
    pub query: &'static str,
    /// An example of the body; empty if it takes none.
    pub body: &'static str,
    /// Where the EPMD port serves it; none if only the control socket does.
    pub web: Option<Web>,
    /// What it does, for the reference.
    pub summary: &'static str,
}

macro_rules! endpoints {
    ($($call:ident: $method:ident $path:literal, $query:literal, $body:literal, $web:expr, $summary:literal;)*) => {
        /// One variant for each endpoint.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Call { $(#[doc = $summary] $call,)* }

        static ENDPOINTS: &[Endpoint] = &[$(Endpoint {
            call: Call::$call,
            method: Method::$method,
            path: $path,
            query: $query,
            body: $body,
            web: $web,
            summary: $summary,
        },)*];

        impl Call {
            /// The method.
            pub const fn method(self) -> Method {
                match self { $(Call::$call => Method::$method,)* }
            }

            /// The path on the control socket.
            pub const fn path(self) -> &'static str {
                match self { $(Call::$call => $path,)* }
            }

            /// Where the EPMD port serves it.
            pub const fn web(self) -> Option<Web> {
                match self { $(Call::$call => $web,)* }
            }
        }
    };
}

// Name: method, path, parameters, example of the body, path on the EPMD port, summary.
//
// A lookup makes a tunnel entry, and a ping opens a tunnel and greets the node. Both are local, because every program on
// this host can do the same over EPMD: look a node up on the alias of its host, and connect.
endpoints! {
    Status: Get "/v1/status", "?ask", "", page("/v1/status"),
        "Everything `pmd status` shows. With `ask`, peers are asked for their current fingerprints, which the next request shows.";
    Health: Get "/v1/health", "?ready", "", None,
        "200 if the daemon is healthy, 503 with the problems if not. With `ready`, also whether it answers on its EPMD port and has room \
         for more nodes.";
    Names: Get "/v1/names", "?adopted=true, ?scope=cluster&host=HOST", "", page("/v1/names"),
        "The Erlang nodes registered on this host, newest first; `adopted` selects those taken over from another port mapper that have \
         not registered again (`true`) or all others (`false`). With `scope=cluster`, those of every host or of `host`.";
    Adopt: Post "/v1/names/adopt", "",
        r#"{"names":[{"name":"rabbit","port":25672,"node_type":77,"protocol":0,"highest_version":6,"lowest_version":5}]}"#, None,
        "Answers lookups for nodes of another port mapper until they register here; used by `pmd takeover`.";
    Services: Get "/v1/services", "?scope=cluster", "", page("/v1/services"),
        "The services registered on this host, or with `scope=cluster` on every host.";
    Register: Post "/v1/services", "", r#"{"name":"web","port":8080,"metadata":{"k":"v"},"ttl_ms":30000}"#, None,
        "Registers a service, or renews it.";
    Hold: Post "/v1/services/hold", "", r#"{"name":"web","port":8080,"metadata":{"k":"v"}}"#, None,
        "Registers a service for as long as the response is being read.";
    Unregister: Delete "/v1/services/{name}", "", "", None,
        "Removes a service.";
    Lookup: Get "/v1/lookup", "?name=NAME[@HOST]&kind=name|service", "", local("/v1/lookup"),
        "Where a node or service runs, and where a program on this host connects to it (`entry`); 404 if nothing of that name is \
         registered.";
    Nodes: Get "/v1/nodes", "", "", page("/v1/nodes"),
        "The members of the cluster.";
    Peers: Get "/v1/peers", "", "", page("/v1/peers"),
        "The links to other daemons.";
    Discover: Get "/v1/discover", "", "", None,
        "The daemons that discovery has found.";
    Reach: Post "/v1/reach", "", r#"{"addresses":["host1"]}"#, None,
        "Connects to a daemon without joining it, including the checks of certificate and cluster secret; for each address that \
         failed, `leg` names the step.";
    Refusals: Get "/v1/refusals", "", "", None,
        "Rejected connections by address: which side rejected, why, how often and when.";
    Join: Post "/v1/join", "", r#"{"addresses":["host1"],"timeout_ms":10000}"#, None,
        "Joins a cluster. The error code tells why it failed: `unresolvable`, `unreachable`, `refused`, `oneself` or `timeout`.";
    Leave: Post "/v1/leave", "", r#"{"peer":"host1"}"#, None,
        "Leaves the cluster; with `peer`, tells that member to leave instead.";
    Expelled: Get "/v1/expelled", "", "", None,
        "The daemons that were expelled from the cluster.";
    Expel: Post "/v1/expel", "", r#"{"member":"host2","keep_secret":false}"#, None,
        "Expels a member, named by id, host name or address: all members close its links and tunnels and refuse it from then on. Unless \
         `keep_secret`, the cluster secret is replaced as by `POST /v1/cookie/rotation`.";
    Readmit: Post "/v1/readmit", "", r#"{"member":"host2"}"#, None,
        "Lets an expelled daemon, named by id or host name, join again.";
    Rotation: Get "/v1/cookie/rotation", "", "", None,
        "How far the latest rotation of the cluster secret is; 404 if this daemon knows none.";
    Rotate: Post "/v1/cookie/rotation", "", r#"{"finish":false}"#, None,
        "Replaces the cluster secret: distributes a new one over the links to all members. With `finish`, the old one is no longer \
         accepted from then on, whether or not all members have the new one.";
    Revocations: Get "/v1/revocations", "", "", None,
        "The latest list of revoked certificates of each authority that this daemon trusts.";
    InstallRevocations: Post "/v1/revocations", "", r#"{"pem":"-----BEGIN X509 CRL-----\n...\n-----END X509 CRL-----\n"}"#, None,
        "Puts a list that `pmd ca revoke` has written in force on all members: they close the links and tunnels of the revoked \
         certificates and refuse them from then on.";
    Tunnels: Get "/v1/tunnels", "?for=node", "", local("/v1/tunnels"),
        "The files for Erlang nodes, the loopback address of each host, and the open tunnels. With `for=node`, waits up to 2 s until the \
         files list every host.";
    Ping: Post "/v1/ping", "", r#"{"node":"bar@host2"}"#, local("/v1/ping"),
        "Tests each hop to a node; the error is that of the hop that failed.";
    Claims: Get "/v1/claims", "", "", local("/v1/claims"),
        "The claims that are held in the cluster, as a majority of the voters knows them. The code is `timeout` if none answers within 5 s.";
    HoldClaim: Post "/v1/claims/hold", "", r#"{"name":"leader","ttl_ms":10000,"wait_ms":0,"guarded":false}"#, None,
        "Claims a name for as long as the response is being read. The response begins when the claim is granted, with a line of JSON; \
         each renewal is another line. The code is `conflict` if somebody else holds it after `wait_ms`, `timeout` if no majority of the \
         voters answers.";
    ReleaseClaim: Post "/v1/claims/release", "", r#"{"name":"leader","number":366148604821505}"#, None,
        "Releases a claim that somebody on this host holds.";
    Voters: Get "/v1/voters", "", "", local("/v1/voters"),
        "The daemons that decide who holds a claim, and what each of them does.";
    Events: Get "/v1/events", "?since=N&boot=ID&kind=KIND", "", page("/v1/events"),
        "A stream of numbered server-sent events. It begins with `hello` (`boot_id`, `last`); `since` with `boot`, or the header \
         `Last-Event-ID`, resumes it; `gap` reports missed events and the reason: `too_old` or `restarted`.";
    Metrics: Get "/v1/metrics", "", "", page("/metrics"),
        "The metrics, in the text format of Prometheus.";
    Log: Get "/v1/log", "", "", None,
        "The latest 500 lines of the daemon's log, as text.";
    Stop: Post "/v1/stop", "", "", None,
        "Stops the daemon.";
    Reload: Post "/v1/reload", "", "", None,
        "Rereads the configuration file, the cluster secret and the certificates.";
}

/// All endpoints, in the order of the reference.
pub fn endpoints() -> &'static [Endpoint] {
    ENDPOINTS
}

/// All paths, each once.
pub fn paths() -> impl Iterator<Item = &'static str> {
    let mut last = "";
    // The table lists the methods of a path next to each other.
    endpoints()
        .iter()
        .map(|endpoint| endpoint.path)
        .filter(move |path| std::mem::replace(&mut last, path) != *path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_endpoint_is_declared_once_and_described() {
        for (number, endpoint) in endpoints().iter().enumerate() {
            assert_eq!((endpoint.call.method(), endpoint.call.path()), (endpoint.method, endpoint.path));
            let same = |other: &&Endpoint| (other.method, other.path) == (endpoint.method, endpoint.path);
            assert_eq!(endpoints().iter().filter(same).count(), 1, "{} {}", endpoint.method, endpoint.path);
            assert_eq!(endpoints().iter().position(|other| other.call == endpoint.call), Some(number));
            assert!(endpoint.path.starts_with("/v1/"), "{}", endpoint.path);
            assert!(
                endpoint.summary.ends_with('.') && !endpoint.summary.contains("  "),
                "{}",
                endpoint.summary
            );
            let others = endpoint.web.is_some_and(|web| !web.local);
            assert!(!others || endpoint.method == Method::Get, "{} must be a GET", endpoint.path);
            assert_eq!(endpoint.call.web(), endpoint.web);
        }
    }

    #[test]
    fn bodies_are_json() {
        for endpoint in endpoints().iter().filter(|endpoint| !endpoint.body.is_empty()) {
            assert!(serde_json::from_str::<serde_json::Value>(endpoint.body).is_ok(), "{}", endpoint.body);
            assert_ne!(endpoint.method, Method::Get);
        }
    }

    #[test]
    fn a_path_with_two_methods_is_listed_once() {
        let all: Vec<_> = paths().collect();
        assert_eq!(all.iter().filter(|path| **path == "/v1/services").count(), 1);
        assert_eq!(all.len(), endpoints().len() - 3);
    }
}
