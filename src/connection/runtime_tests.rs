use std::io::IoSliceMut;
use std::task::{Context, Poll, Waker};

use webrtc::runtime::{RecvMeta, TokioRuntime, Transmit};

use super::super::clock::Remote;
use super::super::handshake::APPLICATION_DATA;
use super::socket::{INDICATION, is_channel_bind};
use super::*;

/// A socket from which there is always more to take, and with so much room.
#[derive(Debug, Default)]
struct Endless {
    room: AtomicUsize,
    /// The lengths of what was sent, and of the datagrams in it.
    sent: Mutex<Vec<(usize, Option<usize>)>>,
}

impl AsyncUdpSocket for Endless {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(NOBODY)
    }

    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let room = self.room.load(Ordering::Relaxed);
        if room == 0 {
            return Poll::Pending;
        }
        self.room.store(room - 1, Ordering::Relaxed);
        lock(&self.sent).push((transmit.contents.len(), transmit.segment_size));
        Poll::Ready(Ok(transmit.contents.len()))
    }

    fn poll_recv(
        &self,
        _: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        bufs[0].fill(APPLICATION_DATA);
        (meta[0].len, meta[0].stride) = (bufs[0].len(), 1200);
        Poll::Ready(Ok(1))
    }

    fn max_gso_segments(&self) -> usize {
        64
    }
}

/// Tokio, with such a socket for each.
#[derive(Debug, Default)]
struct Base(Arc<Endless>);

impl Runtime for Base {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        TokioRuntime.spawn(future)
    }

    fn wrap_udp_socket(&self, _: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        Ok(self.0.clone())
    }

    fn wrap_tcp_listener(&self, listener: std::net::TcpListener) -> io::Result<Arc<dyn AsyncTcpListener>> {
        TokioRuntime.wrap_tcp_listener(listener)
    }

    fn connect_tcp<'a>(&'a self, to: SocketAddr) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        TokioRuntime.connect_tcp(to)
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        TokioRuntime.yield_now()
    }

    fn name(&self) -> &'static str {
        "endless"
    }
}

/// Does this as a connection's driver, with its runtime, its socket, and what is below that.
async fn drives<F: Future<Output = ()> + Send + 'static>(
    act: impl FnOnce(Arc<ConnectionRuntime>, Arc<dyn AsyncUdpSocket>, Arc<Endless>) -> F,
) {
    let endless = Arc::new(Endless::default());
    let base: Arc<dyn Runtime> = Arc::new(Base(endless.clone()));
    drives_on(base, Kind::Other, |runtime, socket| act(runtime, socket, endless)).await;
}

/// The same, on this one.
async fn drives_on<F: Future<Output = ()> + Send + 'static>(
    base: Arc<dyn Runtime>,
    kind: Kind,
    act: impl FnOnce(Arc<ConnectionRuntime>, Arc<dyn AsyncUdpSocket>) -> F,
) {
    let watched = Watched {
        record: Arc::new(Record::new(false)),
        servers: Arc::new(ServerWatch::new(Vec::new(), false, false)),
        clock: Arc::new(Clock::new(base.clone(), false)),
        on_no_relay: Arc::new(|_| {}),
        on_heard: Arc::new(|_| {}),
    };
    let runtime = ConnectionRuntime::new(base, kind, Arc::default(), Arc::new(|| {}), watched);
    let socket = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let socket = runtime.wrap_udp_socket(socket).unwrap();
    let acts = act(runtime.clone(), socket);
    runtime.driver().spawned(Box::pin(acts), Box::new(())).await;
}

#[tokio::test]
async fn the_driver_is_told_one_time_for_each_turn() {
    drives(|runtime, _, _| async move {
        let later = |than: Instant| while Instant::now() <= than {};
        let told = runtime.now();
        later(Instant::now());
        assert_eq!(runtime.now(), told);
        drop(runtime.sleep(Duration::from_secs(1)));
        later(Instant::now());
        let next = runtime.now();
        assert!(next > told, "another turn");
        later(Instant::now());
        tokio::task::yield_now().await;
        assert!(runtime.now() > next, "it has waited");
    })
    .await;
}

#[cfg(any(target_os = "linux", target_os = "android"))]
#[tokio::test]
async fn what_comes_after_all_was_received_is_for_the_next_turn() {
    let base: Arc<dyn Runtime> = Arc::new(TokioRuntime);
    drives_on(base, Kind::Tokio, |runtime, socket| async move {
        let there = std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut buf = vec![0; 64 * 1024];
        let mut receive = async |wait: bool| {
            let mut meta = [RecvMeta::default()];
            let received = poll_fn(|cx| {
                let received = socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta);
                if wait { received.map(|_| true) } else { Poll::Ready(received.is_ready()) }
            });
            tokio::time::timeout(Duration::from_secs(5), received).await.unwrap()
        };
        let to = socket.local_addr().unwrap();
        for _ in 0..3 {
            there.send_to(&[APPLICATION_DATA; 100], to).unwrap();
            drop(runtime.sleep(Duration::from_secs(1)));
            assert!(receive(true).await);
            there.send_to(&[APPLICATION_DATA; 100], to).unwrap();
            assert!(!receive(false).await, "it was all that there was");
            drop(runtime.sleep(Duration::from_secs(1)));
            assert!(receive(true).await);
        }
    })
    .await;
}

#[tokio::test]
async fn a_turn_ends_when_enough_was_taken_and_the_next_goes_on() {
    drives(|runtime, socket, _| async move {
        let mut buf = vec![0; 64 * 1024];
        let mut takes = || {
            let mut cx = Context::from_waker(Waker::noop());
            let mut meta = [RecvMeta::default()];
            socket.poll_recv(&mut cx, &mut [IoSliceMut::new(&mut buf)], &mut meta).is_ready()
        };
        for _ in 0..3 {
            assert_eq!((0..10).filter(|_| takes()).count(), MAX_TURN_BYTES / (64 * 1024));
            drop(runtime.sleep(Duration::from_secs(1)));
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_gathered_leaves_at_the_end_of_the_turn_or_while_the_driver_sleeps() {
    drives(|runtime, socket, below| async move {
        let mut cx = Context::from_waker(Waker::noop());
        let mut sends = || {
            let transmit = Transmit {
                destination: NOBODY,
                ecn: None,
                contents: &[APPLICATION_DATA; 1000],
                segment_size: None,
                src_ip: None,
            };
            assert!(socket.poll_send(&mut cx, &transmit).is_ready());
        };
        let left = || std::mem::take(&mut *lock(&below.sent));
        below.room.store(2, Ordering::Relaxed);
        (0..3).for_each(|_| sends());
        assert_eq!(left(), [(1000, None)]);
        drop(runtime.sleep(Duration::from_secs(1)));
        assert_eq!(left(), [(2000, Some(1000))]);

        below.room.store(1, Ordering::Relaxed);
        (0..2).for_each(|_| sends());
        assert_eq!(left(), [(1000, None)]);
        let mut cx = Context::from_waker(Waker::noop());
        let mut sleep = runtime.sleep(Duration::from_secs(1));
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        assert_eq!(left(), [], "no room");
        below.room.store(1, Ordering::Relaxed);
        assert!(sleep.as_mut().poll(&mut cx).is_pending());
        assert_eq!(left(), [(1000, None)]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_acknowledgements_of_a_stranger_do_not_wait_as_its_cipher_is_not_known() {
    for (is_member, calls) in [(true, 1), (false, 2)] {
        drives(move |runtime, socket, below| async move {
            let (clock, now) = (&runtime.watched.clock, runtime.base.now());
            below.room.store(100, Ordering::Relaxed);
            runtime.progress.set_open(now.checked_sub(OPENING * 2).unwrap());
            if is_member {
                runtime.progress.set_among_us();
            }
            clock.open(Remote::Member);
            clock.asked([7; 12], now);
            assert!(clock.answered(&[7; 12], now));
            let sends = |bytes: usize| {
                let transmit = Transmit {
                    destination: NOBODY,
                    ecn: None,
                    contents: &vec![APPLICATION_DATA; bytes],
                    segment_size: None,
                    src_ip: None,
                };
                assert!(socket.poll_send(&mut Context::from_waker(Waker::noop()), &transmit).is_ready());
            };
            (0..2).for_each(|_| sends(200));
            drop(runtime.sleep(Duration::from_secs(1)));
            lock(&below.sent).clear();
            sends(65);
            sends(200);
            assert_eq!(lock(&below.sent).len(), calls);
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn an_acknowledgement_waits_for_a_packet_but_not_for_long_and_not_if_it_must_not_be_lost() {
    drives(|runtime, socket, below| async move {
        let (clock, progress, base) = (&runtime.watched.clock, &runtime.progress, &runtime.base);
        let sends = |datagram: &[u8]| {
            let transmit = Transmit {
                destination: NOBODY,
                ecn: None,
                contents: datagram,
                segment_size: (datagram.len() > 1200).then_some(1200),
                src_ip: None,
            };
            let sent = socket.poll_send(&mut Context::from_waker(Waker::noop()), &transmit);
            assert_eq!(sent.is_ready(), below.room.load(Ordering::Relaxed) > 0);
            std::mem::take(&mut *lock(&below.sent))
        };
        let (packet, acknowledgement) = ([APPLICATION_DATA; 200], [APPLICATION_DATA; 65]);
        let (leaves, waits) = ([(65, None)], []);
        let turn = || drop(runtime.sleep(Duration::from_secs(1)));
        below.room.store(1000, Ordering::Relaxed);
        progress.set_open(base.now());
        sends(&packet);
        turn();
        assert_eq!(sends(&acknowledgement), leaves, "nobody knows how near the remote is");
        clock.open(Remote::Member);
        clock.asked([7; 12], base.now());
        assert!(clock.answered(&[7; 12], base.now()));
        progress.set_among_us();
        sends(&packet);
        turn();
        assert_eq!(sends(&acknowledgement), leaves, "it has just been opened");

        tokio::time::advance(OPENING * 2).await;
        (0..2).for_each(|_| drop(sends(&packet)));
        turn();
        assert_eq!(sends(&acknowledgement), waits);
        assert_eq!(sends(&packet), [(265, Some(200))]);
        assert_eq!(sends(&acknowledgement), waits);
        below.room.store(0, Ordering::Relaxed);
        assert_eq!(sends(&packet), []);
        below.room.store(1000, Ordering::Relaxed);
        assert_eq!(sends(&packet), [(265, Some(200))], "there is room now");
        // The last words of DTLS are shorter, and of many datagrams it would be the last.
        assert_eq!(sends(&acknowledgement), waits);
        assert_eq!(sends(&[21; 39]), [(65, None), (39, None)]);
        sends(&packet);
        assert_eq!(sends(&acknowledgement), waits);
        assert_eq!(sends(&[APPLICATION_DATA; 4800]), [(65, None), (4800, Some(1200))]);

        // On its way to a relay it is a part of what leaves.
        let mut relayed = INDICATION.to_vec();
        relayed[1] = 0x16;
        relayed[3] = 72;
        relayed.extend_from_slice(&[0, 0x13, 0, 65]);
        relayed.extend_from_slice(&acknowledgement);
        relayed.extend_from_slice(&[0; 3]);
        assert_eq!(sends(&relayed), [(92, None)]);

        sends(&packet);
        assert_eq!(sends(&acknowledgement), waits);
        let waited = base.now();
        runtime.sleep(Duration::from_secs(1)).await;
        assert!(base.now() - waited <= Duration::from_millis(21), "{:?}", base.now() - waited);
        turn();
        assert_eq!(std::mem::take(&mut *lock(&below.sent)), leaves, "no packet came along");
        sends(&packet);
        assert_eq!(sends(&acknowledgement), leaves, "none waits for a while");

        tokio::time::advance(Duration::from_secs(1)).await;
        sends(&packet);
        turn();
        progress.resume(base.now());
        assert_eq!(sends(&acknowledgement), leaves, "the remote may be at its last try");
        tokio::time::advance(RECOVERY * 2).await;
        progress.set_closing();
        sends(&packet);
        turn();
        assert_eq!(sends(&acknowledgement).len(), FAREWELLS);
    })
    .await;
}

#[test]
fn only_a_relayed_link_takes_more_turns_and_only_as_long_as_there_is_something_to_do() {
    let progress = Progress::default();
    let turns = || {
        let again = progress.turns_again();
        if again {
            progress.turned.store(true, Ordering::Release);
        }
        again
    };
    assert!(!turns());
    progress.sends(&[0x40, 1, 0, 0]);
    for _ in 0..2 {
        assert!((0..RELAY_TURNS).all(|_| turns()));
        assert!(!turns(), "a sleep, and then something wakes it");
    }
    progress.sends(&INDICATION);
    assert!(turns(), "a check tells nothing");
    progress.sends(&[APPLICATION_DATA]);
    assert!(!turns(), "the link is direct");
    progress.sends(&[0, 0x16, 0, 0]);
    assert!(turns());
}

#[test]
fn after_a_silence_and_after_each_pause_that_follows_what_leaves_is_sent_again() {
    let (progress, start) = (Progress::default(), Instant::now());
    progress.set_open(start);
    // How many of ten datagrams are.
    let repeated = |millis| {
        let now = start + Duration::from_millis(millis);
        (0..10).filter(|_| progress.repeats_data(100, || now).is_some()).count()
    };
    let hears = |millis| progress.hears_data(|| start + Duration::from_millis(millis));
    assert_eq!(repeated(10_000), 0);
    hears(10_000);
    progress.resume(start + Duration::from_secs(11));
    assert_eq!(repeated(11_500), usize::from(RESUMING));
    for millis in (12_000..13_000).step_by(100) {
        hears(millis);
        assert_eq!(repeated(millis + 10), 0, "no pause");
    }
    hears(13_400);
    let large = start + Duration::from_millis(13_410);
    assert_eq!(progress.repeats_data(1000, || large), None, "no acknowledgement");
    assert_eq!(repeated(13_410), usize::from(ACKNOWLEDGING));
    hears(14_000);
    assert_eq!(repeated(16_500), 0, "too late");
    hears(42_000);
    assert_eq!(repeated(42_000), 0, "long after the silence");
    let mut all = 0;
    for second in (43..70).step_by(2) {
        progress.resume(start + Duration::from_secs(second));
        repeated(second * 1000);
        for millis in [100, 600, 1100] {
            hears(second * 1000 + millis);
            all += repeated(second * 1000 + millis);
        }
    }
    assert_eq!(all, usize::from(MAX_ACKNOWLEDGING), "no more in half a minute, however often it is silent");
}

#[test]
fn the_opening_is_repeated_until_the_hello_is_acknowledged_and_no_longer() {
    let (progress, start) = (Progress::default(), Instant::now());
    let repeats = |bytes, millis| progress.repeats_data(bytes, || start + Duration::from_millis(millis));
    assert_eq!(repeats(100, 0), Some(Until::Greeted));
    assert_eq!(repeats(1000, 0), None, "no part of an opening");
    progress.set_open(start);
    assert_eq!(repeats(100, 10), Some(Until::Greeted));
    assert!(!progress.is_calm());
    progress.end_opening();
    assert_eq!(repeats(100, 20), None);
    assert!(progress.is_calm());
    progress.resume(start + Duration::from_secs(1));
    assert_eq!(repeats(100, 1010), Some(Until::TheLast), "after a silence it is another matter");
}

#[test]
fn a_request_for_a_channel_is_told_from_everything_else() {
    let mut request = INDICATION;
    assert!(!is_channel_bind(&request));
    request[1] = 9;
    assert!(is_channel_bind(&request));
    request[4] = 0;
    assert!(!is_channel_bind(&request) && !is_channel_bind(&[]) && !is_channel_bind(&[0, 9]));
}

#[test]
fn what_waits_for_whoever_has_taken_the_driver_leaves_when_there_is_room_and_not_after_that() {
    let progress = Arc::new(Progress::default());
    let socket = Arc::new(Endless::default());
    let outlet = Arc::new(Outlet::new(UdpSocket::Other(socket.clone()), progress.clone()));
    let now = Instant::now();
    let waits =
        || progress.rider.takes(&[APPLICATION_DATA; 65], NOBODY, &outlet, || Duration::from_millis(20), now);
    let place = Arc::new(Driver::default());
    let _home = place.spawned(Box::pin(std::future::pending()), Box::new(()));
    assert!(!waits(), "nobody would send it");
    let taken = place.take(&progress).unwrap();
    assert!(waits());
    taken.send_waiting();
    assert!(lock(&socket.sent).is_empty());
    socket.room.store(10, Ordering::Relaxed);
    taken.send_waiting();
    assert_eq!(*lock(&socket.sent), [(65, None)]);
    assert!(waits());
    drop(taken);
    assert_eq!(lock(&socket.sent).len(), 2);
    assert!(!waits());
}
