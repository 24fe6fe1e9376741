//! Addresses that come and go, and meshes on them.

use std::io::ErrorKind;

use futures::StreamExt as _;
use webrtc_mesh::signaling::loopback::Hub;
use webrtc_mesh::sim::{self, DropCause, Outcome};
use webrtc_mesh::{ConnectionError, Mesh, MeshEvent, PeerConnection, PeerConnectionConfig};

use super::{hears, meet, ms, two_meshes, two_sockets};

#[test]
fn a_silent_host_neither_sends_nor_hears_and_comes_back_as_it_was() {
    sim::run(1, |network| async move {
        let (alice, mut bob) = two_sockets(&network);
        network.host("alice").set_silent(true);
        alice.send_to(b"1", bob.local_addr());
        network.host("alice").set_silent(false);
        network.host("bob").set_silent(true);
        alice.send_to(b"2", bob.local_addr());
        network.host("bob").set_silent(false);
        alice.send_to(b"3", bob.local_addr());
        assert!(hears(&mut bob, b"3").await);
        assert_eq!(network.link("alice", "bob").traffic().lost, 2);
    });
}

#[test]
fn a_host_that_changes_its_address_is_dead_at_the_old_one() {
    sim::run(2, |network| async move {
        let (mut alice, mut bob) = two_sockets(&network);
        bob.send_to(b"on its way", alice.local_addr());
        let address = network.host("alice").change_address();
        assert_ne!(address, alice.local_addr().ip());
        bob.send_to(b"to the old one", alice.local_addr());
        alice.send_to(b"from the old one", bob.local_addr());
        assert!(!hears(&mut alice, b"on its way").await && !hears(&mut bob, b"from the old one").await);
        let outcomes: Vec<_> = network.trace().iter().map(|record| record.outcome).collect();
        assert_eq!(outcomes[1], Outcome::Dropped(DropCause::NoRoute));
        assert_eq!(outcomes[2], Outcome::Dropped(DropCause::AddressGone));

        let mut again = network.host("alice").bind(0).unwrap();
        assert_eq!(again.local_addr().ip(), address);
        bob.send_to(b"to the new one", again.local_addr());
        assert!(hears(&mut again, b"to the new one").await);
    });
}

#[test]
fn a_mesh_whose_host_has_changed_its_address_is_reached_by_new_connections() {
    sim::run(3, |network| async move {
        let hub = Hub::new();
        let mut one = Mesh::builder().connection(network.peer("alice")).join(hub.join()).await.unwrap();
        network.host("alice").change_address();
        let mut two = Mesh::builder().connection(network.peer("bob")).join(hub.join()).await.unwrap();
        assert!(matches!(one.next().await, Some(MeshEvent::PeerConnected(_))));
        assert!(matches!(two.next().await, Some(MeshEvent::PeerConnected(_))));
    });
}

#[test]
fn a_mesh_that_is_of_no_host_is_not_let_out_to_the_real_network() {
    sim::run(1, |_network| async {
        let mesh = Mesh::builder().join(Hub::new().join()).await.unwrap_err();
        let connection = PeerConnection::new(PeerConnectionConfig::new()).await.unwrap_err();
        for error in [mesh.to_string(), connection.to_string()] {
            assert!(error.contains(".connection(network.peer("), "{error}");
        }
    });
}

#[test]
fn a_port_is_taken_once_and_free_again_when_its_socket_is_gone() {
    sim::run(4, |network| async move {
        let alice = network.host("alice");
        let socket = alice.bind(5000).unwrap();
        assert_eq!(alice.bind(5000).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert_eq!(network.host("bob").bind(5000).unwrap().local_addr().port(), 5000, "another host");
        drop(socket);
        assert!(alice.bind(5000).is_ok());
        alice.remove_address(alice.address());
        assert_eq!(alice.bind(5000).unwrap_err().kind(), ErrorKind::AddrNotAvailable);
    });
}

#[test]
fn a_connection_binds_what_its_configuration_says() {
    sim::run(5, |network| async move {
        let alice = network.host("alice");
        let foreign = alice.peer().bind("198.18.99.99:0".parse().unwrap());
        assert!(matches!(PeerConnection::new(foreign).await, Err(ConnectionError::Bind(_))));

        let wildcard = alice.peer().bind("0.0.0.0:7000".parse().unwrap());
        let first = PeerConnection::new(wildcard.clone()).await.unwrap();
        assert_eq!(alice.bind(7000).unwrap_err().kind(), ErrorKind::AddrInUse);
        assert!(matches!(PeerConnection::new(wildcard).await, Err(ConnectionError::Bind(_))));
        first.close().await;

        let range = alice.peer().port_range(6000..=6001);
        let first = PeerConnection::new(range.clone()).await.unwrap();
        let second = PeerConnection::new(range.clone()).await.unwrap();
        assert!(matches!(PeerConnection::new(range).await, Err(ConnectionError::Bind(_))));
        assert_eq!(alice.bind(6000).unwrap_err().kind(), ErrorKind::AddrInUse);
        first.close().await;
        second.close().await;
    });
}

#[test]
fn hosts_with_several_addresses_meet_over_any_that_works() {
    sim::run(6, |network| async move {
        let (alice, bob) = (network.host("alice"), network.host("bob"));
        alice.add_address("198.18.200.1".parse().unwrap());
        bob.add_address("198.18.200.2".parse().unwrap());
        // What either says over its first address is lost.
        let firsts = [alice.address(), bob.address()];
        network.drop_if(move |datagram| firsts.contains(&datagram.from.ip()));
        assert!(meet(alice.peer(), bob.peer()).await);
    });
}

#[test]
fn hosts_meet_over_ipv6() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        return; // as documented, the machine has to have it
    }
    sim::run(7, |network| async move {
        let (alice, bob) = (network.host("alice"), network.host("bob"));
        alice.add_address("2001:db8::a".parse().unwrap());
        bob.add_address("2001:db8::b".parse().unwrap());
        bob.remove_address(bob.address());
        assert!(meet(alice.peer(), bob.peer()).await);
    });
}

#[test]
fn meshes_on_one_host_meet_too() {
    sim::run(8, |network| async move { assert!(meet(network.peer("alice"), network.peer("alice")).await) });
}

#[test]
fn a_silent_host_is_noticed_by_its_mesh_peers() {
    sim::run(9, |network| async move {
        let (mut one, mut two) = two_meshes(network.peer("alice"), network.peer("bob")).await;
        assert!(matches!(one.next().await, Some(MeshEvent::PeerConnected(_))));
        assert!(matches!(two.next().await, Some(MeshEvent::PeerConnected(_))));
        network.host("bob").set_silent(true);
        assert!(matches!(one.next().await, Some(MeshEvent::PeerUnstable(_))));
        network.host("bob").set_silent(false);
        assert!(matches!(one.next().await, Some(MeshEvent::PeerRecovered(_))));
        tokio::time::sleep(ms(10)).await;
    });
}
