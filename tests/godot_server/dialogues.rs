//! What is said, frame by frame.

use webrtc_mesh::signaling::godot::{CloseReason, Generation, Message};
use webrtc_mesh::signaling::server::SignalingServer;

use super::support::{join, serve, usual};

const BOTH: [Generation; 2] = [Generation::Godot3, Generation::Godot4];

#[tokio::test]
async fn a_godot_3_lobby_goes_as_the_demo_has_it() {
    let server = usual().await;
    let mut host = server.client().await;
    host.say("J: \n").await;
    host.hears(&["I: 1\n"]).await;
    let named = host.hear().await;
    let lobby = named.strip_prefix("J: ").unwrap().strip_suffix('\n').unwrap().to_owned();
    assert!(lobby.len() == 32 && lobby.bytes().all(|letter| letter.is_ascii_alphanumeric()), "{lobby}");

    let mut two = server.member(Generation::Godot3, &lobby).await;
    assert!((2..=2_147_483_647).contains(&two.id));
    assert_eq!((two.peers.as_slice(), two.lobby.as_str()), ([1].as_slice(), lobby.as_str()));
    host.hears(&[&format!("N: {}\n", two.id)]).await;

    let mut three = server.client().await;
    three.say(&format!("J: {lobby}\n")).await;
    let id = three.hear().await.strip_prefix("I: ").unwrap().trim().to_owned();
    three.hears(&["N: 1\n", &format!("N: {}\n", two.id), &format!("J: {lobby}\n")]).await;
    host.hears(&[&format!("N: {id}\n")]).await;
    two.client.hears(&[&format!("N: {id}\n")]).await;

    // Up: whom it is for. Down: whom it is from; the host is 1.
    host.say(&format!("O: {id}\nv=0\r\n")).await;
    three.hears(&["O: 1\nv=0\r\n"]).await;
    three.say("A: 1\nv=0\r\nanswer").await;
    host.hears(&[&format!("A: {id}\nv=0\r\nanswer")]).await;
    three.say(&format!("C: {}\n\n0\n0\ncandidate:1", two.id)).await;
    two.client.hears(&[&format!("C: {id}\n\n0\n0\ncandidate:1")]).await;

    three.socket.close(None).await.unwrap();
    host.hears(&[&format!("D: {id}\n")]).await;
    two.client.hears(&[&format!("D: {id}\n")]).await;

    host.say("S: \n").await;
    host.hears(&["S: \n"]).await;
    two.client.hears(&["S: \n"]).await;

    host.socket.close(None).await.unwrap();
    assert_eq!(two.client.closed().await, CloseReason::HostDisconnected);
}

#[tokio::test]
async fn a_godot_4_lobby_goes_as_the_demo_has_it() {
    let server = usual().await;
    let mut host = server.client().await;
    host.say(r#"{"type":0,"id":0,"data":""}"#).await;
    host.hears(&[r#"{"data":"true","id":1,"type":1}"#]).await;
    let named = host.hear().await;
    let Ok(Message::Join { lobby, .. }) = Message::decode(Generation::Godot4, &named) else {
        panic!("{named}");
    };
    assert_eq!(named, format!(r#"{{"data":"{lobby}","id":0,"type":0}}"#));

    let mut two = server.member(Generation::Godot4, &lobby).await;
    let id = two.id;
    host.hears(&[&format!(r#"{{"data":"","id":{id},"type":2}}"#)]).await;
    two.client.say(r#"{"type":4,"id":1,"data":"offer"}"#).await;
    host.hears(&[&format!(r#"{{"data":"offer","id":{id},"type":4}}"#)]).await;
    host.say(&format!(r#"{{"type":6.0,"id":{id}.0,"data":"\n0\n0\ncandidate:1"}}"#)).await;
    two.client.hears(&[r#"{"data":"\n0\n0\ncandidate:1","id":1,"type":6}"#]).await;

    let three = server.member(Generation::Godot4, &lobby).await;
    assert_eq!(three.peers, [1, id]);
    for member in [&mut host, &mut two.client] {
        member.hears(&[&format!(r#"{{"data":"","id":{},"type":2}}"#, three.id)]).await;
    }
    three.client.vanish();
    for member in [&mut host, &mut two.client] {
        member.hears(&[&format!(r#"{{"data":"","id":{},"type":3}}"#, three.id)]).await;
    }
    host.say(r#"{"type":7,"id":0,"data":""}"#).await;
    for member in [&mut host, &mut two.client] {
        member.hears(&[r#"{"data":"","id":0,"type":7}"#]).await;
    }
}

#[tokio::test]
async fn binary_frames_of_text_are_as_good_as_text() {
    let server = usual().await;
    for generation in BOTH {
        let mut host = server.client().await;
        host.say_binary(join(generation, "").as_bytes()).await;
        let host = host.joined(generation).await;
        assert_eq!(host.id, 1);
    }
}

#[tokio::test]
async fn in_a_client_server_lobby_clients_know_the_host_alone() {
    let server = usual().await;
    let mut host = server.client().await;
    host.say(r#"{"type":0,"id":1,"data":""}"#).await;
    host.hears(&[r#"{"data":"","id":1,"type":1}"#]).await;
    let mut host = host.joined(Generation::Godot4).await;
    let mut one = server.member(Generation::Godot4, &host.lobby).await;
    let mut two = server.member(Generation::Godot4, &host.lobby).await;
    assert_eq!((one.peers.as_slice(), two.peers.as_slice()), ([1].as_slice(), [1].as_slice()));
    host.hears(Message::PeerConnect(one.id)).await;
    host.hears(Message::PeerConnect(two.id)).await;

    one.tell(two.id, "past the host").await;
    one.tell(1, "to the host").await;
    host.hears_from(one.id, "to the host").await;
    host.tell(two.id, "from the host").await;
    two.hears_from(1, "from the host").await;

    one.client.socket.close(None).await.unwrap();
    host.hears(Message::PeerDisconnect(one.id)).await;
    host.tell(two.id, "still here").await;
    two.hears_from(1, "still here").await;
    assert_eq!(server.metric("dropped_relays_total").await, 1);
}

#[tokio::test]
async fn every_refusal_has_its_code_and_words() {
    let server = serve(SignalingServer::builder().max_lobbies(2).max_peers_per_lobby(2)).await;
    let mut text = server.member(Generation::Godot3, "").await;
    let json = server.member(Generation::Godot4, "").await;
    let _second = server.member(Generation::Godot4, &json.lobby).await;
    text.client.say("S: \n").await;
    text.client.hears(&["S: \n"]).await;

    let godot = |text: &str| (4000, text.to_owned());
    let (sealed, full) = (text.lobby.as_str(), json.lobby.as_str());
    for (first, code_and_words) in [
        ("J: nowhere\n".to_owned(), godot("Lobby does not exists")),
        (join(Generation::Godot4, "nowhere"), godot("Lobby does not exists")),
        (format!("J: {sealed}\n"), godot("Lobby is sealed")),
        (format!("J: {full}\n"), godot("The lobby speaks the protocol of Godot 4, JSON")),
        (join(Generation::Godot4, sealed), godot("The lobby speaks the protocol of Godot 3, lines of text")),
        (join(Generation::Godot4, full), godot("Lobby is full")),
        ("J: \n".to_owned(), godot("Too many lobbies open, disconnecting")),
        ("O: 1\nsdp".to_owned(), godot("Invalid message when not in a lobby")),
        (r#"{"type":7,"id":0,"data":""}"#.to_owned(), godot("Invalid message when not in a lobby")),
        (r#"{"type":99,"id":0,"data":""}"#.to_owned(), godot("Invalid message when not in a lobby")),
        ("hello".to_owned(), godot("Invalid message format")),
        ("{}".to_owned(), godot("Invalid message format")),
    ] {
        let mut client = server.client().await;
        client.say(&first).await;
        let reason = client.closed().await;
        assert_eq!((reason.code(), reason.text().into_owned()), code_and_words, "{first:?}");
    }
    let mut client = server.client().await;
    client.say_binary(b"J: \xff\n").await;
    assert_eq!(client.closed().await, CloseReason::NotText);
}

#[tokio::test]
async fn what_a_member_must_not_say_closes_that_member_alone() {
    let server = usual().await;
    for generation in BOTH {
        let mut host = server.member(generation, "").await;
        let text = |message: Message| message.encode(generation);
        let unknown = match generation {
            Generation::Godot3 => "X: 1\n".to_owned(),
            Generation::Godot4 => r#"{"type":8,"id":0,"data":""}"#.to_owned(),
        };
        for (nonsense, reason) in [
            (text(Message::Seal), CloseReason::NotHost),
            (join(generation, &host.lobby), CloseReason::AlreadyInLobby),
            ("what?".to_owned(), CloseReason::InvalidFormat),
            (unknown, CloseReason::InvalidCommand),
            (text(Message::PeerConnect(1)), CloseReason::InvalidCommand),
            (text(Message::Id { id: 1, mesh: true }), CloseReason::InvalidCommand),
            (super::support::offer(generation, 0, "x"), CloseReason::InvalidDestination),
            (super::support::offer(generation, 2_147_483_648, "x"), CloseReason::InvalidDestination),
        ] {
            let mut member = server.member(generation, &host.lobby).await;
            host.hears(Message::PeerConnect(member.id)).await;
            member.client.say(&nonsense).await;
            assert_eq!(member.client.closed().await, reason, "{nonsense:?}");
            host.hears(Message::PeerDisconnect(member.id)).await;
        }
    }
}

#[tokio::test]
async fn a_message_to_somebody_who_is_not_there_is_dropped_and_closes_nobody() {
    let server = usual().await;
    let mut host = server.member(Generation::Godot3, "").await;
    let mut member = server.member(Generation::Godot3, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    host.tell(77, "nobody").await;
    host.tell(1, "myself").await;
    host.tell(member.id, "somebody").await;
    member.hears_from(1, "somebody").await;
    assert_eq!(server.metric("dropped_relays_total").await, 2);
}

#[tokio::test]
async fn a_lobby_is_made_under_a_name_of_ones_choice_if_one_asks_for_it() {
    let server = usual().await;
    let host = server.client_of("/?create=true").await.join(Generation::Godot4, "Our lobby, 3").await;
    assert_eq!((host.id, host.lobby.as_str()), (1, "Our lobby, 3"));
    let second = server.client_of("/?create=true").await.join(Generation::Godot4, "Our lobby, 3").await;
    assert_eq!(second.peers, [1]);
    for name in ["x".repeat(65), r"a\u0000b".to_owned()] {
        let mut client = server.client_of("/?create=true").await;
        client.say(&join(Generation::Godot4, &name)).await;
        assert!(matches!(client.closed().await, CloseReason::Refused(_)));
    }
}

#[tokio::test]
async fn a_sealed_lobby_lets_nobody_in_and_all_out_after_a_while() {
    let delay = std::time::Duration::from_millis(300);
    let server = serve(SignalingServer::builder().seal_delay(delay)).await;
    let mut host = server.member(Generation::Godot4, "").await;
    let mut member = server.member(Generation::Godot4, &host.lobby).await;
    host.hears(Message::PeerConnect(member.id)).await;
    let sealed = std::time::Instant::now();
    host.client.say(&Message::Seal.encode(Generation::Godot4)).await;
    host.hears(Message::Seal).await;
    member.hears(Message::Seal).await;
    let mut late = server.client().await;
    late.say(&join(Generation::Godot4, &host.lobby)).await;
    assert_eq!(late.closed().await, CloseReason::LobbySealed);
    for member in [&mut host, &mut member] {
        let reason = member.client.closed().await;
        assert_eq!((reason.code(), reason.text().as_ref()), (1000, "Seal complete"));
    }
    assert!(sealed.elapsed() >= delay);
    assert_eq!(server.metric("lobbies").await, 0);
}
