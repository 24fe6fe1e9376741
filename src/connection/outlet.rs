//! The way out of a socket, for the driver and for what is sent again.
//!
//! A socket without room remembers one task to wake, the last that asked. The driver waits for room; a repeat that asked
//! after it would have the wake to itself, and the driver would stand still. So repeats do not wait, and whoever is
//! remembered for them, it is the driver that is woken.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};

use futures::task::AtomicWaker;
use webrtc::runtime::{AsyncUdpSocket, Transmit};

/// Goes to the socket, and knows who waits for it.
#[derive(Debug)]
pub(super) struct Outlet {
    pub(super) socket: Arc<dyn AsyncUdpSocket>,
    waits: Arc<Waits>,
}

#[derive(Debug, Default)]
struct Waits(AtomicWaker);

impl Wake for Waits {
    fn wake(self: Arc<Self>) {
        self.0.wake();
    }
}

impl Outlet {
    pub(super) fn new(socket: Arc<dyn AsyncUdpSocket>) -> Outlet {
        Outlet { socket, waits: Arc::default() }
    }

    /// Sends, or wakes the driver when there is room.
    pub(super) fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(sent) = self.socket.poll_send(cx, transmit) {
            return Poll::Ready(sent);
        }
        self.waits.0.register(cx.waker());
        // There may have been room before that.
        self.socket.poll_send(cx, transmit)
    }

    /// Sends if there is room.
    pub(super) fn try_send(&self, datagram: &[u8], to: SocketAddr) -> io::Result<()> {
        let transmit =
            Transmit { destination: to, ecn: None, contents: datagram, segment_size: None, src_ip: None };
        let waker = Waker::from(self.waits.clone());
        match self.socket.poll_send(&mut Context::from_waker(&waker), &transmit) {
            Poll::Ready(sent) => sent.map(drop),
            Poll::Pending => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::io::IoSliceMut;
    use std::net::Ipv4Addr;
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::time::{Duration, timeout};
    use webrtc::runtime::RecvMeta;

    use super::*;

    /// A socket with so much room, which remembers whom to wake as the kernel's do.
    #[derive(Debug, Default)]
    struct Narrow {
        room: AtomicUsize,
        waits: Mutex<Option<Waker>>,
        sent: AtomicUsize,
    }

    impl Narrow {
        fn make_room(&self) {
            self.room.fetch_add(1, Ordering::AcqRel);
            let waits = self.waits.lock().unwrap().take();
            if let Some(waits) = waits {
                waits.wake();
            }
        }
    }

    impl AsyncUdpSocket for Narrow {
        fn local_addr(&self) -> io::Result<SocketAddr> {
            Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, 1)))
        }

        fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
            *self.waits.lock().unwrap() = Some(cx.waker().clone());
            let takes =
                self.room.fetch_update(Ordering::AcqRel, Ordering::Acquire, |room| room.checked_sub(1));
            if takes.is_err() {
                return Poll::Pending;
            }
            self.sent.fetch_add(1, Ordering::AcqRel);
            Poll::Ready(Ok(transmit.contents.len()))
        }

        fn poll_recv(
            &self,
            _: &mut Context<'_>,
            _: &mut [IoSliceMut<'_>],
            _: &mut [RecvMeta],
        ) -> Poll<io::Result<usize>> {
            Poll::Pending
        }
    }

    #[tokio::test]
    async fn the_driver_that_waits_for_room_is_woken_whoever_has_asked_since() {
        let socket = Arc::new(Narrow::default());
        let outlet = Arc::new(Outlet::new(socket.clone()));
        let to = socket.local_addr().unwrap();
        let driver = tokio::spawn({
            let outlet = outlet.clone();
            let transmit = move || Transmit {
                destination: to,
                ecn: None,
                contents: b"1",
                segment_size: None,
                src_ip: None,
            };
            async move { poll_fn(|cx| outlet.poll_send(cx, &transmit())).await.unwrap() }
        });
        tokio::task::yield_now().await;
        outlet.try_send(b"again", to).unwrap();
        assert_eq!(socket.sent.load(Ordering::Acquire), 0, "no room");
        assert!(!driver.is_finished());
        socket.make_room();
        assert_eq!(timeout(Duration::from_secs(5), driver).await.unwrap().unwrap(), 1);

        socket.make_room();
        outlet.try_send(b"again", to).unwrap();
        assert_eq!(socket.sent.load(Ordering::Acquire), 2);
    }
}
