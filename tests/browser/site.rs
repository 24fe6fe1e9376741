//! A page with the module that the browser example has, and the signalling beside it; and a page as a member.

use std::collections::VecDeque;
use std::net::SocketAddr;

use async_trait::async_trait;
use axum::Router;
use axum::http::header::CONTENT_TYPE;
use axum::response::Html;
use axum::routing::{MethodRouter, get};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use webrtc_mesh::signaling::godot::GodotSignaling;
use webrtc_mesh::signaling::server::SignalingServer;
use webrtc_mesh::{Mesh, MeshBuilder};

use crate::browsers::{Browser, Page};
use crate::member::{Member, Voice};
use crate::support::{in_time, loopback};

pub(crate) struct Site {
    address: SocketAddr,
    signaling: SignalingServer,
    serving: JoinHandle<std::io::Result<()>>,
}

impl Site {
    pub(crate) async fn start() -> Site {
        let listener = TcpListener::bind(loopback()).await.unwrap();
        let address = listener.local_addr().unwrap();
        let signaling = SignalingServer::builder().build();
        let site = Router::new()
            .route("/", get(Html("<!doctype html><script type=module src=member.js></script>")))
            .route("/hostile", get(Html("<!doctype html><script type=module src=hostile.js></script>")))
            .route("/member.js", script(include_str!("member.js")))
            .route("/hostile.js", script(include_str!("hostile.js")))
            .route("/webrtc-mesh.js", script(include_str!("../../examples/browser/webrtc-mesh.js")))
            .nest("/signaling", signaling.router());
        let site = site.into_make_service_with_connect_info::<SocketAddr>();
        let serving = tokio::spawn(async move { axum::serve(listener, site).await });
        Site { address, signaling, serving }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    pub(crate) fn signaling_url(&self) -> String {
        format!("ws://{}/signaling", self.address)
    }

    /// A mesh of ours in a lobby, a new one if `lobby` is empty, and the lobby's name.
    pub(crate) async fn join(&self, lobby: &str, build: MeshBuilder) -> (Mesh, String) {
        let signaling = GodotSignaling::connect(self.signaling_url()).lobby(lobby).await.unwrap();
        let lobby = signaling.lobby_name().to_owned();
        (build.join(signaling).await.unwrap(), lobby)
    }

    /// A page that joins the lobby and is to meet so many peers, and the member that it is.
    pub(crate) async fn page(&self, browser: &Browser, lobby: &str, expect: usize) -> (Page, Member) {
        let page = browser.open(&self.url("")).await;
        let member = join_in(&page, lobby, expect).await;
        (page, member)
    }

    pub(crate) async fn stop(self) {
        in_time(self.signaling.shutdown()).await;
        self.serving.abort();
        let _ = in_time(self.serving).await;
    }
}

fn script(content: &'static str) -> MethodRouter {
    get(move || async move { ([(CONTENT_TYPE, "text/javascript; charset=utf-8")], content) })
}

/// A page that is loaded becomes a member.
pub(crate) async fn join_in(page: &Page, lobby: &str, expect: usize) -> Member {
    page.call("(options) => join(options)", json!({ "lobby": lobby, "expect": expect })).await.unwrap();
    Member::new("the page", PageVoice { page: page.clone(), lines: VecDeque::new() })
}

struct PageVoice {
    page: Page,
    lines: VecDeque<Value>,
}

#[async_trait]
impl Voice for PageVoice {
    async fn next_line(&mut self) -> Result<Value, String> {
        while self.lines.is_empty() {
            let lines = self.page.call("() => lines()", Value::Null).await?;
            self.lines.extend(lines.as_array().into_iter().flatten().cloned());
        }
        let line = self.lines.pop_front().unwrap_or_default();
        if line["event"] == "surprise" { Err(line["why"].to_string()) } else { Ok(line) }
    }

    async fn leave(&mut self) -> Result<(), String> {
        self.page.call("() => leave()", Value::Null).await.map(drop)
    }

    async fn state(&mut self) -> String {
        format!("{:?}", self.page.call("() => state()", Value::Null).await)
    }
}
