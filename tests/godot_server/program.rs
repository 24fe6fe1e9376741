//! `webrtc-mesh-signaling`, from its command line to its exit status.

use std::net::SocketAddr;
use std::process::Stdio;

use futures::StreamExt as _;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, ChildStderr, Command};
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::client::IntoClientRequest as _;
use tokio_tungstenite::tungstenite::http::HeaderMap;
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
    listening_with(arguments, &[]).await
}

async fn listening_with(
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> (Child, SocketAddr, Lines<BufReader<ChildStderr>>) {
    let mut program = program(arguments);
    program.envs(environment.iter().copied());
    let mut child = program.env_remove("NO_COLOR").spawn().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let line = within(lines.next_line()).await.unwrap().unwrap();
    assert!(!line.contains('\x1b'), "colours are for terminals: {line:?}");
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
async fn a_switch_can_be_set_by_the_environment_in_any_usual_way() {
    let code = async |value: &str| {
        // With what it cannot do, so that it ends.
        let mut program = program(&["--tls-cert", "/nowhere/c", "--tls-key", "/nowhere/k"]);
        let output = within(program.env("WEBRTC_MESH_TRUST_FORWARDED_FOR", value).output()).await.unwrap();
        output.status.code()
    };
    for value in ["1", "0", "true", "false", "yes", "no", "on", "off"] {
        assert_eq!(code(value).await, Some(1), "{value} is understood");
    }
    assert_eq!(code("perhaps").await, Some(2));
    // And what it says is done: of two clients of one proxy, each has its own address, or both have the proxy's.
    for (value, refused) in [("yes", false), ("0", true)] {
        let limit = ["--bind", "127.0.0.1:0", "--max-peers-per-address", "1"];
        let (_child, address, _log) =
            listening_with(&limit, &[("WEBRTC_MESH_TRUST_FORWARDED_FOR", value)]).await;
        let mut codes = Vec::new();
        let mut held = Vec::new();
        for from in ["192.0.2.1", "192.0.2.2"] {
            let mut request = format!("ws://{address}/").into_client_request().unwrap();
            request.headers_mut().insert("x-forwarded-for", from.parse().unwrap());
            let stream = TcpStream::connect(address).await.unwrap();
            let (socket, _) = within(tokio_tungstenite::client_async(request, stream)).await.unwrap();
            let mut client = Client { socket, headers: HeaderMap::new() };
            client.say("J: \n").await;
            codes.push(match within(client.socket.next()).await {
                Some(Ok(Message::Text(_))) => false,
                Some(Ok(Message::Close(_))) => true,
                other => panic!("{other:?}"),
            });
            held.push(client);
        }
        assert_eq!(codes, [false, refused], "{value}");
    }
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
