//! The handler of each path of the control API.

mod claims;
mod cluster;
mod daemon;
mod events;
mod expulsions;
mod lookup;
mod monitoring;
mod names;
mod ping;
mod reach;
mod request;
mod revocations;
mod rotation;
mod services;
mod tunnel;
mod warnings;

use axum::routing::{MethodFilter, MethodRouter, on};
use axum::{Router, middleware};

use super::endpoints::{Call, Method, endpoints};
use super::handles::Handles;

/// The paths that the EPMD port also serves, for the status page and monitoring, and, if `local`, for commands of this
/// host's users. They change no state that anybody else sees.
pub fn read_only(handles: Handles, local: bool) -> Router {
    let webs = endpoints().iter().filter_map(|endpoint| Some((endpoint.call, endpoint.web?)));
    let served = webs.filter(|(_, web)| local || !web.local);
    routes(served.map(|(call, web)| (call, web.path)))
        .layer(middleware::from_fn(request::read_body))
        .with_state(handles)
}

/// All paths.
pub fn router(handles: Handles) -> Router {
    routes(endpoints().iter().map(|endpoint| (endpoint.call, endpoint.path)))
        .fallback(request::no_such_path)
        .method_not_allowed_fallback(request::no_such_method)
        .layer(middleware::from_fn(request::read_body))
        .with_state(handles)
}

fn routes(calls: impl Iterator<Item = (Call, &'static str)>) -> Router<Handles> {
    calls.fold(Router::new(), |router, (call, path)| router.route(path, handler(call)))
}

/// The function that answers a call.
fn handler(call: Call) -> MethodRouter<Handles> {
    let method = match call.method() {
        Method::Get => MethodFilter::GET,
        Method::Post => MethodFilter::POST,
        Method::Delete => MethodFilter::DELETE,
    };
    match call {
        Call::Status => on(method, daemon::status),
        Call::Health => on(method, daemon::health),
        Call::Names => on(method, names::list),
        Call::Adopt => on(method, names::adopt),
        Call::Services => on(method, services::list),
        Call::Register => on(method, services::register),
        Call::Hold => on(method, services::hold),
        Call::Unregister => on(method, services::unregister),
        Call::Lookup => on(method, lookup::lookup),
        Call::Nodes => on(method, cluster::nodes),
        Call::Peers => on(method, cluster::peers),
        Call::Discover => on(method, cluster::discover),
        Call::Reach => on(method, reach::reach),
        Call::Refusals => on(method, reach::refusals),
        Call::Join => on(method, cluster::join),
        Call::Leave => on(method, cluster::leave),
        Call::Expelled => on(method, expulsions::list),
        Call::Expel => on(method, expulsions::expel),
        Call::Readmit => on(method, expulsions::readmit),
        Call::Revocations => on(method, revocations::list),
        Call::InstallRevocations => on(method, revocations::install),
        Call::Rotation => on(method, rotation::progress),
        Call::Rotate => on(method, rotation::rotate),
        Call::Tunnels => on(method, tunnel::list),
        Call::Ping => on(method, ping::ping),
        Call::Claims => on(method, claims::list),
        Call::HoldClaim => on(method, claims::hold),
        Call::ReleaseClaim => on(method, claims::release),
        Call::Voters => on(method, claims::voters),
        Call::Events => on(method, events::subscribe),
        Call::Metrics => on(method, monitoring::metrics),
        Call::Log => on(method, monitoring::log),
        Call::Stop => on(method, daemon::stop),
        Call::Reload => on(method, daemon::reload),
    }
}
