//! A lost connection, and a server that was restarted.

use std::time::{Duration, Instant};

use webrtc_mesh::signaling::godot::{CloseReason, Generation, Message};
use webrtc_mesh::signaling::server::{SignalingServer, SignalingServerBuilder};

use super::support::{join, offer, serve, serve_at, usual, within};

const GENERATION: Generation = Generation::Godot4;

fn session(number: u8) -> String {
    format!("/?session={number:032x}")
}

fn claim(number: u8, id: u32) -> String {
    format!("/?session={number:032x}&id={id}")
}

fn quick() -> SignalingServerBuilder {
    SignalingServer::builder().resume(Duration::from_millis(200)).restore(Duration::ZERO)
}

#[tokio::test]
async fn a_client_that_lost_its_connection_gets_its_place_back_and_nobody_hears_of_it() {
    let server = usual().await;
    let mut host = server.client_of(&session(1)).await.join(GENERATION, "").await;
    assert_eq!(host.client.headers["x-webrtc-mesh-session"], "15");
    let mut other = server.member(GENERATION, &host.lobby).await;
    let lost = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(other.id)).await;
    host.hears(Message::PeerConnect(lost.id)).await;
    other.hears(Message::PeerConnect(lost.id)).await;

    lost.client.vanish();
    server.metric_reaches("lost_total", 1).await;
    host.tell(lost.id, "while you were away").await;
    // One goes and one comes meanwhile.
    other.client.socket.close(None).await.unwrap();
    host.hears(Message::PeerDisconnect(other.id)).await;
    let newcomer = server.member(GENERATION, &host.lobby).await;
    assert_eq!(newcomer.peers.len(), 2, "the one that is away is there");
    host.hears(Message::PeerConnect(newcomer.id)).await;

    let mut back = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    assert_eq!(back.id, lost.id);
    let there: std::collections::BTreeSet<_> = back.peers.iter().copied().collect();
    assert_eq!(there, [1, newcomer.id].into());
    back.hears_from(1, "while you were away").await;
    back.tell(1, "back").await;
    host.hears_from(lost.id, "back").await;
    assert_eq!(server.metric("resumed_total").await, 1);
}

#[tokio::test]
async fn a_host_that_comes_back_is_the_host() {
    let server = usual().await;
    let host = server.client_of(&session(1)).await.join(GENERATION, "").await;
    let mut member = server.member(GENERATION, &host.lobby).await;
    host.client.vanish();
    server.metric_reaches("lost_total", 1).await;
    let mut host = server.client_of(&session(1)).await.join(GENERATION, &host.lobby).await;
    assert_eq!((host.id, host.peers.as_slice()), (1, [member.id].as_slice()));
    host.client.say(&Message::Seal.encode(GENERATION)).await;
    member.hears(Message::Seal).await;
}

#[tokio::test]
async fn who_comes_back_into_a_sealed_lobby_is_told_so() {
    let server = usual().await;
    let mut host = server.member(GENERATION, "").await;
    let member = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    member.client.vanish();
    server.metric_reaches("lost_total", 1).await;
    host.client.say(&Message::Seal.encode(GENERATION)).await;
    host.hears(Message::Seal).await;
    let mut member = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    member.hears(Message::Seal).await;
}

#[tokio::test]
async fn a_connection_that_still_seems_open_is_replaced() {
    let server = usual().await;
    let mut host = server.member(GENERATION, "").await;
    let mut old = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(old.id)).await;
    let mut new = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    assert_eq!((new.id, old.client.closed().await), (old.id, CloseReason::Replaced));
    host.tell(new.id, "here").await;
    new.hears_from(1, "here").await;
    new.tell(1, "and there").await;
    host.hears_from(new.id, "and there").await;
}

#[tokio::test]
async fn who_does_not_come_back_in_time_has_left() {
    let server = serve(quick()).await;
    let mut host = server.member(GENERATION, "").await;
    let lost = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(lost.id)).await;
    let since = Instant::now();
    lost.client.vanish();
    host.hears(Message::PeerDisconnect(lost.id)).await;
    assert!(since.elapsed() >= Duration::from_millis(200));

    // Its id is still its own.
    let mut other = server.client_of(&claim(3, lost.id)).await;
    other.say(&join(GENERATION, &host.lobby)).await;
    assert_eq!(other.closed().await, CloseReason::NotResumed);
    let back = server.client_of(&claim(2, lost.id)).await.join(GENERATION, &host.lobby).await;
    assert_eq!(back.id, lost.id);
    host.hears(Message::PeerConnect(lost.id)).await;
}

#[tokio::test]
async fn a_lobby_ends_when_its_host_does_not_come_back() {
    let server = serve(quick()).await;
    let host = server.client_of(&session(1)).await.join(GENERATION, "").await;
    let mut member = server.member(GENERATION, &host.lobby).await;
    host.client.vanish();
    assert_eq!(member.client.closed().await, CloseReason::HostDisconnected);
    let mut late = server.client_of(&claim(1, 1)).await;
    late.say(&join(GENERATION, &host.lobby)).await;
    assert_eq!(late.closed().await, CloseReason::NotResumed);
}

#[tokio::test]
async fn a_goodbye_is_a_goodbye_at_once_and_so_is_a_loss_without_a_session() {
    let server = usual().await;
    let mut host = server.member(GENERATION, "").await;
    let mut leaves = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(leaves.id)).await;
    leaves.client.socket.close(None).await.unwrap();
    host.hears(Message::PeerDisconnect(leaves.id)).await;
    let vanishes = server.member(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(vanishes.id)).await;
    vanishes.client.vanish();
    host.hears(Message::PeerDisconnect(vanishes.id)).await;
    // What misbehaves is not kept either.
    let mut misbehaves = server.client_of(&session(3)).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(misbehaves.id)).await;
    misbehaves.client.say("nonsense").await;
    host.hears(Message::PeerDisconnect(misbehaves.id)).await;
}

#[tokio::test]
async fn who_is_away_keeps_its_place_however_much_is_said_to_it() {
    let server = serve(SignalingServer::builder().outbox(8, 1_000_000)).await;
    let mut host = server.member(GENERATION, "").await;
    let lost = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    host.hears(Message::PeerConnect(lost.id)).await;
    lost.client.vanish();
    server.metric_reaches("lost_total", 1).await;
    let mut others = Vec::new();
    for _ in 0..6 {
        let mut other = server.member(GENERATION, &host.lobby).await;
        host.hears(Message::PeerConnect(other.id)).await;
        for _ in 0..5 {
            other.tell(lost.id, "are you there?").await;
        }
        others.push(other);
    }
    // Each may have a quarter of it waiting, and all of them eight messages.
    server.metric_reaches("dropped_relays_total", 22).await;
    let mut back = server.client_of(&session(2)).await.join(GENERATION, &host.lobby).await;
    assert_eq!((back.id, back.peers.len()), (lost.id, 7));
    for other in [0, 0, 1, 1, 2, 2, 3, 3_usize] {
        back.hears_from(others[other].id, "are you there?").await;
    }
    assert_eq!(server.metric("closed_total{reason=\"unresponsive\"}").await, 0);
}

#[tokio::test]
async fn who_cannot_be_kept_a_place_for_is_not_told_that_it_is() {
    let told = async |resume: Duration| {
        let server = serve(SignalingServer::builder().resume(resume)).await;
        let client = server.client_of(&session(1)).await;
        client.headers.get("x-webrtc-mesh-session").map(|it| it.to_str().unwrap().to_owned())
    };
    assert_eq!(told(Duration::from_secs(7)).await.as_deref(), Some("7"));
    assert_eq!(told(Duration::from_millis(200)).await.as_deref(), Some("1"));
    assert_eq!(told(Duration::ZERO).await, None);
}

#[tokio::test]
async fn lobbies_are_restored_after_a_restart_with_the_ids_that_were() {
    let server = usual().await;
    // A member is back before the host; a stranger comes too.
    let mut member = server.client_of(&claim(2, 4_711)).await.join(GENERATION, "lobby").await;
    assert_eq!((member.id, member.peers.as_slice()), (4_711, [].as_slice()));
    let stranger = server.member(GENERATION, "lobby").await;
    assert!(stranger.id != 1);
    member.hears(Message::PeerConnect(stranger.id)).await;
    let mut host = server.client_of(&claim(1, 1)).await.join(GENERATION, "lobby").await;
    assert_eq!((host.id, host.peers.len()), (1, 2));
    member.hears(Message::PeerConnect(1)).await;
    member.tell(1, "there you are").await;
    host.hears_from(4_711, "there you are").await;
    // An id that somebody has is not given again.
    let mut claims = server.client_of(&claim(9, 4_711)).await;
    claims.say(&join(GENERATION, "lobby")).await;
    assert_eq!(claims.closed().await, CloseReason::NotResumed);
    host.client.say(&Message::Seal.encode(GENERATION)).await;
    host.hears(Message::Seal).await;
}

#[tokio::test]
async fn a_newcomer_who_makes_the_lobby_first_locks_nobody_out_but_the_former_host() {
    let server = usual().await;
    let mut newcomer = server.client_of("/?create=true").await.join(GENERATION, "lobby").await;
    assert_eq!(newcomer.id, 1);
    let member = server.client_of(&claim(2, 7)).await.join(GENERATION, "lobby").await;
    assert_eq!((member.id, member.peers.as_slice()), (7, [1].as_slice()));
    newcomer.hears(Message::PeerConnect(7)).await;
    for taken in [1, 7] {
        let mut claims = server.client_of(&claim(9, taken)).await;
        claims.say(&join(GENERATION, "lobby")).await;
        assert_eq!(claims.closed().await, CloseReason::NotResumed);
    }
    // After the window, and where it never opens, a lobby is its maker's.
    let late = serve(SignalingServer::builder().restore(Duration::ZERO)).await;
    let _maker = late.client_of("/?create=true").await.join(GENERATION, "lobby").await;
    let mut claims = late.client_of(&claim(2, 7)).await;
    claims.say(&join(GENERATION, "lobby")).await;
    assert_eq!(claims.closed().await, CloseReason::NotResumed);
}

#[tokio::test]
async fn a_restart_of_the_server_ends_no_lobby() {
    let first = usual().await;
    let mut host = first.client_of(&session(1)).await.join(GENERATION, "").await;
    let mut members = Vec::new();
    for number in 2..6 {
        members.push(first.client_of(&session(number)).await.join(GENERATION, &host.lobby).await);
    }
    let stops = tokio::spawn(async move {
        within(first.server.shutdown()).await;
        within(first.serving).await.unwrap().unwrap();
        first.address
    });
    // Everybody is told that it is the server, not that the host has left.
    assert_eq!(host.client.closed().await, CloseReason::ShuttingDown);
    for member in &mut members {
        assert_eq!(member.client.closed().await, CloseReason::ShuttingDown);
    }
    let address = stops.await.unwrap();

    let second = serve_at(address, SignalingServer::builder()).await;
    for (number, member) in (2..6).zip(&mut members) {
        let client = second.client_of(&claim(number, member.id)).await;
        let back = client.join(GENERATION, &member.lobby).await;
        assert_eq!(back.id, member.id);
        *member = back;
    }
    let back = second.client_of(&claim(1, 1)).await.join(GENERATION, &host.lobby).await;
    assert_eq!((back.id, back.peers.len()), (1, 4));
}

#[tokio::test]
async fn after_the_window_nothing_is_believed() {
    let window = Duration::from_secs(2);
    let server = serve(SignalingServer::builder().restore(window)).await;
    let member = server.client_of(&claim(2, 7)).await.join(GENERATION, "lobby").await;
    assert_eq!(member.id, 7);
    // It began before this.
    tokio::time::sleep(window).await;
    for lobby in ["lobby", "another"] {
        let mut late = server.client_of(&claim(1, 1)).await;
        late.say(&join(GENERATION, lobby)).await;
        assert_eq!(late.closed().await, CloseReason::NotResumed);
    }
    let stranger = server.member(GENERATION, "lobby").await;
    assert_eq!((stranger.id == 1, stranger.peers.as_slice()), (false, [7].as_slice()));

    let never = serve(SignalingServer::builder().restore(Duration::ZERO)).await;
    let mut late = never.client_of(&claim(1, 1)).await;
    late.say(&join(GENERATION, "lobby")).await;
    assert_eq!(late.closed().await, CloseReason::NotResumed);
}

#[tokio::test]
async fn a_query_that_cannot_be_understood_is_refused_and_others_are_ignored() {
    let server = usual().await;
    for path in ["/?session=12", "/?session=x", "/?id=7", "/?session=%zz", &claim(1, 0), &claim(1, u32::MAX)]
    {
        let refused = super::support::Client::connect(server.address, path).await;
        let Err(tokio_tungstenite::tungstenite::Error::Http(response)) = refused.map(|_| ()) else {
            panic!("{path} is refused");
        };
        assert_eq!(response.status(), 400, "{path}");
    }
    let client = server.client_of("/any/path?color=blue&create=maybe").await;
    assert!(!client.headers.contains_key("x-webrtc-mesh-session"));
    client.join(GENERATION, "").await;
}

#[tokio::test]
async fn a_client_that_answers_no_ping_is_lost_and_its_place_is_kept() {
    let limits = |builder: SignalingServerBuilder| {
        builder.ping_interval(Duration::from_millis(50)).silence_limit(Duration::from_millis(300))
    };
    let server = serve(limits(SignalingServer::builder())).await;
    let mut host = server.member(GENERATION, "").await;
    let (lobby, path) = (host.lobby.clone(), session(2));
    // The host reads, and so answers pings, for as long as this takes.
    let reads = tokio::spawn(async move {
        let news = [host.client.hear().await, host.client.hear().await];
        (host, news)
    });
    let silent = server.client_of(&path).await.join(GENERATION, &lobby).await;
    server.metric_reaches("lost_total", 1).await;
    let mut back = server.client_of(&path).await.join(GENERATION, &lobby).await;
    assert_eq!(back.id, silent.id);
    back.tell(1, "back").await;
    let (_host, news) = within(reads).await.unwrap();
    let came = Message::PeerConnect(silent.id).encode(GENERATION);
    assert_eq!(news, [came, offer(GENERATION, silent.id, "back")]);
}
