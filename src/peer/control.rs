//! What two members of this crate say to each other on the control channel (SCTP stream 1023, reliable, ordered).
//!
//! One frame is one message: a byte that names it, then its fields, numbers in network byte order. A frame may be
//! longer than this release knows (a later one added fields: they are ignored), and a name may be unknown (the frame
//! is ignored); one that is too short breaks the protocol.
//!
//! | name | frame | fields |
//! |---|---|---|
//! | 1 | [`Hello`](Frame::Hello) | version u8, credit u64, steady u8, socket u32 |
//! | 2 | [`Credit`](Frame::Credit) | credit u64, received u64, pause u8 |
//! | 3 | [`Goodbye`](Frame::Goodbye) | sent u64, received u64 |
//! | 4 | [`GoodbyeAck`](Frame::GoodbyeAck) | received u64 |
//! | 5 | [`Probe`](Frame::Probe) | number u64 |
//! | 6 | [`Echo`](Frame::Echo) | number u64, received u64 |
//! | 7 | [`Closing`](Frame::Closing) | |
//! | 8 | [`Relay`](Frame::Relay) | to u32, the rest |
//! | 9 | [`Relayed`](Frame::Relayed) | from u32, the rest |

use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};

use crate::connection::MIN_MESSAGE_BYTES;

/// A message of the control channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Frame {
    /// The channels of the sender are open. The DTLS client says it first, as only then is it ready to receive.
    Hello {
        /// The version of this protocol that the sender speaks.
        version: u8,
        /// How much reliable payload it takes before it says more, as in [`Frame::Credit`].
        credit: u64,
        /// Its clock is not ahead of time, so a lone packet is acknowledged after a while only.
        steady: bool,
        /// How many bytes of datagrams its socket holds for it; 0 if that is not known.
        socket_bytes: u32,
    },
    /// The sender's reader goes on.
    Credit {
        /// The sum of the [`cost`] of all reliable packets since the beginning that it takes.
        credit: u64,
        /// How many reliable packets it has received.
        received: u64,
        /// Whether its queue of unreliable packets is full, so that more would be shed there.
        pause: bool,
    },
    /// The sender leaves; this many reliable packets are all that it sent.
    Goodbye {
        /// Reliable packets sent.
        sent: u64,
        /// How many it has received: for a remote that leaves too.
        received: u64,
    },
    /// All reliable packets that the remote said goodbye with have arrived.
    GoodbyeAck {
        /// Reliable packets received.
        received: u64,
    },
    /// Asks whether the sender's remote is there, and how much has arrived.
    Probe {
        /// Any number.
        number: u64,
    },
    /// The reply to a probe.
    Echo {
        /// The probe's number.
        number: u64,
        /// Reliable packets received.
        received: u64,
    },
    /// The sender has its acknowledgement and closes. Through a TURN relay the close itself is not heard.
    Closing,
    /// To be handed on to another peer, as a [`Frame::Relayed`]; or not, if there is no such peer, or too much of it.
    Relay {
        /// The id of that peer.
        to: u32,
        /// What the two know the meaning of.
        body: Bytes,
    },
    /// What another peer has asked the sender to hand on.
    Relayed {
        /// The id of that peer, as the sender knows it.
        from: u32,
        /// What the two know the meaning of.
        body: Bytes,
    },
}

/// The longest body that is relayed: a description with the candidates of some fifty addresses.
pub(crate) const MAX_RELAYED_BYTES: usize = 16 * 1024;
const _: () = assert!(5 + MAX_RELAYED_BYTES <= MIN_MESSAGE_BYTES);

/// What a packet counts for in credits and queue bounds: its bytes, and what holding it costs beside them. So a
/// queue of empty packets is bounded too.
pub(crate) fn cost(payload_bytes: usize) -> usize {
    payload_bytes + PACKET_OVERHEAD_BYTES
}

const PACKET_OVERHEAD_BYTES: usize = 64;

/// A control message that breaks the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("an empty control message")]
    Empty,
    #[error("control message {0} is cut short")]
    Short(u8),
    #[error("control message {0} is too long")]
    Long(u8),
}

impl Frame {
    pub(crate) fn encode(&self) -> Bytes {
        let mut out = BytesMut::with_capacity(24);
        match *self {
            Frame::Hello { version, credit, steady, socket_bytes } => {
                out.put_u8(1);
                out.put_u8(version);
                out.put_u64(credit);
                out.put_u8(steady.into());
                out.put_u32(socket_bytes);
            }
            Frame::Credit { credit, received, pause } => {
                out.put_u8(2);
                out.put_u64(credit);
                out.put_u64(received);
                out.put_u8(pause.into());
            }
            Frame::Goodbye { sent, received } => {
                out.put_u8(3);
                out.put_u64(sent);
                out.put_u64(received);
            }
            Frame::GoodbyeAck { received } => {
                out.put_u8(4);
                out.put_u64(received);
            }
            Frame::Probe { number } => {
                out.put_u8(5);
                out.put_u64(number);
            }
            Frame::Echo { number, received } => {
                out.put_u8(6);
                out.put_u64(number);
                out.put_u64(received);
            }
            Frame::Closing => out.put_u8(7),
            Frame::Relay { to: peer, ref body } | Frame::Relayed { from: peer, ref body } => {
                out.put_u8(if matches!(self, Frame::Relay { .. }) { 8 } else { 9 });
                out.put_u32(peer);
                out.put_slice(body);
            }
        }
        out.freeze()
    }

    /// `None` is a frame of a later release.
    pub(crate) fn decode(mut message: &[u8]) -> Result<Option<Frame>, FrameError> {
        let name = message.try_get_u8().map_err(|_| FrameError::Empty)?;
        if matches!(name, 8 | 9) && message.len() > 4 + MAX_RELAYED_BYTES {
            return Err(FrameError::Long(name));
        }
        Frame::decode_fields(name, message).map_err(|_| FrameError::Short(name))
    }

    fn decode_fields(name: u8, mut fields: &[u8]) -> Result<Option<Frame>, bytes::TryGetError> {
        Ok(Some(match name {
            1 => Frame::Hello {
                version: fields.try_get_u8()?,
                credit: fields.try_get_u64()?,
                steady: fields.try_get_u8()? != 0,
                socket_bytes: fields.try_get_u32()?,
            },
            2 => Frame::Credit {
                credit: fields.try_get_u64()?,
                received: fields.try_get_u64()?,
                pause: fields.try_get_u8()? != 0,
            },
            3 => Frame::Goodbye { sent: fields.try_get_u64()?, received: fields.try_get_u64()? },
            4 => Frame::GoodbyeAck { received: fields.try_get_u64()? },
            5 => Frame::Probe { number: fields.try_get_u64()? },
            6 => Frame::Echo { number: fields.try_get_u64()?, received: fields.try_get_u64()? },
            7 => Frame::Closing,
            8 => Frame::Relay { to: fields.try_get_u32()?, body: Bytes::copy_from_slice(fields) },
            9 => Frame::Relayed { from: fields.try_get_u32()?, body: Bytes::copy_from_slice(fields) },
            _ => return Ok(None),
        }))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn any_frame() -> impl Strategy<Value = Frame> {
        prop_oneof![
            (any::<u8>(), any::<u64>(), any::<bool>(), any::<u32>()).prop_map(
                |(version, credit, steady, socket_bytes)| Frame::Hello {
                    version,
                    credit,
                    steady,
                    socket_bytes
                }
            ),
            (any::<u64>(), any::<u64>(), any::<bool>()).prop_map(|(credit, received, pause)| Frame::Credit {
                credit,
                received,
                pause
            }),
            (any::<u64>(), any::<u64>()).prop_map(|(sent, received)| Frame::Goodbye { sent, received }),
            any::<u64>().prop_map(|received| Frame::GoodbyeAck { received }),
            any::<u64>().prop_map(|number| Frame::Probe { number }),
            (any::<u64>(), any::<u64>()).prop_map(|(number, received)| Frame::Echo { number, received }),
            Just(Frame::Closing),
            (any::<u32>(), any::<Vec<u8>>()).prop_map(|(to, body)| Frame::Relay { to, body: body.into() }),
            (any::<u32>(), any::<Vec<u8>>())
                .prop_map(|(from, body)| Frame::Relayed { from, body: body.into() }),
        ]
    }

    proptest! {
        #[test]
        fn what_is_encoded_is_decoded(frame in any_frame()) {
            prop_assert_eq!(Frame::decode(&frame.encode()), Ok(Some(frame)));
        }

        #[test]
        fn fields_of_a_later_release_are_ignored(frame in any_frame(), more in any::<Vec<u8>>()) {
            prop_assume!(!matches!(frame, Frame::Relay { .. } | Frame::Relayed { .. }), "they end with the rest");
            let message = [&frame.encode()[..], &more].concat();
            prop_assert_eq!(Frame::decode(&message), Ok(Some(frame)));
        }

        #[test]
        fn a_frame_cut_short_is_an_error(frame in any_frame(), keep in 0usize..24) {
            let message = frame.encode();
            let fixed = if matches!(frame, Frame::Relay { .. } | Frame::Relayed { .. }) { 5 } else { 24 };
            prop_assume!(keep < message.len().min(fixed));
            prop_assert!(Frame::decode(&message[..keep]).is_err());
        }

        #[test]
        fn garbage_never_panics(message in any::<Vec<u8>>()) {
            let _ = Frame::decode(&message);
        }
    }

    #[test]
    fn a_frame_of_a_later_release_is_ignored() {
        assert_eq!(Frame::decode(&[200, 1, 2, 3]), Ok(None));
        assert_eq!(Frame::decode(&[]), Err(FrameError::Empty));
        assert_eq!(Frame::decode(&[3, 0]), Err(FrameError::Short(3)));
        assert_eq!(
            Frame::decode(&[&[9][..], &[0; 4 + MAX_RELAYED_BYTES + 1]].concat()),
            Err(FrameError::Long(9))
        );
    }
}
