//! The parameters of the event stream.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::sse::Sse;
use axum::response::{IntoResponse, Response};

use super::request::{ApiError, Asked, Parameters};
use crate::base::shutdown::Shutdown;
use crate::control::api::ErrorCode;
use crate::control::events::{self, EventSource, Wanted};
use crate::control::handles::{About, MaybeMember};
use crate::directory::Directory;

pub(super) async fn subscribe(
    State(about): State<Arc<About>>,
    State(directory): State<Arc<Directory>>,
    State(member): State<MaybeMember>,
    State(shutdown): State<Shutdown>,
    query: Asked,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let parameters = Parameters::of(query, &["since", "boot", "kind"])?;
    let invalid = |message: String, hint: String| ApiError::new(ErrorCode::InvalidRequest, message, hint);
    // A browser that reconnects repeats the original URL and sends its position in the header.
    let last_id = headers.get("last-event-id").and_then(|value| value.to_str().ok());
    let since = match last_id.or(parameters.get("since")) {
        None => None,
        Some(number) => Some(number.parse().map_err(|_| {
            invalid(
                format!("{number:?} is not an event number"),
                "numbers start at 1; 0 means all events".into(),
            )
        })?),
    };
    let mut kinds = Vec::new();
    for asked in parameters.all("kind").flat_map(|list| list.split(',')) {
        let Some(kind) = events::KINDS.into_iter().find(|kind| kind.as_str() == asked) else {
            let known = events::KINDS.map(|kind| kind.as_str()).join(", ");
            return Err(invalid(format!("unknown event kind {asked:?}"), format!("the kinds are: {known}")));
        };
        kinds.push(kind);
    }
    let wanted = Wanted { since, boot: parameters.get("boot").map(str::to_owned), kinds };
    let source = EventSource {
        log: Arc::clone(directory.local().events()),
        boot_id: about.boot_id.clone(),
        host: about.host.clone(),
        node_id: member.map(|member| member.cluster.local().id().to_string()),
        shutdown,
    };
    Ok(Sse::new(events::stream(source, wanted)).into_response())
}
