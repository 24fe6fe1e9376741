//! What the benchmarks share: the two that are measured, as one sees them from outside ([`End`], [`Input`]), the jobs
//! that they are given, and what becomes of the figures.

#![allow(dead_code, unreachable_pub, reason = "no benchmark needs all of it")]
#![allow(clippy::expect_used, clippy::panic, reason = "a broken link ends the benchmark")]
#![allow(clippy::print_stdout, reason = "the tables")]

pub mod bare;
pub mod figures;
pub mod jobs;
pub mod machine;
pub mod meshes;
pub mod plot;
pub mod report;

use std::future::Future;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::future::join_all;
use tokio::sync::{Barrier, mpsc};
use webrtc_mesh::TransferMode;

/// A hub with a link to each of some ends. A mesh is a hub by itself; the bare crate has a connection for each end.
pub struct Star<E> {
    pub hub: Vec<E>,
    pub ends: Vec<E>,
}

/// Where packets come out.
pub trait End: Sized + Send + 'static {
    type Input: Input;
    /// What the two sides of a link must hand each other for it to come up.
    type Signal: Send + 'static;

    /// A hub, with a link over each of the wires.
    fn hub(wires: Vec<Wire<Self::Signal>>) -> impl Future<Output = Vec<Self>> + Send;
    /// What is at the other end of the so-manieth wire.
    fn end(index: usize, wire: Wire<Self::Signal>) -> impl Future<Output = Self> + Send;

    fn input(&self) -> Self::Input;
    /// The next packet, which is of this mode. Cancel-safe.
    fn take(&mut self, mode: TransferMode) -> impl Future<Output = Bytes> + Send;
    fn close(self) -> impl Future<Output = ()> + Send;
}

/// Where packets go in.
pub trait Input: Clone + Send + Sync + 'static {
    /// Waits for room.
    fn put(&self, mode: TransferMode, payload: BytesMut) -> impl Future<Output = ()> + Send;
    /// Does not; `false` if the packet was refused.
    fn offer(&self, mode: TransferMode, payload: BytesMut) -> impl Future<Output = bool> + Send;
}

/// Links to so many ends, one after the other.
pub async fn star<E: End>(ends: usize) -> Star<E> {
    let (ours, theirs): (Vec<_>, Vec<_>) = (0..ends).map(|_| wire()).unzip();
    let others = theirs.into_iter().enumerate().map(|(index, wire)| E::end(index, wire));
    let (hub, ends) = tokio::join!(E::hub(ours), join_all(others));
    Star { hub, ends }
}

impl<E: End> Star<E> {
    pub async fn close(self) {
        join_all(self.hub.into_iter().chain(self.ends).map(End::close)).await;
    }
}

/// Signalling between the two sides of a link.
pub struct Wire<T> {
    pub to: mpsc::UnboundedSender<T>,
    pub from: mpsc::UnboundedReceiver<T>,
    made: Arc<Barrier>,
}

pub fn wire<T>() -> (Wire<T>, Wire<T>) {
    let (one, from_one) = mpsc::unbounded_channel();
    let (two, from_two) = mpsc::unbounded_channel();
    let made = Arc::new(Barrier::new(2));
    (Wire { to: one, from: from_two, made: made.clone() }, Wire { to: two, from: from_one, made })
}

impl<T> Wire<T> {
    /// Waits until both sides have their connections.
    pub async fn made(&self) {
        self.made.wait().await;
    }

    pub fn say(&self, signal: T) {
        // Nobody listens once the other side has gone.
        let _ = self.to.send(signal);
    }
}

/// Payloads that their receiver can check: a number, then the same byte again and again, and at the end the last byte of
/// the number.
#[derive(Clone)]
pub struct Payload(Bytes);

impl Payload {
    pub fn new(bytes: usize) -> Payload {
        assert!(bytes > 8, "there is room for the number");
        Payload(Bytes::from(vec![7; bytes]))
    }

    /// The one copy that a sender makes, whichever it is.
    pub fn make(&self, number: u64) -> BytesMut {
        let mut payload = BytesMut::from(&self.0[..]);
        payload[..8].copy_from_slice(&number.to_le_bytes());
        let last = payload.len() - 1;
        payload[last] = number as u8;
        payload
    }

    /// The number of what was received.
    pub fn number(&self, payload: &[u8]) -> u64 {
        assert_eq!(payload.len(), self.0.len(), "a packet of another length");
        let mut number = [0; 8];
        number.copy_from_slice(&payload[..8]);
        let number = u64::from_le_bytes(number);
        assert_eq!(payload[payload.len() - 1], number as u8, "a packet has changed on its way");
        number
    }
}
