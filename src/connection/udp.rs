//! The UDP socket below a connection: on Linux, with tokio and a real network, one of our own, else the runtime's.

use std::fmt;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};

use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;

/// First, which one it is, and then what each turn looks at.
#[allow(clippy::large_enum_variant, reason = "where there is the large one, most are")]
#[repr(u8)]
pub(super) enum UdpSocket {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    Linux(linux::UdpSocket),
    Other(Arc<dyn AsyncUdpSocket>),
}

impl UdpSocket {
    /// Registers with the tokio runtime of the task that calls.
    pub(super) fn of_tokio(socket: std::net::UdpSocket) -> io::Result<UdpSocket> {
        #[cfg(any(target_os = "linux", target_os = "android"))]
        return Ok(UdpSocket::Linux(linux::UdpSocket::new(socket)?));
        #[cfg(not(any(target_os = "linux", target_os = "android")))]
        return Ok(UdpSocket::Other(webrtc::runtime::Runtime::wrap_udp_socket(
            &webrtc::runtime::TokioRuntime,
            socket,
        )?));
    }

    /// What was received last is known to be all that there was.
    pub(super) fn is_drained(&self) -> bool {
        match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            UdpSocket::Linux(socket) => socket.is_drained(),
            UdpSocket::Other(_) => false,
        }
    }

    fn any(&self) -> &dyn AsyncUdpSocket {
        match self {
            #[cfg(any(target_os = "linux", target_os = "android"))]
            UdpSocket::Linux(socket) => socket,
            UdpSocket::Other(socket) => &**socket,
        }
    }
}

impl fmt::Debug for UdpSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.any().fmt(f)
    }
}

impl AsyncUdpSocket for UdpSocket {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.any().local_addr()
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        self.any().poll_send(cx, transmit)
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        self.any().poll_recv(cx, bufs, meta)
    }

    fn max_gso_segments(&self) -> usize {
        self.any().max_gso_segments()
    }

    fn max_gro_segments(&self) -> usize {
        self.any().max_gro_segments()
    }
}
