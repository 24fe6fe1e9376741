//! A TURN server of one's own on loopback: coturn, if it is installed, and one that answers as it is told.

#![allow(clippy::print_stdout, reason = "a test that is skipped says so")]

use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::UdpSocket;
use webrtc_mesh::IceServer;

use super::{LIMIT, loopback};

pub(crate) const USER: &str = "alice";
pub(crate) const PASSWORD: &str = "wonderland";

/// A coturn, which ends with this.
pub(crate) struct Coturn {
    child: Child,
    directory: std::path::PathBuf,
    pub(crate) address: SocketAddr,
}

impl Coturn {
    /// Starts one with these options as well; `None`, with a word on the terminal, where it is not installed.
    ///
    /// # Panics
    ///
    /// If it is not installed, and `WEBRTC_MESH_TURN` is `require`.
    pub(crate) async fn start(options: &[&str]) -> Option<Coturn> {
        Coturn::start_on(Ipv4Addr::LOCALHOST.into(), options).await
    }

    pub(crate) async fn start_on(ip: std::net::IpAddr, options: &[&str]) -> Option<Coturn> {
        static STARTED: AtomicU32 = AtomicU32::new(0);
        // The port may be taken between the asking and the starting.
        for _ in 0..3 {
            let address = free_port(ip);
            let number = STARTED.fetch_add(1, Ordering::Relaxed);
            let directory =
                std::env::temp_dir().join(format!("webrtc-mesh-coturn-{}-{number}", std::process::id()));
            std::fs::create_dir_all(&directory).unwrap();
            let child = Command::new("turnserver")
                .args(["-n", "--no-tls", "--no-dtls", "--no-cli", "--no-tcp", "--no-tcp-relay"])
                .args(["--allow-loopback-peers", "--lt-cred-mech", "--realm=test", "--log-file=stdout"])
                .args(["--relay-threads=1", "--max-bps=0", "--no-rfc5780"])
                .arg(format!("--listening-ip={ip}"))
                .arg(format!("--relay-ip={ip}"))
                .arg(format!("--listening-port={}", address.port()))
                .arg(format!("--user={USER}:{PASSWORD}"))
                .arg(format!("--pidfile={}", directory.join("pid").display()))
                .arg(format!("--userdb={}", directory.join("users").display()))
                .args(options)
                .current_dir(&directory)
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn();
            let Ok(child) = child else {
                let _ = std::fs::remove_dir_all(&directory);
                let required = std::env::var("WEBRTC_MESH_TURN").is_ok_and(|value| value == "require");
                assert!(!required, "WEBRTC_MESH_TURN=require, and there is no turnserver to be run");
                println!("SKIPPED: there is no turnserver; apt-get install coturn, and run again");
                return None;
            };
            let coturn = Coturn { child, directory, address };
            if coturn.answers().await {
                return Some(coturn);
            }
        }
        panic!("coturn does not answer");
    }

    pub(crate) fn turn(&self) -> IceServer {
        IceServer::turn(format!("turn:{}", self.address), USER, PASSWORD)
    }

    pub(crate) fn stun(&self) -> IceServer {
        IceServer::stun(format!("stun:{}", self.address))
    }

    async fn answers(&self) -> bool {
        let socket = UdpSocket::bind(SocketAddr::new(self.address.ip(), 0)).await.unwrap();
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.extend([7; 12]);
        let asking = async {
            loop {
                let _ = socket.send_to(&request, self.address).await;
                let mut answer = [0; 1500];
                let answered =
                    tokio::time::timeout(Duration::from_millis(50), socket.recv_from(&mut answer)).await;
                if matches!(answered, Ok(Ok(_))) {
                    return;
                }
            }
        };
        tokio::time::timeout(LIMIT / 3, asking).await.is_ok()
    }
}

impl Drop for Coturn {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.directory);
    }
}

fn free_port(ip: std::net::IpAddr) -> SocketAddr {
    std::net::UdpSocket::bind(SocketAddr::new(ip, 0)).unwrap().local_addr().unwrap()
}

/// A server that hears requests and answers them with an error of this code, or with nothing.
pub(crate) struct Stubborn {
    pub(crate) address: SocketAddr,
    requests: Arc<AtomicU32>,
    task: tokio::task::JoinHandle<()>,
}

impl Stubborn {
    pub(crate) async fn start(code: Option<u16>) -> Stubborn {
        let socket = UdpSocket::bind(loopback()).await.unwrap();
        let address = socket.local_addr().unwrap();
        let requests = Arc::new(AtomicU32::new(0));
        let counted = requests.clone();
        let task = tokio::spawn(async move {
            let mut request = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut request).await {
                counted.fetch_add(1, Ordering::Relaxed);
                if let (Some(code), true) = (code, length >= 20) {
                    let _ = socket.send_to(&refusal(&request[..length], code), from).await;
                }
            }
        });
        Stubborn { address, requests, task }
    }

    pub(crate) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(crate) fn turn(&self) -> IceServer {
        IceServer::turn(format!("turn:{}", self.address), USER, PASSWORD)
    }
}

impl Drop for Stubborn {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// An error response to this request (RFC 8489 section 14.8).
fn refusal(request: &[u8], code: u16) -> Vec<u8> {
    let attribute = [0, 9, 0, 4, 0, 0, (code / 100) as u8, (code % 100) as u8];
    let mut answer = vec![request[0] | 1, request[1] | 0x10, 0, attribute.len() as u8];
    answer.extend(&request[4..20]);
    answer.extend(attribute);
    answer
}
