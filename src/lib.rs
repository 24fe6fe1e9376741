//! wip

pub mod signaling;

mod connection;
mod error;
mod event;
mod id;
mod mesh;
mod packet;
mod peer;

pub use connection::{
    ConnectionState, IceCandidate, IceServer, PeerConnection, PeerConnectionConfig, SdpKind,
    SessionDescription, Signal, SignalStream, UnreliableLifetime,
};
pub use error::{
    AddPeerError, ConnectionError, JoinError, SendError, SignalingError, TrySendError, UnknownPeer,
};
pub use event::{DisconnectReason, MeshEvent, PeerFailure, Stage};
pub use id::{InvalidPeerId, PeerId, Target};
pub use mesh::{
    ChannelInfo, ConnectionStatus, Mesh, MeshBuilder, MeshHandle, MeshSink, MeshStream, PeerInfo,
};
pub use packet::{InvalidTransferMode, OutgoingPacket, Packet, TransferMode};
pub use signaling::{Signaling, SignalingEvent};
