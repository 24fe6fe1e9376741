//! Every bound, met.

use std::time::{Duration, Instant};

use futures::{SinkExt as _, StreamExt as _};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite;
use tokio_tungstenite::tungstenite::protocol::frame::Frame;
use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
use webrtc_mesh::signaling::godot::{CloseReason, Generation, Message};
use webrtc_mesh::signaling::server::SignalingServer;

use super::support::{Client, join, offer, serve, usual, within};

const GENERATION: Generation = Generation::Godot3;

#[tokio::test]
async fn one_client_too_many_is_told_so_and_makes_no_difference_to_the_others() {
    let server = serve(SignalingServer::builder().max_peers(2)).await;
    let mut host = server.member(GENERATION, "").await;
    let member = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    assert_eq!(server.client().await.closed().await, CloseReason::TooManyPeers);
    member.client.vanish();
    host.hears(Message::PeerDisconnect(member.id)).await;
    server.member(GENERATION, &host.lobby).await;
}

#[tokio::test]
async fn who_does_not_join_in_time_is_closed() {
    let server = serve(SignalingServer::builder().join_limit(Duration::from_millis(100))).await;
    assert_eq!(server.client().await.closed().await, CloseReason::NotJoined);
}

#[tokio::test]
async fn a_message_that_is_too_long_closes_its_sender_alone() {
    let server = usual().await;
    let mut host = server.member(GENERATION, "").await;
    let mut member = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    let longest = "x".repeat(64 * 1024 - "O: 1\n".len());
    member.client.say(&offer(GENERATION, 1, &longest)).await;
    host.hears_from(member.id, &longest).await;
    member.client.say(&offer(GENERATION, 1, &format!("{longest}x"))).await;
    let reason = member.client.closed().await;
    assert_eq!((reason.code(), reason), (1009, CloseReason::TooLarge));
    host.hears(Message::PeerDisconnect(member.id)).await;
}

#[tokio::test]
async fn ten_megabytes_of_description_are_not_received_first() {
    let server = usual().await;
    let mut host = server.member(GENERATION, "").await;
    let member = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    let (mut sink, mut stream) = member.client.socket.split();
    let huge = offer(GENERATION, 1, &"x".repeat(10_000_000));
    let sending = tokio::spawn(async move { sink.send(tungstenite::Message::text(huge)).await });
    let closed = loop {
        match within(stream.next()).await {
            Some(Ok(tungstenite::Message::Close(frame))) => break frame.map(|frame| u16::from(frame.code)),
            Some(Ok(_)) => {}
            other => panic!("no close frame, but {other:?}"),
        }
    };
    assert_eq!(closed, Some(1009));
    host.hears(Message::PeerDisconnect(member.id)).await;
    drop(stream);
    let _ = within(sending).await.unwrap();
    assert!(server.metric("received_bytes_total").await < 1_000_000);
}

#[tokio::test]
async fn a_flood_is_slowed_down_and_nothing_of_it_is_lost() {
    let server = serve(SignalingServer::builder().message_rate(200, 10)).await;
    let mut host = server.member(GENERATION, "").await;
    let mut member = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    let since = Instant::now();
    for number in 0..110 {
        member.tell(1, &number.to_string()).await;
    }
    for number in 0..110 {
        host.hears_from(member.id, &number.to_string()).await;
    }
    // Ten at once, one of which was to join, and then 200 per second.
    assert!(since.elapsed() >= Duration::from_millis(480), "{:?}", since.elapsed());
}

#[tokio::test]
async fn however_many_flood_somebody_they_do_not_get_it_closed() {
    let fast = SignalingServer::builder().message_rate(100_000, 100_000).byte_rate(u32::MAX, u32::MAX);
    let server = serve(fast.outbox(64, 256 * 1024)).await;
    let mut host = server.member(GENERATION, "").await;
    let mut sleeper = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(sleeper.id)).await;
    let mut talkers = Vec::new();
    for _ in 0..6 {
        talkers.push(server.member(GENERATION, &host.lobby).await);
        host.hears(Message::PeerConnect(talkers.last().unwrap().id)).await;
    }
    let much = "x".repeat(50_000);
    // What the kernel holds on both sides comes first: some megabytes.
    within(async {
        while server.metric("dropped_relays_total").await < 50 {
            for talker in &mut talkers {
                talker.tell(sleeper.id, &much).await;
            }
        }
    })
    .await;
    // Of what the server itself says, nothing is missing.
    let newcomer = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(newcomer.id)).await;
    let mut news = 0;
    while news < 7 {
        let heard = Message::decode(GENERATION, &sleeper.client.hear().await).unwrap();
        news += usize::from(matches!(heard, Message::PeerConnect(_)));
    }
    sleeper.tell(1, "awake").await;
    host.hears_from(sleeper.id, "awake").await;
    assert_eq!(server.metric("closed_total{reason=\"unresponsive\"}").await, 0);
}

#[tokio::test]
async fn what_waits_for_all_together_is_bounded_too() {
    let server = serve(SignalingServer::builder().outboxes_bytes(40_000)).await;
    let mut host = server.member(GENERATION, "").await;
    let mut away = Vec::new();
    for number in 0..2 {
        let path = format!("/?session={number:032x}");
        let member = server.client_of(&path).await.join(GENERATION, &host.lobby).await;
        host.hears(Message::PeerConnect(member.id)).await;
        let id = member.id;
        member.client.vanish();
        away.push((path, id));
    }
    server.metric_reaches("lost_total", 2).await;
    let long = "x".repeat(30_000);
    host.tell(away[0].1, &long).await;
    host.tell(away[1].1, &long).await;
    server.metric_reaches("dropped_relays_total", 1).await;
    let mut back = server.client_of(&away[0].0).await.join(GENERATION, &host.lobby).await;
    back.hears_from(1, &long).await;
    host.tell(away[1].1, &long).await;
    server.metric_reaches("relays_total", 2).await;
}

#[tokio::test]
async fn one_who_floods_another_does_not_get_it_closed() {
    let server = serve(SignalingServer::builder().byte_rate(u32::MAX, u32::MAX)).await;
    let mut host = server.member(GENERATION, "").await;
    let mut flooder = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(flooder.id)).await;
    let much = "x".repeat(60_000);
    for _ in 0..500 {
        flooder.tell(1, &much).await;
    }
    flooder.client.socket.close(None).await.unwrap();
    let last = Message::PeerDisconnect(flooder.id).encode(GENERATION);
    while host.client.hear().await != last {}
    let text = server.get("/metrics").await;
    assert!(!text.contains("unresponsive"), "{text}");
    assert_eq!(server.metric("relays_total").await + server.metric("dropped_relays_total").await, 500);
}

#[tokio::test]
async fn what_takes_too_long_to_be_written_is_a_lost_connection() {
    let server = serve(
        SignalingServer::builder()
            .write_limit(Duration::from_millis(200))
            .outbox(100_000, 100_000_000)
            .byte_rate(u32::MAX, u32::MAX)
            .message_rate(100_000, 100_000),
    )
    .await;
    let mut host = server.member(GENERATION, "").await;
    let sleeper = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(sleeper.id)).await;
    let much = "x".repeat(60_000);
    for _ in 0..300 {
        host.tell(sleeper.id, &much).await;
    }
    host.hears(Message::PeerDisconnect(sleeper.id)).await;
    assert_eq!(server.metric("lost_total").await, 1);
}

#[tokio::test]
async fn connections_from_one_address_are_counted() {
    let server = serve(SignalingServer::builder().join_rate(1, 5)).await;
    let mut refused = 0;
    for _ in 0..20 {
        match Client::connect(server.address, "/").await {
            Ok(_) => {}
            Err(tungstenite::Error::Http(response)) => {
                assert_eq!(response.status(), 429);
                refused += 1;
            }
            Err(error) => panic!("{error}"),
        }
    }
    assert!((12..=15).contains(&refused), "{refused}");
    // Who has come too often may not ask how it is either.
    for path in ["/healthz", "/metrics"] {
        assert!(server.get(path).await.starts_with("HTTP/1.1 429"), "{path}");
    }
    let metrics = within(async {
        loop {
            let metrics = server.get("/metrics").await;
            if metrics.starts_with("HTTP/1.1 200") {
                break metrics;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert!(
        metrics.contains(&format!("refused_total{{reason=\"too_many_joins\"}} {refused}\n")),
        "{metrics}"
    );
    assert!(metrics.contains("refused_total{reason=\"too_many_requests\"}"), "{metrics}");
}

#[tokio::test]
async fn behind_a_proxy_it_is_the_last_forwarded_address_that_counts() {
    let ask = async |trusts: bool, addresses: [&str; 2]| {
        let server = serve(SignalingServer::builder().join_rate(1, 1).trust_forwarded_for(trusts)).await;
        let mut codes = Vec::new();
        for forwarded in addresses {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let request = format!(
                "GET / HTTP/1.1\r\nHost: x\r\nX-Forwarded-For: {forwarded}\r\nConnection: upgrade\r\n\
                 Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                 Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
            );
            stream.write_all(request.as_bytes()).await.unwrap();
            let mut answer = [0; 12];
            within(stream.read_exact(&mut answer)).await.unwrap();
            codes.push(String::from_utf8_lossy(&answer[9..]).into_owned());
        }
        codes
    };
    assert_eq!(ask(true, ["192.0.2.1", "192.0.2.1, 192.0.2.2"]).await, ["101", "101"]);
    assert_eq!(ask(true, ["192.0.2.1", "198.51.100.7, 192.0.2.1"]).await, ["101", "429"]);
    assert_eq!(ask(false, ["192.0.2.1", "192.0.2.2"]).await, ["101", "429"]);
}

#[tokio::test]
async fn a_thousand_who_come_at_once_are_all_served() {
    let server =
        serve(SignalingServer::builder().join_rate(10_000, 10_000).max_peers_per_address(1_001)).await;
    let address = server.address;
    let host = server.client_of("/?create=true").await.join(GENERATION, "x").await;
    drop(host);
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..250 {
        tasks.spawn(async move {
            let host = Client::connect(address, "/").await.unwrap().join(GENERATION, "").await;
            let mut members = Vec::new();
            for _ in 0..3 {
                let client = Client::connect(address, "/").await.unwrap();
                members.push(client.join(GENERATION, &host.lobby).await);
            }
            assert_eq!(members[2].peers.len(), 3);
        });
    }
    while let Some(done) = within(tasks.join_next()).await {
        done.unwrap();
    }
    assert_eq!(server.metric("joins_total").await, 1_001);
}

#[tokio::test]
async fn a_request_that_is_never_finished_is_given_up() {
    let server = serve(SignalingServer::builder().header_limit(Duration::from_millis(150))).await;
    for begun in ["", "GET / HTTP/1.1\r\nHost:"] {
        let since = Instant::now();
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        let _ = within(stream.read_to_end(&mut rest)).await;
        assert!(since.elapsed() < Duration::from_secs(3), "5 s is the default: {:?}", since.elapsed());
    }
}

/// Asks for much and reads nothing of it, until it is cut.
async fn ask_and_never_read(address: std::net::SocketAddr) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n".repeat(1_000);
    while stream.write_all(request.as_bytes()).await.is_ok() {}
}

#[tokio::test]
async fn what_does_not_become_a_websocket_in_time_is_cut_whatever_it_does() {
    let patient = SignalingServer::builder().header_limit(Duration::from_secs(3_600));
    let server = serve(patient.http_limit(Duration::from_millis(300))).await;
    // A WebSocket has no such limit.
    let mut host = server.member(GENERATION, "").await;
    let since = Instant::now();
    within(ask_and_never_read(server.address)).await;
    // HTTP/2, without a request, and with what keeps it busy.
    for busy in [false, true] {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let (mut reader, mut writer) = stream.into_split();
        let pings = tokio::spawn(async move {
            while busy && writer.write_all(b"\0\0\x08\x06\0\0\0\0\0pingpong").await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            std::future::pending::<()>().await;
        });
        let mut answers = Vec::new();
        let _ = within(reader.read_to_end(&mut answers)).await;
        assert!(!answers.is_empty(), "it was HTTP/2");
        pings.abort();
    }
    // One request after the other.
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    within(async {
        let mut answer = [0; 4_096];
        while stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n").await.is_ok()
            && stream.read(&mut answer).await.is_ok_and(|length| length > 0)
        {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    assert!(since.elapsed() < Duration::from_secs(10), "15 s is the default: {:?}", since.elapsed());
    let member = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
}

#[tokio::test]
async fn what_is_no_websocket_does_not_hold_up_the_end() {
    let server = serve(SignalingServer::builder().shutdown_limit(Duration::from_secs(3_600))).await;
    let address = server.address;
    let mut askers = tokio::task::JoinSet::new();
    for _ in 0..3 {
        askers.spawn(ask_and_never_read(address));
    }
    // Until the answers do not get through any more, and so nothing more is read.
    server.metric_reaches("refused_total{reason=\"too_many_requests\"}", 1_000).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    let since = Instant::now();
    within(server.server.shutdown()).await;
    within(server.serving).await.unwrap().unwrap();
    assert!(since.elapsed() < Duration::from_secs(5), "{:?}", since.elapsed());
    within(askers.join_all()).await;
}

#[tokio::test]
async fn one_address_has_so_many_places_those_that_are_kept_too() {
    let server = serve(SignalingServer::builder().max_peers_per_address(2)).await;
    let path = format!("/?session={:032x}", 7);
    let mut host = server.member(GENERATION, "").await;
    let member = server.client_of(&path).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    assert_eq!(server.client().await.closed().await, CloseReason::TooManyPeers);
    member.client.vanish();
    server.metric_reaches("lost_total", 1).await;
    assert_eq!(server.client().await.closed().await, CloseReason::TooManyPeers);
    assert_eq!(server.metric("refused_total{reason=\"too_many_peers_of_address\"}").await, 2);
    // But the one for whom it is kept has it.
    let mut back = server.client_of(&path).await.join(GENERATION, &host.lobby).await;
    assert_eq!(back.id, member.id);
    assert_eq!(server.client().await.closed().await, CloseReason::TooManyPeers);
    back.client.socket.close(None).await.unwrap();
    host.hears(Message::PeerDisconnect(member.id)).await;
    within(async { while server.metric("peers").await > 1 {} }).await;
    server.member(GENERATION, &host.lobby).await;
}

#[tokio::test]
async fn frames_that_say_nothing_cost_what_they_weigh() {
    let builder = SignalingServer::builder().join_limit(Duration::from_secs(60));
    let server = serve(builder.byte_rate(100_000, 10_000)).await;
    let mut client = server.client().await;
    let since = Instant::now();
    let piece = |text: &str, code, last| {
        tungstenite::Message::Frame(Frame::message(text.to_owned(), OpCode::Data(code), last))
    };
    client.socket.feed(piece("J: ", Data::Text, false)).await.unwrap();
    // Of six bytes each.
    for _ in 0..20_000 {
        client.socket.feed(piece("", Data::Continue, false)).await.unwrap();
    }
    within(client.socket.send(piece("\n", Data::Continue, true))).await.unwrap();
    let host = client.joined(GENERATION).await;
    assert_eq!(host.id, 1);
    assert!(since.elapsed() >= Duration::from_millis(1_000), "{:?}", since.elapsed());
}

#[tokio::test]
async fn an_admission_lets_in_and_refuses_with_its_reason() {
    let server = serve(SignalingServer::builder().admission_limit(Duration::from_millis(100)).admission(
        |arrival| async move {
            assert!(arrival.address.is_some_and(|address| address.is_loopback()));
            assert!(arrival.headers.contains_key("host"));
            match (arrival.query.as_str(), arrival.lobby.as_deref(), arrival.generation) {
                ("token=sesame", None, Generation::Godot3) => Ok(()),
                ("token=slow", ..) => std::future::pending().await,
                (_, lobby, _) => Err(format!("no token for {lobby:?}")),
            }
        },
    ))
    .await;
    server.client_of("/?token=sesame").await.join(GENERATION, "").await;
    for (path, reason) in [("/", "no token for Some(\"x\")"), ("/?token=slow", "admission takes too long")] {
        let mut client = server.client_of(path).await;
        client.say(&join(GENERATION, "x")).await;
        let closed = client.closed().await;
        assert_eq!((closed.code(), closed), (4000, CloseReason::Refused(reason.to_owned())));
    }
}

#[tokio::test]
async fn an_admission_that_panics_costs_its_client_alone() {
    let server = serve(SignalingServer::builder().admission(|arrival| async move {
        assert!(arrival.query != "panic", "as it was told");
        Ok(())
    }))
    .await;
    let mut host = server.member(GENERATION, "").await;
    let mut unlucky = server.client_of("/?panic").await;
    unlucky.say(&join(GENERATION, &host.lobby)).await;
    assert!(!matches!(within(unlucky.socket.next()).await, Some(Ok(_))));
    let member = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
}

#[tokio::test]
async fn connections_that_ask_for_nothing_are_bounded_too() {
    let patient = SignalingServer::builder().header_limit(Duration::from_secs(3_600));
    let server = serve(patient.max_peers(1)).await;
    let mut idle = Vec::new();
    for _ in 0..1_025 {
        idle.push(TcpStream::connect(server.address).await.unwrap());
    }
    // All places are taken, once the server has got to them.
    let mut one_more = TcpStream::connect(server.address).await.unwrap();
    let mut nothing = Vec::new();
    let _ = within(one_more.read_to_end(&mut nothing)).await;
    assert_eq!(nothing, b"");
    // When they are gone, there is room again.
    drop(idle);
    within(async {
        loop {
            let mut stream = TcpStream::connect(server.address).await.unwrap();
            let _ = stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").await;
            let mut answer = Vec::new();
            if stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200") {
                break;
            }
        }
    })
    .await;
}
