//! Listing and adopting Erlang nodes.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Json, Response};
use bytes::Bytes;
use futures_util::stream;
use pmd_epmd::names::Registration;
use pmd_epmd::names::table::Claim;
use pmd_protocol::NodeName;
use pmd_protocol::limits::MAX_EXTRA;

use super::cluster;
use super::request::{Answer, ApiError, Asked, Parameters, RequestBody};
use crate::base::clock::now_ms;
use crate::control::api::{self, ErrorCode};
use crate::control::handles::{MaybeMember, Measured};
use crate::control::json::timestamp;
use crate::directory::Directory;

/// Names per chunk of a list, so that a long list is never in memory as a whole.
const NAMES_AT_ONCE: usize = 256;

fn is_adopted(entry: &Registration) -> bool {
    matches!(entry.claim, Claim::Adopted)
}

pub(super) async fn list(
    State(directory): State<Arc<Directory>>,
    State(member): State<MaybeMember>,
    query: Asked,
) -> Result<Response, ApiError> {
    let parameters = Parameters::of(query, &["adopted", "scope", "host"])?;
    if in_cluster(&parameters)? {
        let list = cluster::names(&directory, cluster::of(&member)?, parameters.get("host"))?;
        return Ok(Json(list).into_response());
    }
    let adopted = parameters.switch("adopted");
    let mut entries = directory.local().names().all();
    if let Some(adopted) = adopted {
        entries.retain(|entry| is_adopted(entry) == adopted);
    }
    let now = now_ms();
    let host = serde_json::to_string(directory.local().host()).unwrap_or_default();
    let head = Bytes::from(format!("{{\"host\":{host},\"names\":["));
    let pieces = (0..entries.len()).step_by(NAMES_AT_ONCE).map(move |start| {
        let mut piece = Vec::new();
        for (offset, entry) in entries.iter().skip(start).take(NAMES_AT_ONCE).enumerate() {
            if start + offset > 0 {
                piece.push(b',');
            }
            // Plain data always has a JSON form.
            let _ = serde_json::to_writer(&mut piece, &name_on_the_wire(entry, now));
        }
        Bytes::from(piece)
    });
    let pieces = std::iter::once(head).chain(pieces).chain(std::iter::once(Bytes::from_static(b"]}")));
    let body = Body::from_stream(stream::iter(pieces.map(Ok::<_, Infallible>)));
    Ok(([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body).into_response())
}

/// Whether the request asks for the whole cluster instead of this host.
pub(super) fn in_cluster(parameters: &Parameters) -> Result<bool, ApiError> {
    match parameters.get("scope") {
        None | Some("host") => Ok(false),
        Some("cluster") => Ok(true),
        Some(scope) => {
            let message = format!("unknown scope {scope:?}");
            Err(ApiError::new(ErrorCode::InvalidRequest, message, "the scopes are: host, cluster"))
        }
    }
}

fn name_on_the_wire(entry: &Registration, now: u64) -> api::Name {
    api::Name {
        name: entry.name.to_string(),
        port: entry.port,
        creation: entry.creation,
        registered_at: timestamp(entry.registered_ms),
        age_seconds: now.saturating_sub(entry.registered_ms) / 1000,
        node_type: entry.node_type,
        highest_version: entry.highest_version,
        lowest_version: entry.lowest_version,
        adopted: is_adopted(entry),
    }
}

pub(super) async fn adopt(
    State(directory): State<Arc<Directory>>,
    State(measured): State<Measured>,
    Extension(body): Extension<RequestBody>,
) -> Answer<api::AdoptOutcome> {
    let asked: api::Adopt = body.parse()?;
    for entry in &asked.names {
        let name = entry.name.parse::<NodeName>().map_err(|error| error.to_string());
        let extra = if entry.extra.len() > MAX_EXTRA {
            Err("its extra field is too long".to_owned())
        } else {
            Ok(())
        };
        if let Err(reason) = name.map(drop).and(extra) {
            return Err(ApiError::new(
                ErrorCode::InvalidRequest,
                format!("{:?} cannot be registered: {reason}", entry.name),
                "remove it from the request; no name was taken over",
            ));
        }
    }
    let (names, now) = (directory.local().names(), now_ms());
    let mut outcome = api::AdoptOutcome::default();
    for entry in &asked.names {
        if names.count().0 >= measured.descriptors.max_registered() {
            return Err(ApiError::new(
                ErrorCode::Full,
                "all node slots are in use",
                "raise the descriptor limit (ulimit -Hn) and restart the daemon",
            ));
        }
        if names.adopt(&entry.as_alive2(), now) {
            outcome.adopted += 1;
        } else {
            outcome.registered += 1;
        }
    }
    let api::AdoptOutcome { adopted, registered } = outcome;
    tracing::info!(
        adopted,
        registered,
        "took over names from another port mapper until their nodes register again"
    );
    Ok(Json(outcome))
}
