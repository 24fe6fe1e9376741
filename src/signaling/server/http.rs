//! What comes in over HTTP: the upgrade to a WebSocket, `/healthz` and `/metrics`.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use axum::Router;
use axum::extract::ws::{WebSocket, WebSocketUpgrade};
use axum::extract::{ConnectInfo, FromRequestParts as _, Query, Request, State};
use axum::http::request::Parts;
use axum::http::{HeaderName, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use futures::StreamExt as _;
use tokio::time::{Duration, timeout};
use tokio_util::sync::DropGuard;

use super::accept::Gate;
use super::admission::Arrival;
use super::rendezvous::SessionSecret;
use super::session::{self, Actor, Client};
use super::shared::Shared;
use crate::id::PeerId;
use crate::signaling::godot::{CloseReason, Generation};

/// What a router holds: all that sessions share, and that they end with the last of those who hold this.
#[derive(Clone)]
pub(super) struct Door {
    pub(super) shared: Arc<Shared>,
    pub(super) _guard: Arc<DropGuard>,
}

/// Says for how many seconds the place of a client with a session is kept.
const SESSION_HEADER: HeaderName = HeaderName::from_static("x-webrtc-mesh-session");

/// How long somebody for whom there is no room may take to hear so.
const REFUSAL_LIMIT: Duration = Duration::from_secs(1);

/// What a WebSocket reads at a time. Most messages are smaller, and there are thousands of them.
const READ_BUFFER_BYTES: usize = 4 * 1024;

pub(super) fn router(door: Door) -> Router {
    Router::new()
        .route("/", any(upgrade))
        .route("/healthz", get(healthz))
        .route("/metrics", get(metrics))
        .with_state(door)
}

/// The same, and any other path is taken for `/`, as Godot's servers do.
pub(super) fn router_of_all_paths(door: Door) -> Router {
    router(door.clone()).fallback_service(any(upgrade).with_state(door))
}

async fn healthz(State(door): State<Door>, request: Request) -> Response {
    if let Some(refusal) = too_often(&door.shared, request) {
        return refusal;
    }
    let lobbies = door.shared.rendezvous.counts().lobbies;
    let body = serde_json::json!({ "status": "ok", "peers": door.shared.connected(), "lobbies": lobbies });
    ([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

async fn metrics(State(door): State<Door>, request: Request) -> Response {
    if let Some(refusal) = too_often(&door.shared, request) {
        return refusal;
    }
    let text = door.shared.metrics.text(door.shared.connected(), door.shared.rendezvous.counts());
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], text).into_response()
}

/// What somebody hears who asks for numbers more often than one may join.
fn too_often(shared: &Shared, request: Request) -> Option<Response> {
    let address = address(&request.into_parts().0, shared.trust_forwarded_for)?;
    if shared.welcomes(address) {
        return None;
    }
    shared.metrics.refused("too_many_requests");
    Some((StatusCode::TOO_MANY_REQUESTS, "Too many requests at once.\n").into_response())
}

async fn upgrade(State(door): State<Door>, request: Request) -> Response {
    let (mut parts, _) = request.into_parts();
    let shared = door.shared;
    let refuse = |label, status: StatusCode, text: &'static str| {
        shared.metrics.refused(label);
        (status, text).into_response()
    };
    if !parts.headers.contains_key(header::UPGRADE) {
        let text = "This is a signalling server for WebRTC meshes: connect with a WebSocket.\n";
        let upgrade = [(header::UPGRADE, "websocket"), (header::CONNECTION, "upgrade")];
        shared.metrics.refused("no_websocket");
        return (StatusCode::UPGRADE_REQUIRED, upgrade, text).into_response();
    }
    // Before the look at `stop`: whoever shuts down waits for all tokens.
    let token = shared.tracker.token();
    if shared.stop.is_cancelled() {
        return refuse("shutting_down", StatusCode::SERVICE_UNAVAILABLE, "The server shuts down.\n");
    }
    let address = address(&parts, shared.trust_forwarded_for);
    if address.is_some_and(|address| !shared.welcomes(address)) {
        return refuse("too_many_joins", StatusCode::TOO_MANY_REQUESTS, "Too many connections at once.\n");
    }
    let wishes = match Wishes::of(&parts.uri) {
        Ok(wishes) => wishes,
        Err(text) => return refuse("query", StatusCode::BAD_REQUEST, text),
    };
    let arrival = shared.admission.is_some().then(|| Arrival {
        address,
        headers: parts.headers.clone(),
        query: parts.uri.query().unwrap_or_default().to_owned(),
        lobby: None,
        generation: Generation::Godot4,
    });
    let websocket = match WebSocketUpgrade::from_request_parts(&mut parts, &()).await {
        Ok(websocket) => websocket,
        Err(rejection) => {
            shared.metrics.refused("no_websocket");
            return rejection.into_response();
        }
    };
    let websocket = websocket
        .read_buffer_size(READ_BUFFER_BYTES)
        .write_buffer_size(READ_BUFFER_BYTES)
        .max_frame_size(shared.max_message_bytes)
        .max_message_size(shared.max_message_bytes);
    // Within somebody else's program there is none.
    let gate = parts.extensions.get::<Gate>().cloned().unwrap_or_default();
    let place = address.map(|address| shared.households.take(address, wishes.session).ok_or(()));
    let places = match (place.transpose(), Arc::clone(&shared.peers).try_acquire_owned()) {
        (Ok(place), Ok(permit)) => Ok((place, permit)),
        (Err(()), _) => Err("too_many_peers_of_address"),
        (_, Err(_)) => Err("too_many_peers"),
    };
    let (place, permit) = match places {
        Ok(places) => places,
        Err(label) => {
            shared.metrics.refused(label);
            let Ok(permit) = Arc::clone(&shared.refusals).try_acquire_owned() else {
                return (StatusCode::SERVICE_UNAVAILABLE, "Too many clients.\n").into_response();
            };
            let kill = shared.kill.clone();
            return websocket.on_upgrade(move |socket| async move {
                gate.pass();
                let _held = (token, permit);
                let told = timeout(REFUSAL_LIMIT, turn_away(socket, CloseReason::TooManyPeers));
                let _ = kill.run_until_cancelled(told).await;
            });
        }
    };
    let client = Client {
        session: wishes.session,
        id: wishes.id,
        create: wishes.create,
        arrival,
        permit: Some(permit),
        _place: place,
    };
    // Less than a second is one: whoever is told of none does not try.
    let hold = shared.session.resume;
    let hold = hold.as_secs() + u64::from(hold.subsec_nanos() > 0);
    let mut response = websocket.on_upgrade(move |socket| async move {
        gate.pass();
        let _held = token;
        session::run(Actor::new(shared, socket, client)).await;
    });
    if wishes.session.is_some() && hold > 0 {
        response.headers_mut().insert(SESSION_HEADER, HeaderValue::from(hold));
    }
    response
}

/// Says why, and waits for the answer.
async fn turn_away(mut socket: WebSocket, reason: CloseReason) {
    if socket.send(session::close_frame(&reason)).await.is_ok() {
        while let Some(Ok(_)) = socket.next().await {}
    }
}

/// What a client of ours asks for in its URL.
struct Wishes {
    session: Option<SessionSecret>,
    id: Option<u32>,
    create: bool,
}

impl Wishes {
    fn of(uri: &Uri) -> Result<Wishes, &'static str> {
        let Ok(Query(pairs)) = Query::<Vec<(String, String)>>::try_from_uri(uri) else {
            return Err("The query of the URL cannot be read.\n");
        };
        let mut wishes = Wishes { session: None, id: None, create: false };
        for (name, value) in pairs {
            match name.as_str() {
                "session" => {
                    let session = value.parse().map_err(|_| "`session` is 32 hex digits.\n")?;
                    wishes.session = Some(session);
                }
                "id" => {
                    let id: PeerId = value.parse().map_err(|_| "`id` is 1 to 2147483647.\n")?;
                    wishes.id = Some(id.get());
                }
                "create" => wishes.create = value == "true",
                _ => {}
            }
        }
        if wishes.id.is_some() && wishes.session.is_none() {
            return Err("`id` needs a `session`.\n");
        }
        Ok(wishes)
    }
}

/// Where a request comes from: of a proxy's list, the last one, which the proxy itself has seen.
fn address(parts: &Parts, trust_forwarded_for: bool) -> Option<IpAddr> {
    let connected = || {
        let info = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        info.map(|ConnectInfo(address)| address.ip())
    };
    let forwarded = || {
        let list = parts.headers.get_all("x-forwarded-for").iter().next_back()?.to_str().ok()?;
        let last = list.rsplit(',').next()?.trim();
        last.parse().ok().or_else(|| last.parse::<SocketAddr>().ok().map(|address| address.ip()))
    };
    if trust_forwarded_for { forwarded().or_else(connected) } else { connected() }
}
