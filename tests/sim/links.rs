//! What a link does to datagrams.

use std::time::Duration;

use tokio::time::Instant;
use webrtc_mesh::sim::{self, DatagramKind, DropCause, NatKind, Network, Outcome, TRACE_RECORDS};

use super::{arrivals, hears, ms, two_sockets};

/// Sends `count` numbered datagrams of `size` bytes at once from "alice" to "bob", and gives the numbers that arrive
/// with their times.
async fn a_volley(network: &Network, count: u32, size: usize) -> Vec<(u32, Duration)> {
    let (alice, mut bob) = two_sockets(network);
    let start = Instant::now();
    for number in 0..count {
        let mut bytes = number.to_be_bytes().to_vec();
        bytes.resize(size.max(4), 0);
        alice.send_to(&bytes, bob.local_addr());
    }
    let arrived = arrivals(&mut bob, start).await;
    assert!(arrived.iter().all(|(bytes, from, _)| bytes.len() == size.max(4) && *from == alice.local_addr()));
    arrived
        .into_iter()
        .map(|(bytes, _, at)| (u32::from_be_bytes(bytes[..4].try_into().unwrap()), at))
        .collect()
}

#[test]
fn a_datagram_takes_the_latency_and_at_most_the_jitter_more() {
    sim::run(1, |network| async move {
        network.links().latency(ms(40)).jitter(ms(10));
        let arrived = a_volley(&network, 1_000, 4).await;
        assert_eq!(arrived.len(), 1_000);
        assert!(arrived.iter().all(|(_, at)| (ms(40)..=ms(51)).contains(at)), "{arrived:?}");
        assert!(arrived.iter().any(|(_, at)| *at < ms(43)) && arrived.iter().any(|(_, at)| *at > ms(47)));
        assert!(!arrived.is_sorted(), "some overtake others");
    });
    sim::run(2, |network| async move {
        network.links().latency(ms(40)).jitter(ms(0));
        let arrived = a_volley(&network, 100, 4).await;
        assert!(arrived.iter().all(|(_, at)| *at == ms(40)), "{arrived:?}");
        assert!(arrived.is_sorted(), "nothing overtakes");
    });
}

#[test]
fn each_direction_and_each_link_has_a_shape_of_its_own() {
    sim::run(3, |network| async move {
        let (mut alice, mut bob) = two_sockets(&network);
        let mut carol = network.host("carol").bind(0).unwrap();
        network.links().jitter(ms(0));
        network.link("alice", "bob").latency(ms(100));
        network.links_to("carol").latency(ms(300));
        let start = Instant::now();
        alice.send_to(b"there", bob.local_addr());
        bob.send_to(b"back", alice.local_addr());
        alice.send_to(b"aside", carol.local_addr());
        assert_eq!(arrivals(&mut bob, start).await[0].2, ms(100));
        assert!(hears(&mut alice, b"back").await && hears(&mut carol, b"aside").await);
        let trace = network.trace();
        let took: Vec<_> = trace
            .iter()
            .map(|record| match record.outcome {
                Outcome::Arrives(at) => at - record.at,
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(took, [ms(100), ms(20), ms(300)]);
    });
}

#[test]
fn the_share_that_is_lost_is_the_one_asked_for() {
    for loss in [0.05, 0.3, 1.0] {
        sim::run(4, |network| async move {
            network.links().loss(loss);
            let arrived = a_volley(&network, 10_000, 4).await.len();
            let expected = 10_000.0 * (1.0 - loss);
            assert!((arrived as f64 - expected).abs() <= 150.0, "{arrived} of 10,000 at {loss}");
            let traffic = network.traffic();
            assert_eq!((traffic.sent, traffic.lost), (10_000, 10_000 - arrived as u64));
            assert!(network.trace().iter().all(|record| {
                matches!(record.outcome, Outcome::Arrives(_) | Outcome::Dropped(DropCause::Loss))
            }));
        });
    }
}

#[test]
fn a_bursty_link_loses_the_same_share_in_bursts_of_the_length_asked_for() {
    sim::run(5, |network| async move {
        network.links().bursty_loss(0.1, 8.0).jitter(ms(0));
        let arrived: Vec<u32> =
            a_volley(&network, 40_000, 4).await.into_iter().map(|(number, _)| number).collect();
        let lost = 40_000 - arrived.len();
        assert!((3_000..5_000).contains(&lost), "{lost} of 40,000");
        let bursts = arrived.windows(2).filter(|pair| pair[1] - pair[0] > 1).count();
        let mean = lost as f64 / bursts as f64;
        assert!((6.5..9.5).contains(&mean), "{lost} in {bursts} bursts");
    });
}

#[test]
fn a_duplicate_is_the_same_datagram_again() {
    sim::run(6, |network| async move {
        network.links().duplication(0.2);
        let mut arrived: Vec<u32> =
            a_volley(&network, 1_000, 4).await.into_iter().map(|(number, _)| number).collect();
        let doubled = network.traffic().doubled;
        assert!((150..250).contains(&doubled), "{doubled} of 1,000");
        assert_eq!(arrived.len() as u64, 1_000 + doubled);
        arrived.sort_unstable();
        arrived.dedup();
        assert_eq!(arrived.len(), 1_000);
    });
}

#[test]
fn what_is_held_back_is_overtaken() {
    sim::run(7, |network| async move {
        network.links().jitter(ms(0)).reordering(0.1, ms(30));
        let arrived = a_volley(&network, 1_000, 4).await;
        let late = arrived.iter().filter(|(_, at)| *at == ms(50)).count();
        assert!((60..140).contains(&late), "{late} of 1,000");
        assert_eq!(arrived.iter().filter(|(_, at)| *at == ms(20)).count(), 1_000 - late);
    });
}

#[test]
fn a_slow_link_sends_one_after_another_and_its_queue_drops_what_is_too_much() {
    sim::run(8, |network| async move {
        // 1,000 bytes with their headers are a tenth of a second; ten of them fit in the queue.
        network.links().jitter(ms(0)).bandwidth(10_000, 10_000);
        let arrived = a_volley(&network, 50, 972).await;
        let expected: Vec<_> =
            (0..10).map(|number| (number, ms(20 + 100 * (u64::from(number) + 1)))).collect();
        assert_eq!(arrived, expected);
        assert_eq!(network.traffic().lost, 40);
        assert_eq!(network.trace()[20].outcome, Outcome::Dropped(DropCause::QueueFull));

        // The queue is empty again; without a limit there is none.
        assert_eq!(a_volley(&network, 3, 972).await.len(), 3);
        network.links().unlimited();
        assert!(a_volley(&network, 50, 972).await.iter().all(|(_, at)| *at == ms(20)));
    });
}

#[test]
fn all_that_a_host_sends_shares_its_upload() {
    sim::run(9, |network| async move {
        network.links().jitter(ms(0));
        let (alice, mut bob) = two_sockets(&network);
        let mut carol = network.host("carol").bind(0).unwrap();
        network.host("alice").set_upload(10_000, 100_000);
        let start = Instant::now();
        for _ in 0..5 {
            alice.send_to(&[0; 972], bob.local_addr());
            alice.send_to(&[0; 972], carol.local_addr());
        }
        bob.send_to(&[0; 972], carol.local_addr());
        let last = arrivals(&mut bob, start).await.last().map(|(_, _, at)| *at);
        assert_eq!(last, Some(ms(20 + 900)));
        let trace = network.trace();
        assert_eq!(trace.last().unwrap().outcome, Outcome::Arrives(ms(20)), "the others are not slowed");
        assert_eq!(arrivals(&mut carol, start).await.len(), 6);
    });
}

#[test]
fn a_cut_is_one_way_or_both_until_it_is_healed() {
    sim::run(10, |network| async move {
        let (mut alice, mut bob) = two_sockets(&network);
        network.link("alice", "bob").cut();
        alice.send_to(b"1", bob.local_addr());
        bob.send_to(b"2", alice.local_addr());
        assert!(hears(&mut alice, b"2").await && !hears(&mut bob, b"1").await);

        network.between("bob", "alice").cut();
        bob.send_to(b"3", alice.local_addr());
        assert!(!hears(&mut alice, b"3").await);

        network.links().heal();
        alice.send_to(b"4", bob.local_addr());
        bob.send_to(b"5", alice.local_addr());
        assert!(hears(&mut alice, b"5").await && hears(&mut bob, b"4").await);
        assert_eq!(network.traffic().lost, 2);
    });
}

#[test]
fn what_is_on_its_way_when_a_link_is_cut_arrives() {
    sim::run(11, |network| async move {
        let (alice, mut bob) = two_sockets(&network);
        alice.send_to(b"before", bob.local_addr());
        network.links().cut();
        alice.send_to(b"after", bob.local_addr());
        let arrived = arrivals(&mut bob, Instant::now()).await;
        assert_eq!(arrived.len(), 1);
        assert_eq!(arrived[0].0, b"before");
    });
}

#[test]
fn a_partition_separates_groups_and_leaves_those_within_one_alone() {
    sim::run(12, |network| async move {
        let names = ["a", "b", "c", "d"];
        let mut sockets: Vec<_> = names.iter().map(|name| network.host(name).bind(0).unwrap()).collect();
        network.partition(&[&["a", "b"], &["c"]]);
        let addresses: Vec<_> = sockets.iter().map(|socket| socket.local_addr()).collect();
        for socket in &sockets {
            addresses.iter().for_each(|to| socket.send_to(socket.local_addr().to_string().as_bytes(), *to));
        }
        let mut heard = Vec::new();
        for socket in &mut sockets {
            let arrived = arrivals(socket, Instant::now()).await;
            let mut from: Vec<_> = arrived
                .iter()
                .map(|(_, from, _)| names[addresses.iter().position(|other| other == from).unwrap()])
                .collect();
            from.sort_unstable();
            heard.push(from.concat());
        }
        assert_eq!(heard, ["abd", "abd", "cd", "abcd"]);
        network.links().heal();
        sockets[0].send_to(b"again", addresses[2]);
        assert!(hears(&mut sockets[2], b"again").await);
    });
}

#[test]
fn a_hook_chooses_what_is_lost_and_sees_who_sends_what_to_whom() {
    sim::run(13, |network| async move {
        let (alice, mut bob) = two_sockets(&network);
        network.drop_if(|datagram| {
            assert_eq!((datagram.from_host, datagram.to_host), ("alice", Some("bob")));
            datagram.kind() == DatagramKind::DtlsHandshake
        });
        alice.send_to(&[22, 254, 253, 0, 0], bob.local_addr());
        alice.send_to(&[23, 254, 253, 0, 1], bob.local_addr());
        assert!(hears(&mut bob, &[23, 254, 253, 0, 1]).await);
        let outcomes: Vec<_> = network.trace().iter().map(|record| record.outcome).collect();
        assert!(matches!(outcomes[..], [Outcome::Dropped(DropCause::Hook), Outcome::Arrives(_)]));
    });
}

#[test]
fn the_trace_names_who_what_when_and_why_and_is_bounded() {
    sim::run(14, |network| async move {
        let (alice, bob) = two_sockets(&network);
        network.links().jitter(ms(0));
        tokio::time::sleep(ms(1_500)).await;
        alice.send_to(&[0, 1, 0, 0], bob.local_addr());
        network.links().cut();
        alice.send_to(&[22, 254, 253, 0, 0], bob.local_addr());
        alice.send_to(b"?", "192.0.2.1:9".parse().unwrap());
        let lines: Vec<_> = network.trace().iter().map(ToString::to_string).collect();
        assert_eq!(
            lines,
            [
                "1.500 s  alice 198.18.0.1:49152 > bob 198.18.0.2:49152  STUN, 4 bytes: arrives at 1.520 s",
                "1.500 s  alice 198.18.0.1:49152 > bob 198.18.0.2:49152  DTLS handshake, 5 bytes: the link is cut",
                "1.500 s  alice 198.18.0.1:49152 > nobody 192.0.2.1:9  DTLS, 1 bytes: no way there",
            ]
        );
        for _ in 0..2 * TRACE_RECORDS {
            alice.send_to(b"x", bob.local_addr());
        }
        assert_eq!(network.trace().len(), TRACE_RECORDS);
    });
}

#[test]
fn what_nobody_reads_fills_the_buffer_and_no_more() {
    sim::run(15, |network| async move {
        let (alice, mut bob) = two_sockets(&network);
        for _ in 0..100 {
            alice.send_to(&[0; 60_000], bob.local_addr());
        }
        tokio::time::sleep(ms(100)).await;
        let fits = sim::RECEIVE_BUFFER_BYTES / 60_000;
        assert_eq!(network.traffic().overflowed, 100 - fits as u64);
        assert_eq!(arrivals(&mut bob, Instant::now()).await.len(), fits);
    });
}

#[test]
fn what_happens_to_one_link_does_not_shift_the_dice_of_another() {
    let fates = |busy: bool| {
        sim::run(16, |network| async move {
            network.links().loss(0.5);
            let (alice, mut bob) = two_sockets(&network);
            let carol = network.host("carol").bind(0).unwrap();
            network.nat(NatKind::FullCone).host("dora");
            for number in 0..100 {
                if busy {
                    carol.send_to(b"noise", bob.local_addr());
                    network.drop_if(|datagram| datagram.bytes == [3]);
                }
                alice.send_to(&[number], bob.local_addr());
            }
            let arrived = arrivals(&mut bob, Instant::now()).await;
            let mut numbers: Vec<_> = arrived
                .into_iter()
                .map(|(bytes, _, _)| bytes)
                .filter(|bytes| bytes.len() == 1 && *bytes != [3])
                .collect();
            numbers.sort();
            numbers
        })
    };
    assert_eq!(fates(false), fates(true));
}

#[test]
#[should_panic(expected = "the network has no host \"bod\"")]
fn a_misspelt_name_does_not_pass() {
    sim::run(17, |network| async move {
        network.host("bob");
        network.links_of("bod").cut();
    });
}

#[test]
#[should_panic(expected = "still running after 5s of virtual time")]
fn a_scenario_that_hangs_fails() {
    sim::run_within(ms(5_000), 18, |_| std::future::pending::<()>());
}
