//! Whom a NAT lets in, and who meets through one.

use webrtc_mesh::sim::{self, DropCause, NatKind, Network, Outcome, UdpSocket};

use super::{hears, meet};

/// A socket of the host "inside", behind a NAT of this kind.
fn behind(network: &Network, kind: NatKind) -> UdpSocket {
    network.nat(kind).host("inside").bind(0).unwrap()
}

#[test]
fn nobody_reaches_a_host_behind_a_nat_before_it_has_sent_anything() {
    for kind in [NatKind::FullCone, NatKind::AddressRestricted, NatKind::PortRestricted, NatKind::Symmetric] {
        sim::run(1, |network| async move {
            let mut inside = behind(&network, kind);
            let outside = network.host("outside").bind(0).unwrap();
            outside.send_to(b"to the private address", inside.local_addr());
            let public = network.nat(NatKind::FullCone).public_address();
            outside.send_to(b"to a port that is not mapped", (public, 1025).into());
            assert!(!hears(&mut inside, b"").await);
            let outcomes: Vec<_> = network.trace().iter().map(|record| record.outcome).collect();
            assert_eq!(
                outcomes,
                [Outcome::Dropped(DropCause::NoRoute), Outcome::Dropped(DropCause::Filtered)]
            );
        });
    }
}

#[test]
fn each_kind_of_nat_lets_in_whom_it_should() {
    // Who was sent to; the same host from another port; another host.
    for (kind, expected) in [
        (NatKind::FullCone, [true, true, true]),
        (NatKind::AddressRestricted, [true, true, false]),
        (NatKind::PortRestricted, [true, false, false]),
        (NatKind::Symmetric, [true, false, false]),
    ] {
        sim::run(2, |network| async move {
            let mut inside = behind(&network, kind);
            let outside = network.host("outside");
            let (mut one, two) = (outside.bind(0).unwrap(), outside.bind(0).unwrap());
            let stranger = network.host("stranger").bind(0).unwrap();
            inside.send_to(b"hello", one.local_addr());
            let (_, mapped) = one.recv_from().await;
            assert_ne!(mapped, inside.local_addr());
            let mut heard = Vec::new();
            for socket in [&one, &two, &stranger] {
                socket.send_to(b"in", mapped);
                heard.push(hears(&mut inside, b"in").await);
            }
            assert_eq!(heard, expected, "{kind:?}");
        });
    }
}

#[test]
fn only_a_symmetric_nat_has_another_port_for_each_remote() {
    for kind in [NatKind::FullCone, NatKind::AddressRestricted, NatKind::PortRestricted, NatKind::Symmetric] {
        sim::run(3, |network| async move {
            let inside = behind(&network, kind);
            let (mut one, mut two) = (network.host("1").bind(0).unwrap(), network.host("2").bind(0).unwrap());
            inside.send_to(b"", one.local_addr());
            inside.send_to(b"", two.local_addr());
            let (seen, other) = (one.recv_from().await.1, two.recv_from().await.1);
            assert_eq!(seen.ip(), other.ip());
            assert_eq!(seen.port() != other.port(), kind == NatKind::Symmetric);
        });
    }
}

#[test]
fn a_mapping_is_forgotten_after_two_minutes_without_use_or_when_the_nat_restarts() {
    sim::run(4, |network| async move {
        let nat = network.nat(NatKind::FullCone);
        let mut inside = nat.host("inside").bind(0).unwrap();
        let mut outside = network.host("outside").bind(0).unwrap();
        inside.send_to(b"", outside.local_addr());
        let (_, mapped) = outside.recv_from().await;
        tokio::time::sleep(std::time::Duration::from_secs(118)).await;
        outside.send_to(b"in time", mapped);
        assert!(hears(&mut inside, b"in time").await);
        tokio::time::sleep(std::time::Duration::from_secs(2)).await;
        outside.send_to(b"too late", mapped);
        assert!(!hears(&mut inside, b"too late").await);

        inside.send_to(b"", outside.local_addr());
        let (_, mapped) = outside.recv_from().await;
        nat.forget_mappings();
        outside.send_to(b"too late", mapped);
        assert!(!hears(&mut inside, b"too late").await);
    });
}

#[test]
fn hosts_behind_one_nat_reach_each_other_directly_and_by_their_public_addresses() {
    sim::run(5, |network| async move {
        let nat = network.nat(NatKind::FullCone);
        let (one, mut two) = (nat.host("1").bind(0).unwrap(), nat.host("2").bind(0).unwrap());
        let mut outside = network.host("outside").bind(0).unwrap();
        one.send_to(b"directly", two.local_addr());
        assert_eq!(two.recv_from().await, (b"directly".to_vec(), one.local_addr()));
        two.send_to(b"", outside.local_addr());
        let (_, mapped) = outside.recv_from().await;
        one.send_to(b"hairpin", mapped);
        let (bytes, from) = two.recv_from().await;
        assert_eq!((bytes.as_slice(), from.ip()), (b"hairpin".as_slice(), nat.public_address()));
    });
}

/// Whether two meshes meet, each behind a NAT of its own, with a server that both know.
fn meet_behind(one: NatKind, two: NatKind, turn: bool) -> bool {
    sim::run(6, |network| async move {
        let host = network.host("server");
        let server = if turn { host.turn_server("user", "secret") } else { host.stun_server() }.unwrap();
        let one = network.nat(one).host("alice").peer().ice_server(server.ice_server());
        let two = network.nat(two).host("bob").peer().ice_server(server.ice_server());
        meet(one, two).await
    })
}

#[test]
fn cones_meet_through_stun_and_two_symmetric_nats_need_a_relay() {
    use NatKind::{AddressRestricted, FullCone, PortRestricted, Symmetric};
    for (one, two, met) in [
        (FullCone, AddressRestricted, true),
        (AddressRestricted, AddressRestricted, true),
        (PortRestricted, PortRestricted, true),
        (FullCone, Symmetric, true),
        (AddressRestricted, Symmetric, true),
        (PortRestricted, Symmetric, false),
        (Symmetric, Symmetric, false),
    ] {
        assert_eq!(meet_behind(one, two, false), met, "{one:?} and {two:?} with STUN");
    }
    assert!(meet_behind(Symmetric, Symmetric, true), "with TURN");
}

#[test]
fn a_turn_server_serves_whoever_knows_its_secret() {
    sim::run(7, |network| async move {
        let server = network.host("relay").turn_server("user", "secret").unwrap();
        let knows = |host: &str| network.peer(host).ice_server(server.ice_server()).relay_only(true);
        assert!(meet(knows("alice"), knows("bob")).await);
        let direct =
            network.link("alice", "bob").traffic().sent + network.link("bob", "alice").traffic().sent;
        assert_eq!(direct, 0, "everything went through the relay");

        let wrong = webrtc_mesh::IceServer::turn("turn:relay:3478", "user", "guess");
        let guesses = |host: &str| network.peer(host).ice_server(wrong.clone()).relay_only(true);
        assert!(!meet(guesses("carol"), guesses("dora")).await);
    });
}

#[test]
fn a_stun_server_is_found_by_the_name_of_its_host() {
    sim::run(8, |network| async move {
        let _server = network.host("stun").stun_server().unwrap();
        let peer = |name: &str| {
            let host = network.nat(NatKind::PortRestricted).host(name);
            host.peer().ice_server(webrtc_mesh::IceServer::stun("stun:stun"))
        };
        assert!(meet(peer("alice"), peer("bob")).await);
    });
}
