//! The example `doctor`, as a program of its own: what it finds out, and its exit code.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "a test fails by panicking, and prints what a person would read"
)]

mod support;

use std::net::{SocketAddr, SocketAddrV4, UdpSocket};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, LazyLock};
use std::thread::JoinHandle;
use std::time::Duration;

use support::loopback;
use support::turn::{Coturn, PASSWORD, USER};

#[test]
fn a_machine_that_is_well_connects_two_peers_within_itself_and_says_how_long_it_took() {
    let (code, said) = doctor(&["--bind", "127.0.0.1"]);
    assert_eq!(code, 0, "{said}");
    for line in
        ["Addresses of this machine", "ok    on 127.0.0.1: connected after", "Nothing wrong was found."]
    {
        assert!(said.contains(line), "{line}: {said}");
    }
    assert!(said.contains("(signalling ") && said.contains("host to "), "{said}");
    assert!(said.contains("none was named"), "{said}");
}

#[test]
fn the_answers_of_two_servers_tell_the_kind_of_nat() {
    let (here, other) = ("192.0.2.7:1000", "192.0.2.7:1001");
    let told = |one: Option<&str>, two: Option<&str>| {
        let (one, two) = (Stun::start(one), Stun::start(two));
        let (code, said) =
            doctor(&["--bind", "127.0.0.1", "--ice-server", &one.url, "--ice-server", &two.url]);
        assert_eq!(code, 0, "{said}");
        said
    };
    assert!(told(None, None).contains("IPv4: no NAT"));
    let said = told(Some(here), Some(here));
    assert!(said.contains("sees us as 192.0.2.7:1000"), "{said}");
    assert!(said.contains("one address towards all (endpoint-independent mapping)"), "{said}");
    let said = told(Some(here), Some(other));
    assert!(said.contains("another address towards each (a symmetric one)"), "{said}");

    let alone = Stun::start(Some(here));
    let (_, said) = doctor(&["--bind", "127.0.0.1", "--ice-server", &alone.url]);
    assert!(said.contains("name a second server"), "{said}");
}

#[test]
fn servers_that_do_not_answer_and_arguments_that_are_not_understood_have_exit_codes() {
    // Bound, and nobody reads it.
    let silent = UdpSocket::bind(loopback()).unwrap();
    let url = format!("stun:{}", silent.local_addr().unwrap());
    let (code, said) = doctor(&["--bind", "127.0.0.1", "--ice-server", &url]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&format!("BAD   {url} does not answer")), "{said}");
    assert!(said.contains("no server answers over UDP: it is blocked, or they are all down"), "{said}");

    for wrong in [&["--what"][..], &["--bind"], &["--bind", "here"], &["--ice-server", "http://127.0.0.1"]] {
        assert_eq!(doctor(wrong).0, 2, "{wrong:?}");
    }
    let (code, said) = doctor(&["--ice-server", "turn:127.0.0.1"]);
    assert!(code == 2 && said.contains("needs --username and --credential"), "{said}");
    let (code, said) = doctor(&["--help"]);
    assert!(code == 0 && said.contains("usage: "), "{said}");
}

#[test]
fn a_turn_server_relays_between_two_peers_or_the_reason_is_told() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let Some(coturn) = runtime.block_on(Coturn::start(&[])) else { return };
    let url = format!("turn:{}", coturn.address);
    let ask = |credential| {
        let server = ["--ice-server", &url, "--username", USER, "--credential", credential];
        doctor(&[&["--bind", "127.0.0.1"][..], &server].concat())
    };
    let (code, said) = ask(PASSWORD);
    assert!(code == 0 && said.contains("relays between two peers: connected"), "{said}");
    assert!(said.contains("relay to relay"), "{said}");
    let (code, said) = ask("wrong");
    assert!(code == 1 && said.contains("gives no relay: ") && said.contains("credentials"), "{said}");
}

/// Its exit code, and what it printed.
fn doctor(args: &[&str]) -> (i32, String) {
    static PROGRAM: LazyLock<std::path::PathBuf> = LazyLock::new(|| {
        let test = std::env::current_exe().unwrap();
        let folder = test.parent().unwrap().parent().unwrap().join("examples");
        let path = folder.join("doctor").with_extension(std::env::consts::EXE_EXTENSION);
        assert!(path.exists(), "first: cargo build --all-features --example doctor");
        path
    });
    let output = Command::new(&*PROGRAM).args(args).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8(said).unwrap();
    println!("doctor {args:?}:\n{said}");
    (output.status.code().unwrap(), said)
}

/// A STUN server that tells everybody this address, or their own. It ends with this.
struct Stun {
    url: String,
    over: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Stun {
    fn start(tells: Option<&str>) -> Stun {
        let tells: Option<SocketAddrV4> = tells.map(|text| text.parse().unwrap());
        let socket = UdpSocket::bind(loopback()).unwrap();
        socket.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        let url = format!("stun:{}", socket.local_addr().unwrap());
        let over = Arc::new(AtomicBool::new(false));
        let ended = over.clone();
        let thread = std::thread::spawn(move || {
            let mut request = [0; 1500];
            while !ended.load(Ordering::Relaxed) {
                let Ok((20.., from)) = socket.recv_from(&mut request) else { continue };
                let SocketAddr::V4(from_v4) = from else { continue };
                let told = tells.unwrap_or(from_v4);
                // An XOR-MAPPED-ADDRESS (RFC 8489 section 14.2).
                let mut answer = vec![1, 1, 0, 12];
                answer.extend(&request[4..20]);
                answer.extend([0, 0x20, 0, 8, 0, 1]);
                answer.extend((told.port() ^ 0x2112).to_be_bytes());
                answer.extend((told.ip().to_bits() ^ 0x2112_a442).to_be_bytes());
                socket.send_to(&answer, from).unwrap();
            }
        });
        Stun { url, over, thread: Some(thread) }
    }
}

impl Drop for Stun {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
