//! What the README tells to try: the server and two chats, as programs of their own, with what is typed and printed.
#![cfg(all(feature = "server", feature = "ws"))]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// For anything that is waited for.
const LIMIT: Duration = Duration::from_secs(30);

#[test]
fn two_terminals_chat_through_the_server_and_after_it() {
    let server = Program::start(server(), &["--bind", "127.0.0.1:0"]);
    let listening = server.prints("listening");
    let address = listening.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    let url = format!("ws://{address}");

    let mut anna = chat(&url, "anna");
    anna.prints("* you are anna (1), in the lobby LOBBY");
    anna.types("is anybody there?");
    anna.prints("nobody");
    let mut bert = chat(&url, "bert");
    bert.prints("* 1 is anna");
    anna.prints("is bert");
    anna.types("hello bert");
    bert.prints("anna (1): hello bert");
    bert.types("hello anna");
    anna.prints("): hello anna");
    // It is measured every 2 s.
    bert.types_until("/peers", "* anna (1): round trip ");
    bert.types("/name berta");
    anna.prints("is berta");

    // The server is told to end; they stay.
    assert!(server.told_to_end().success());
    anna.prints("* no server now");
    bert.prints("* no server now");
    anna.types("still there?");
    bert.prints("anna (1): still there?");

    bert.types("/quit");
    anna.prints("left: the remote left");
    assert!(bert.ends().success());
    anna.stdin = None;
    assert!(anna.ends().success());
}

#[test]
fn a_seal_is_for_the_host_and_a_late_comer_is_told_why_it_stays_out() {
    let server = Program::start(server(), &["--bind", "127.0.0.1:0"]);
    let listening = server.prints("listening");
    let address = listening.split("address=").nth(1).unwrap().split_whitespace().next().unwrap();
    let url = format!("ws://{address}");
    let (anna, bert) = (chat(&url, "anna"), chat(&url, "bert"));
    anna.prints("is bert");
    bert.prints("is anna");
    // Either may have been first.
    let [mut host, mut guest] = if anna.printed("you are anna (1)") { [anna, bert] } else { [bert, anna] };
    guest.types("/seal");
    guest.prints("* not sealed: only the host may do this");
    host.types("/seal");
    host.prints("* the lobby is sealed");
    guest.prints("* the lobby is sealed");
    let late = chat(&url, "carl");
    late.prints("error: the signalling server has closed the connection: Lobby is sealed");
    assert_eq!(late.ends().code(), Some(1));
    host.types("/quit");
    guest.types("/quit");
    assert!(host.ends().success() && guest.ends().success());
    assert!(server.told_to_end().success());
}

#[test]
fn a_command_line_that_cannot_be_understood_says_so() {
    for arguments in
        [&[][..], &["ws://127.0.0.1:1", "a", "b"], &["--name"], &["--what"], &["x", "--bind", "here"]]
    {
        let chat = Program::start(example("chat"), arguments);
        chat.prints("usage: chat URL");
        assert_eq!(chat.ends().code(), Some(2));
    }
    let nobody = Program::start(example("chat"), &["ws://127.0.0.1:1", "LOBBY"]);
    nobody.prints("error: signalling failed: ");
    assert_eq!(nobody.ends().code(), Some(1));
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let second = Program::start(server(), &["--bind", &address]);
    second.prints("another program has this port");
    assert_eq!(second.ends().code(), Some(1));
}

fn chat(url: &str, name: &str) -> Program {
    Program::start(example("chat"), &[url, "LOBBY", "--name", name, "--bind", "127.0.0.1"])
}

fn server() -> PathBuf {
    env!("CARGO_BIN_EXE_webrtc-mesh-signaling").into()
}

/// As `cargo test` builds it, beside the server.
fn example(name: &str) -> PathBuf {
    let folder = server().parent().unwrap().join("examples");
    let path = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "first: cargo build --all-features --example {name}");
    path
}

/// A program that runs; killed when it is dropped.
struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    printed: std::cell::RefCell<Vec<String>>,
}

impl Program {
    fn start(path: impl AsRef<Path>, arguments: &[&str]) -> Program {
        let mut child = Command::new(path.as_ref())
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (line, lines) = channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let line = line.clone();
            std::thread::spawn(move || {
                for text in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = line.send(text);
                }
            });
        }
        Program { stdin: child.stdin.take(), child, lines, printed: Vec::new().into() }
    }

    fn types(&mut self, line: &str) {
        writeln!(self.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    /// Waits for a line that contains this.
    fn prints(&self, what: &str) -> String {
        self.prints_within(what, LIMIT)
            .unwrap_or_else(|| panic!("no {what:?} in {:#?}", self.printed.borrow()))
    }

    fn prints_within(&self, what: &str, limit: Duration) -> Option<String> {
        let until = Instant::now() + limit;
        loop {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
            self.printed.borrow_mut().push(line.clone());
            if line.contains(what) {
                return Some(line);
            }
        }
    }

    fn printed(&self, what: &str) -> bool {
        self.printed.borrow().iter().any(|line| line.contains(what))
    }

    /// Types it again and again until this is printed.
    fn types_until(&mut self, line: &str, what: &str) {
        let until = Instant::now() + LIMIT;
        loop {
            self.types(line);
            if self.prints_within(what, Duration::from_millis(200)).is_some() {
                return;
            }
            assert!(Instant::now() < until, "no {what:?} in {:#?}", self.printed.borrow());
        }
    }

    fn ends(mut self) -> ExitStatus {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it goes on, after {:#?}", self.printed.borrow());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn told_to_end(self) -> ExitStatus {
        let told = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        self.ends()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
