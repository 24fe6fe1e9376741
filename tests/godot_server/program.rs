//! `webrtc-mesh-signaling`, from its command line to its exit status.

use std::net::SocketAddr;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::TcpListener;
use tokio::process::{Child, ChildStderr, Command};
use webrtc_mesh::signaling::godot::{CloseReason, Generation};

use super::support::{Client, within};

fn program(arguments: &[&str]) -> Command {
    let mut program = Command::new(env!("CARGO_BIN_EXE_webrtc-mesh-signaling"));
    program.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    program.kill_on_drop(true);
    program
}

/// One that listens, and the rest of its log.
async fn listening(arguments: &[&str]) -> (Child, SocketAddr, Lines<BufReader<ChildStderr>>) {
    let mut child = program(arguments).env("NO_COLOR", "1").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = within(lines.next_line()).await.unwrap().unwrap();
    let after = line.split("127.0.0.1:").nth(1).unwrap_or_else(|| panic!("no address in {line}"));
    let port: String = after.chars().take_while(char::is_ascii_digit).collect();
    (child, SocketAddr::from(([127, 0, 0, 1], port.parse().unwrap())), lines)
}

#[cfg(unix)]
#[tokio::test]
async fn it_listens_serves_and_ends_in_order_when_told() {
    for (signal, format) in [("-TERM", "json"), ("-INT", "text")] {
        let (mut child, address, mut log) =
            listening(&["--bind", "127.0.0.1:0", "--log-format", format]).await;
        let mut host = Client::connect(address, "/").await.unwrap().join(Generation::Godot3, "").await;
        let pid = child.id().unwrap().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().await.unwrap().success());
        assert_eq!(host.client.closed().await, CloseReason::ShuttingDown);
        drop(host);
        assert_eq!(within(child.wait()).await.unwrap().code(), Some(0));
        let mut rest = String::new();
        while let Some(line) = within(log.next_line()).await.unwrap() {
            rest += &(line + "\n");
        }
        assert!(rest.contains("joined a lobby") && rest.contains("done"), "{rest}");
        assert!(!rest.contains("127.0.0.1"), "{rest}");
    }
}

#[tokio::test]
async fn what_keeps_it_from_running_is_said_in_a_line() {
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let fails = async |arguments: &[&str], code: i32, words: &[&str]| {
        let output = within(program(arguments).output()).await.unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{said}");
        words.iter().for_each(|word| assert!(said.contains(word), "{said}"));
    };
    fails(&["--bind", &address], 1, &[&address, "--bind takes another one"]).await;
    fails(&["--tls-cert", "/nowhere/c", "--tls-key", "/nowhere/k"], 1, &["cannot read /nowhere/c"]).await;
    fails(&["--tls-cert", "/nowhere/c"], 2, &["--tls-key"]).await;
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    fails(&["--tls-cert", manifest, "--tls-key", manifest], 1, &["the certificate is no PEM"]).await;
    fails(&["--resume=-1"], 2, &["--resume"]).await;
    fails(&["--log", "a=b=c"], 1, &["log filter"]).await;
}

#[tokio::test]
async fn its_help_is_worth_reading() {
    let output = within(program(&["--help"]).output()).await.unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    for words in [
        "ws://127.0.0.1:9080",
        "wss://",
        "--trust-forwarded-for",
        "WEBRTC_MESH_BIND",
        "Exit status",
        "/metrics",
    ] {
        assert!(help.contains(words), "{words} in\n{help}");
    }
}
