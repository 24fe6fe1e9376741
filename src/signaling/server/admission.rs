//! Who is let in: [`Arrival`].

use std::net::IpAddr;
use std::sync::Arc;

use axum::http::HeaderMap;
use futures::future::BoxFuture;

use crate::signaling::godot::Generation;

/// Somebody who wants to join a lobby, as an admission sees it
/// ([`admission`](super::SignalingServerBuilder::admission)).
///
/// The headers and the query may hold the client's secrets; its `Debug` shows them.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Arrival {
    /// Where it comes from, if that is known: within somebody else's program it may not be.
    pub address: Option<IpAddr>,
    /// The headers of its request.
    pub headers: HeaderMap,
    /// The query of its URL, without the question mark.
    pub query: String,
    /// The lobby that it wants to join; `None` for a new one.
    pub lobby: Option<String>,
    /// Which of the two protocols it speaks.
    pub generation: Generation,
}

/// Says whether somebody may join, or else why not.
pub(super) type Admission = Arc<dyn Fn(Arrival) -> BoxFuture<'static, Result<(), String>> + Send + Sync>;
