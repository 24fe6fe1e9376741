//! What the README tells to try: the server and two chats, as programs of their own, with what is typed and printed.
#![cfg(all(feature = "server", feature = "ws"))]
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use std::path::PathBuf;

use support::program::{Program, example};

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
    anna.hears_no_more();
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
