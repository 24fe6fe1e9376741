//! The other stacks' members, which tell of themselves in lines of JSON: child processes, or whatever else can.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use std::fmt;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};
use tokio::time::{Instant, timeout_at};
use webrtc_mesh::PeerId;
use webrtc_mesh::signaling::godot::Generation;

use crate::exchange::{Digest, Guest};
use crate::support::{LIMIT, in_time};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stack {
    Aiortc,
    Werift,
}

/// A running member of another stack; gone when dropped.
pub(crate) struct Member {
    pub(crate) name: String,
    voice: Box<dyn Voice>,
    told: Vec<Value>,
}

/// How a member tells of itself, and is told to leave. An error says what it complains of.
#[async_trait]
pub(crate) trait Voice: Send {
    async fn next_line(&mut self) -> Result<Value, String>;

    /// Leaves, if it has not; its end must be a clean one.
    async fn leave(&mut self) -> Result<(), String>;

    /// How it stands, for a failed test.
    async fn state(&mut self) -> String {
        String::new()
    }
}

/// A child process; killed when dropped.
struct Process {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

/// Who a member is.
pub(crate) struct Joined {
    pub(crate) id: PeerId,
    pub(crate) lobby: String,
}

impl Stack {
    /// Whether it can run; if not, says that it is skipped, or fails where it is required.
    pub(crate) fn is_installed(self) -> bool {
        let mut probe = std::process::Command::new(self.interpreter());
        match self {
            Stack::Aiortc => probe.args(["-c", "import aiortc, websockets"]),
            Stack::Werift => probe
                .args(["-e", "require('werift'); require('ws')"])
                .env("NODE_PATH", node_modules())
                .current_dir(sources()),
        };
        let runs = probe.stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok_and(|it| it.success());
        let by_hand = match self {
            Stack::Aiortc => "pip install -r tests/interop/requirements.txt",
            Stack::Werift => "npm ci --prefix tests/interop",
        };
        let notice = format!("{self} is not installed; run tests/interop/install, or {by_hand}");
        let required = std::env::var("WEBRTC_MESH_INTEROP").is_ok_and(|value| value == "require");
        assert!(runs || !required, "{notice}");
        if !runs {
            // `println!` would be kept from sight, as the test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {notice}");
        }
        runs
    }

    /// What `tests/interop/install` has made, or else what is on the path.
    fn interpreter(self) -> PathBuf {
        let python = installed().join("venv/bin/python");
        match self {
            Stack::Aiortc if python.exists() => python,
            Stack::Aiortc => "python3".into(),
            Stack::Werift => "node".into(),
        }
    }

    fn program(self) -> PathBuf {
        sources().join(match self {
            Stack::Aiortc => "aiortc_member.py",
            Stack::Werift => "werift_member.mjs",
        })
    }

    /// The largest message that it sends in one piece, and takes.
    pub(crate) fn max_message_bytes(self) -> usize {
        match self {
            Stack::Aiortc => 262_144,
            Stack::Werift => 65_536,
        }
    }

    /// Whether it can send a message of no bytes.
    pub(crate) fn sends_empty_messages(self) -> bool {
        self == Stack::Aiortc
    }
}

impl fmt::Display for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stack::Aiortc => "aiortc",
            Stack::Werift => "werift",
        })
    }
}

fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/interop")
}

/// `interop` in the target folder, beside the folder that tests may write into.
fn installed() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("interop")
}

fn node_modules() -> PathBuf {
    installed().join("node_modules")
}

impl Member {
    /// Starts one that joins a lobby, or makes one if `lobby` is empty, and is to meet `expect` peers.
    pub(crate) fn start(
        stack: Stack,
        url: &str,
        lobby: &str,
        generation: Generation,
        expect: usize,
    ) -> Member {
        let generation = match generation {
            Generation::Godot3 => "3",
            Generation::Godot4 => "4",
        };
        let mut child = Command::new(stack.interpreter())
            .arg(stack.program())
            .args(["--url", url, "--lobby", lobby, "--generation", generation])
            .args(["--expect", &expect.to_string()])
            .env("NODE_PATH", node_modules())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Member::new(stack, Process { child, lines })
    }

    pub(crate) fn new(name: impl fmt::Display, voice: impl Voice + 'static) -> Member {
        Member { name: name.to_string(), voice: Box::new(voice), told: Vec::new() }
    }

    /// Once it has joined. All but a page send reliably in every mode.
    pub(crate) async fn guest(&mut self, sends_reliably: bool) -> Guest {
        Guest { id: self.joined().await.id, sends_reliably }
    }

    pub(crate) async fn joined(&mut self) -> Joined {
        let line = self.tells(|line| line["event"] == "joined").await;
        let id = u32::try_from(line["id"].as_u64().unwrap()).unwrap();
        Joined { id: PeerId::new(id).unwrap(), lobby: line["lobby"].as_str().unwrap().to_owned() }
    }

    pub(crate) async fn connected_to(&mut self, peer: PeerId) {
        self.tells(|line| line["event"] == "connected" && line["peer"] == peer.get()).await;
    }

    pub(crate) async fn disconnected_from(&mut self, peer: PeerId) {
        self.tells(|line| line["event"] == "disconnected" && line["peer"] == peer.get()).await;
    }

    /// All that it sent in the reliable mode has come back from these.
    pub(crate) async fn met(&mut self, peers: &[PeerId]) {
        let mut peers: Vec<u32> = peers.iter().map(|peer| peer.get()).collect();
        peers.sort_unstable();
        self.tells(|line| *line == json!({ "event": "met", "peers": peers })).await;
    }

    /// What it received from a peer, after that one asked.
    pub(crate) async fn digest_for(&mut self, peer: PeerId) -> Digest {
        let line = self.tells(|line| line["event"] == "digest" && line["peer"] == peer.get()).await;
        Digest::told(&line["reliable"])
    }

    /// Tells it to leave, if it has not, and waits for its end, which must be a clean one.
    pub(crate) async fn leave(&mut self) {
        if let Err(complaint) = in_time(self.voice.leave()).await {
            panic!("{} complains: {complaint}", self.name);
        }
    }

    /// The first line that it tells of this kind, now or earlier.
    async fn tells(&mut self, is_it: impl Fn(&Value) -> bool) -> Value {
        if let Some(line) = self.told.iter().find(|line| is_it(line)) {
            return line.clone();
        }
        let until = Instant::now() + LIMIT;
        loop {
            let line = match timeout_at(until, self.voice.next_line()).await {
                Ok(Ok(line)) => line,
                Ok(Err(complaint)) => panic!("{} complains: {complaint}", self.name),
                Err(_) => {
                    let state = self.voice.state().await;
                    panic!("{} says no more than {:#?}; {state}", self.name, self.told);
                }
            };
            self.told.push(line.clone());
            if is_it(&line) {
                return line;
            }
        }
    }
}

#[async_trait]
impl Voice for Process {
    async fn next_line(&mut self) -> Result<Value, String> {
        match self.lines.next_line().await.unwrap() {
            Some(line) => Ok(serde_json::from_str(&line).expect("nothing but JSON")),
            None => Err(self.complaint().await),
        }
    }

    async fn leave(&mut self) -> Result<(), String> {
        drop(self.child.stdin.take());
        let status = self.child.wait().await.unwrap();
        if status.success() { Ok(()) } else { Err(format!("{status}: {}", self.complaint().await)) }
    }
}

impl Process {
    /// What it said on its standard error, for a failed test.
    async fn complaint(&mut self) -> String {
        let mut text = "it has ended: ".to_owned();
        if let Some(mut stderr) = self.child.stderr.take() {
            let _ = in_time(stderr.read_to_string(&mut text)).await;
        }
        text
    }
}
