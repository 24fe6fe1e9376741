//! What the events promise to whoever reads them, each promise a function over the whole story of a mesh. They say what
//! must not happen; that what should happen does, is for the model to say.

use std::collections::{BTreeMap, BTreeSet};

use crate::event::MeshEvent;
use crate::id::PeerId;
use crate::mesh::state::ConnectionStatus;
use crate::packet::{Packet, TransferMode};
use crate::peer::Life;

pub(super) fn all_are_kept(story: &Story) {
    what_was_put_is_what_is_read(story);
    every_disconnected_has_its_connected(story);
    no_packet_comes_outside_the_two(story);
    no_reliable_packet_is_lost_or_out_of_order(story);
    an_unreliable_packet_is_read_in_its_order_or_counted(story);
    who_recovers_was_unstable(story);
    the_status_never_contradicts_the_events(story);
    nobody_is_announced_while_the_gate_is_shut(story);
    what_the_server_does_is_said_of_the_connection_too(story);
}

/// Everything that its owner could see of a mesh.
#[derive(Debug, Default)]
pub(super) struct Story {
    pub(super) gated: bool,
    pub(super) put: Vec<Put>,
    pub(super) read: Vec<MeshEvent>,
    /// The lives that were announced, in this order.
    pub(super) announced: Vec<Life>,
    /// The packets of each life, by their modes, in the order of arrival.
    pub(super) delivered: BTreeMap<Life, Vec<TransferMode>>,
}

/// What the state told the owner, and what could be seen at that moment.
#[derive(Debug)]
pub(super) struct Put {
    pub(super) event: MeshEvent,
    pub(super) status: ConnectionStatus,
    pub(super) closing: bool,
}

fn what_was_put_is_what_is_read(story: &Story) {
    let put: Vec<_> = story.put.iter().map(|put| &put.event).collect();
    let is_traffic = |event: &MeshEvent| matches!(event, MeshEvent::Packet(_) | MeshEvent::Lagged { .. });
    let read: Vec<_> = story.read.iter().filter(|event| !is_traffic(event)).collect();
    assert_eq!(read, put);
}

fn every_disconnected_has_its_connected(story: &Story) {
    let mut connected = BTreeSet::new();
    for event in &story.read {
        match event {
            MeshEvent::PeerConnected(peer) => assert!(connected.insert(*peer), "{peer} is connected twice"),
            MeshEvent::PeerDisconnected(peer, _) => {
                assert!(connected.remove(peer), "{peer} was not connected");
            }
            MeshEvent::PeerFailed(peer, _) => assert!(!connected.contains(peer), "{peer} was connected"),
            _ => {}
        }
    }
    assert!(connected.is_empty(), "{connected:?} never were disconnected");
}

fn no_packet_comes_outside_the_two(story: &Story) {
    let mut connected = BTreeSet::new();
    for event in &story.read {
        match event {
            MeshEvent::PeerConnected(peer) => _ = connected.insert(*peer),
            MeshEvent::PeerDisconnected(peer, _) => _ = connected.remove(peer),
            MeshEvent::Packet(Packet { from: peer, .. }) | MeshEvent::Lagged { peer, .. } => {
                assert!(connected.contains(peer), "{event:?} comes while {peer} is not connected");
            }
            _ => {}
        }
    }
}

fn no_reliable_packet_is_lost_or_out_of_order(story: &Story) {
    for chapter in chapters(story) {
        let delivered = chapter.delivered(story, TransferMode::Reliable);
        assert_eq!(chapter.read(TransferMode::Reliable), delivered, "of {:?}", chapter.life);
    }
}

fn an_unreliable_packet_is_read_in_its_order_or_counted(story: &Story) {
    for chapter in chapters(story) {
        assert!(chapter.packets.is_sorted_by_key(|(_, number)| number), "{chapter:?}");
        for mode in [TransferMode::Unreliable, TransferMode::UnreliableOrdered] {
            let delivered = chapter.delivered(story, mode).len() as u64;
            let read = chapter.read(mode).len() as u64;
            assert_eq!(read + chapter.dropped[mode as usize], delivered, "{chapter:?}");
        }
    }
}

fn who_recovers_was_unstable(story: &Story) {
    let mut unstable = BTreeSet::new();
    for event in &story.read {
        match event {
            MeshEvent::PeerUnstable(peer) => assert!(unstable.insert(*peer), "{peer} is unstable twice"),
            MeshEvent::PeerRecovered(peer) => assert!(unstable.remove(peer), "{peer} was stable"),
            MeshEvent::PeerDisconnected(peer, _) => _ = unstable.remove(peer),
            _ => {}
        }
    }
}

/// And it is changed before the event is told.
fn the_status_never_contradicts_the_events(story: &Story) {
    let mut server_is_connected = false;
    for Put { event, status, closing } in &story.put {
        match event {
            MeshEvent::ConnectionSucceeded => server_is_connected = true,
            MeshEvent::PeerDisconnected(peer, _) if peer.is_server() => server_is_connected = false,
            _ => {}
        }
        let should_be_connected = !closing && (!story.gated || server_is_connected);
        assert_eq!(*status == ConnectionStatus::Connected, should_be_connected, "{status:?} at {event:?}");
    }
}

fn nobody_is_announced_while_the_gate_is_shut(story: &Story) {
    let mut open = !story.gated;
    for event in &story.read {
        match event {
            MeshEvent::ConnectionSucceeded => open = true,
            MeshEvent::PeerDisconnected(peer, _) if peer.is_server() => open = !story.gated,
            MeshEvent::PeerConnected(_) => assert!(open, "{event:?} while the gate is shut"),
            _ => {}
        }
    }
}

fn what_the_server_does_is_said_of_the_connection_too(story: &Story) {
    let server = PeerId::SERVER;
    let before = |at: usize| at.checked_sub(1).map(|before| &story.put[before].event);
    let after = |at: usize| story.put.get(at + 1).map(|put| &put.event);
    for (at, Put { event, closing, .. }) in story.put.iter().enumerate() {
        match event {
            MeshEvent::ConnectionSucceeded => assert_eq!(after(at), Some(&MeshEvent::PeerConnected(server))),
            MeshEvent::ConnectionFailed(why) => {
                assert_eq!(before(at), Some(&MeshEvent::PeerFailed(server, why.clone())));
            }
            MeshEvent::ServerDisconnected => {
                assert!(matches!(before(at), Some(MeshEvent::PeerDisconnected(peer, _)) if *peer == server));
            }
            MeshEvent::PeerConnected(peer) if story.gated && *peer == server => {
                assert_eq!(before(at), Some(&MeshEvent::ConnectionSucceeded));
            }
            MeshEvent::PeerFailed(peer, why) if story.gated && *peer == server => {
                assert_eq!(after(at), Some(&MeshEvent::ConnectionFailed(why.clone())));
            }
            MeshEvent::PeerDisconnected(peer, _) if story.gated && *peer == server && !closing => {
                assert_eq!(after(at), Some(&MeshEvent::ServerDisconnected));
            }
            _ => {}
        }
    }
}

/// What was read of one life.
#[derive(Debug)]
struct Chapter {
    life: Life,
    /// Each with its number in the order of arrival.
    packets: Vec<(TransferMode, usize)>,
    /// By mode.
    dropped: [u64; 3],
}

fn chapters(story: &Story) -> Vec<Chapter> {
    let mut announced = story.announced.iter();
    let mut open = BTreeMap::new();
    let mut told = Vec::new();
    for event in &story.read {
        match event {
            MeshEvent::PeerConnected(peer) => {
                let life = *announced.next().unwrap();
                open.insert(*peer, Chapter { life, packets: Vec::new(), dropped: [0; 3] });
            }
            MeshEvent::PeerDisconnected(peer, _) => told.extend(open.remove(peer)),
            MeshEvent::Packet(packet) => {
                let chapter = open.get_mut(&packet.from).unwrap();
                let (life, number) = stamp_of(packet);
                assert_eq!(life, chapter.life, "a packet of another life");
                chapter.packets.push((packet.mode, number));
            }
            MeshEvent::Lagged { peer, mode, dropped } => {
                open.get_mut(peer).unwrap().dropped[*mode as usize] += dropped;
            }
            _ => {}
        }
    }
    told
}

impl Chapter {
    fn read(&self, mode: TransferMode) -> Vec<usize> {
        self.packets.iter().filter(|packet| packet.0 == mode).map(|packet| packet.1).collect()
    }

    fn delivered(&self, story: &Story, mode: TransferMode) -> Vec<usize> {
        let delivered = story.delivered.get(&self.life).into_iter().flatten();
        delivered.enumerate().filter(|packet| *packet.1 == mode).map(|packet| packet.0).collect()
    }
}

/// A packet that says which life it is of, and its number there.
pub(super) fn stamped(life: Life, number: usize) -> Vec<u8> {
    [life.0.to_be_bytes(), (number as u64).to_be_bytes()].concat()
}

fn stamp_of(packet: &Packet) -> (Life, usize) {
    let read = |bytes: &[u8]| u64::from_be_bytes(bytes.try_into().unwrap());
    let (life, number) = packet.payload.split_at(8);
    (Life(read(life)), usize::try_from(read(number)).unwrap())
}
