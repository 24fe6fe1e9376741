//! Whatever happens, in any order: the state and the inbox, run together as the mesh's task runs them, are compared
//! with a model that says the same in sets, and what the owner reads keeps every promise that the events make.

#[path = "model.rs"]
mod model;
#[path = "promises.rs"]
mod promises;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::task::{Context, Poll};

use proptest::prelude::*;

use self::model::{Model, Told};
use self::promises::{Put, Story};
use super::{failed, id};
use crate::error::UnknownPeer;
use crate::event::{DisconnectReason, MeshEvent};
use crate::mesh::inbox::{Inbox, Lane};
use crate::mesh::state::{ConnectionStatus, Effect, State};
use crate::packet::TransferMode;
use crate::peer::{Delivery as _, Exit, Farewell, Life};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(768))]

    #[test]
    fn whatever_happens_the_owner_reads_a_story_that_keeps_every_promise(
        own in prop_oneof![Just(1), Just(3), Just(9)],
        server_compatibility in prop::bool::weighted(0.7),
        max_peers in prop_oneof![Just(3), Just(9)],
        steps in prop::collection::vec(any_step(), 0..120),
    ) {
        let mut world = World::new(own, server_compatibility, max_peers);
        for step in steps {
            world.live_through(step);
        }
        promises::all_are_kept(&world.end());
    }
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Add(u32),
    Open(u32),
    AddAndOpen(u32),
    /// No connection could be made for it.
    FailUnborn(u32),
    Waver(u32, bool),
    End(u32, Ending),
    Remove(u32, Farewell),
    ServerGoesAndReturns,
    Refuse(bool),
    Close,
    Deliver(u32, TransferMode),
    Read(usize),
    /// What a task says when the mesh has heard its end already.
    Ghost(u32),
}

/// How a task ends that nobody told to leave.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Lost,
    LeftByTheRemote,
    Silent,
}

fn any_step() -> impl Strategy<Value = Step> {
    let peer = || 1u32..=5;
    let mode = prop::sample::select(&TransferMode::ALL[..]);
    let ending = prop_oneof![Just(Ending::Lost), Just(Ending::LeftByTheRemote), Just(Ending::Silent)];
    prop_oneof![
        6 => peer().prop_map(Step::Add),
        8 => peer().prop_map(Step::Open),
        4 => peer().prop_map(Step::AddAndOpen),
        1 => peer().prop_map(Step::FailUnborn),
        3 => (peer(), any::<bool>()).prop_map(|(peer, unstable)| Step::Waver(peer, unstable)),
        5 => (peer(), ending).prop_map(|(peer, ending)| Step::End(peer, ending)),
        2 => (peer(), prop_oneof![Just(Farewell::Removed), Just(Farewell::Replaced)])
            .prop_map(|(peer, farewell)| Step::Remove(peer, farewell)),
        1 => Just(Step::ServerGoesAndReturns),
        1 => prop::bool::weighted(0.2).prop_map(Step::Refuse),
        1 => Just(Step::Close),
        16 => (peer(), mode).prop_map(|(peer, mode)| Step::Deliver(peer, mode)),
        8 => (1usize..8).prop_map(Step::Read),
        3 => peer().prop_map(Step::Ghost),
    ]
}

/// The mesh's task and the tasks of its peers, as far as state and inbox are concerned.
struct World {
    state: State,
    inbox: Arc<Inbox>,
    model: Model,
    tasks: BTreeMap<u32, Task>,
    ghosts: Vec<Task>,
    last_life: u64,
    refuses: bool,
    /// As the handles see it.
    status: ConnectionStatus,
    story: Story,
}

struct Task {
    peer: u32,
    life: Life,
    lane: Arc<Lane>,
    open: bool,
    leaving: Option<Farewell>,
}

/// Room for three unreliable packets.
const UNRELIABLE_BOUND: usize = 3 * (64 + 16);

impl World {
    fn new(own: u32, server_compatibility: bool, max_peers: usize) -> World {
        let state = State::new(id(own), server_compatibility, max_peers);
        let model = Model::new(own, server_compatibility, max_peers);
        let story = Story { gated: model.gated, ..Story::default() };
        World {
            status: state.status(),
            state,
            inbox: Arc::default(),
            model,
            tasks: BTreeMap::new(),
            ghosts: Vec::new(),
            last_life: 0,
            refuses: false,
            story,
        }
    }

    fn live_through(&mut self, step: Step) {
        match step {
            Step::Add(peer) => self.add(peer),
            Step::Open(peer) => self.open(peer),
            Step::AddAndOpen(peer) => {
                self.add(peer);
                self.open(peer);
            }
            Step::FailUnborn(peer) => self.fail_unborn(peer),
            Step::Waver(peer, unstable) => self.waver(peer, unstable),
            Step::End(peer, ending) => self.end_task(peer, ending),
            Step::Remove(peer, farewell) => self.remove(peer, farewell),
            Step::ServerGoesAndReturns => {
                self.end_task(1, Ending::LeftByTheRemote);
                self.add(1);
                self.open(1);
            }
            Step::Refuse(refuses) => self.refuses = refuses,
            Step::Close => self.close(),
            Step::Deliver(peer, mode) => self.deliver(peer, mode),
            Step::Read(events) => self.read(events),
            Step::Ghost(which) => self.haunt(which),
        }
        assert_eq!(self.state.status(), self.status);
        assert_eq!(self.state.is_over(), self.model.closing && self.tasks.is_empty());
    }

    /// The mesh closes, everyone goes, and everything is read.
    fn end(mut self) -> Story {
        self.close();
        for peer in 1..=5 {
            self.end_task(peer, Ending::LeftByTheRemote);
        }
        assert!(self.state.is_over());
        self.inbox.finish();
        self.read(usize::MAX);
        self.nothing_is_left_in_the_inbox();
        self.nothing_comes_after_the_end();
        self.story
    }

    fn nothing_is_left_in_the_inbox(&self) {
        assert!(self.inbox.is_over());
        for ghost in &self.ghosts {
            assert_eq!(Arc::strong_count(&ghost.lane), 1, "the inbox keeps the lane of {:?}", ghost.life);
        }
        for peer in 1..=5 {
            assert!(self.inbox.admits(id(peer)), "a life of {peer} counts as unread");
        }
    }

    fn nothing_comes_after_the_end(&mut self) {
        (0..5).for_each(|which| self.haunt(which));
        for _ in 0..2 {
            assert_eq!(
                self.inbox.poll_next(&mut Context::from_waker(std::task::Waker::noop())),
                Poll::Ready(None)
            );
        }
    }

    fn add(&mut self, peer: u32) {
        let may = self.state.check_add(id(peer), self.refuses);
        assert_eq!(may, self.model.may_add(peer, self.refuses));
        if may.is_err() || !self.inbox.admits(id(peer)) {
            return;
        }
        let life = self.next_life();
        let lane = self.inbox.lane(life, id(peer), UNRELIABLE_BOUND);
        self.tasks.insert(peer, Task { peer, life, lane, open: false, leaving: None });
        self.state.add(id(peer), life);
        self.model.members.insert(peer);
    }

    fn fail_unborn(&mut self, peer: u32) {
        if self.state.check_add(id(peer), false).is_err() {
            return;
        }
        let life = self.next_life();
        self.state.add(id(peer), life);
        self.model.members.insert(peer);
        let told = self.model.ended(peer, &failed());
        self.decide(told, |state, effects| state.ended(id(peer), life, failed(), effects));
    }

    fn open(&mut self, peer: u32) {
        let Some(task) = self.tasks.get_mut(&peer).filter(|task| !task.open) else { return };
        task.open = true;
        let life = task.life;
        let told = self.model.opened(peer);
        self.decide(told, |state, effects| state.opened(id(peer), life, effects));
    }

    fn waver(&mut self, peer: u32, unstable: bool) {
        let Some(task) = self.tasks.get(&peer).filter(|task| task.open) else { return };
        let life = task.life;
        let told = self.model.wavered(peer, unstable);
        self.decide(told, |state, effects| state.wavered(id(peer), life, unstable, effects));
    }

    fn end_task(&mut self, peer: u32, ending: Ending) {
        let Some(task) = self.tasks.remove(&peer) else { return };
        let life = task.life;
        let exit = match (task.open, task.leaving, ending) {
            (true, Some(Farewell::Removed), Ending::Silent) => Exit::Disconnected(DisconnectReason::Removed),
            (true, Some(_), _) => Exit::Disconnected(DisconnectReason::Unconfirmed { packets: life.0 }),
            (true, None, Ending::LeftByTheRemote) => Exit::Disconnected(DisconnectReason::RemoteClose),
            (true, None, _) => Exit::Disconnected(DisconnectReason::ConnectionLost),
            (false, None, Ending::Lost | Ending::LeftByTheRemote) => failed(),
            // It failed before it heard that it is to leave.
            (false, Some(_), Ending::Lost) => failed(),
            (false, _, _) => Exit::Silent,
        };
        self.ghosts.push(task);
        let told = self.model.ended(peer, &exit);
        self.decide(told, |state, effects| state.ended(id(peer), life, exit, effects));
    }

    fn remove(&mut self, peer: u32, farewell: Farewell) {
        let known = self.tasks.contains_key(&peer);
        let told = self.model.remove(peer, farewell);
        self.decide(told, |state, effects| {
            let removed = state.remove(id(peer), farewell, effects);
            assert_eq!(removed, if known { Ok(()) } else { Err(UnknownPeer(id(peer))) });
        });
    }

    fn close(&mut self) {
        let told = self.model.close();
        self.decide(told, State::close);
    }

    fn deliver(&mut self, peer: u32, mode: TransferMode) {
        let Some(task) = self.tasks.get(&peer) else { return };
        let delivered = self.story.delivered.entry(task.life).or_default();
        task.lane.deliver(mode, promises::stamped(task.life, delivered.len()).into());
        delivered.push(mode);
    }

    /// What comes from a life that has ended is heard by nobody.
    fn haunt(&mut self, which: u32) {
        if self.ghosts.is_empty() {
            return;
        }
        let ghost = &self.ghosts[which as usize % self.ghosts.len()];
        let (peer, life) = (id(ghost.peer), ghost.life);
        for mode in TransferMode::ALL {
            ghost.lane.deliver(mode, promises::stamped(life, usize::MAX).into());
            ghost.lane.shed(mode, 1);
        }
        self.decide(Vec::new(), |state, effects| {
            state.opened(peer, life, effects);
            state.wavered(peer, life, true, effects);
            state.ended(peer, life, failed(), effects);
        });
    }

    fn read(&mut self, events: usize) {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        for _ in 0..events {
            let Poll::Ready(Some(event)) = self.inbox.poll_next(&mut cx) else { return };
            self.story.read.push(event);
        }
    }

    /// Lets the state decide, compares that with what the model says, and acts as the mesh's task does.
    fn decide(&mut self, told: Vec<Told>, act: impl FnOnce(&mut State, &mut Vec<Effect>)) {
        let mut effects = Vec::new();
        act(&mut self.state, &mut effects);
        assert_eq!(effects.iter().filter_map(Told::of).collect::<Vec<_>>(), told);
        for effect in effects {
            self.perform(effect);
        }
    }

    fn perform(&mut self, effect: Effect) {
        let inbox = &self.inbox;
        match effect {
            Effect::Status(status) => self.status = status,
            Effect::Emit(event) => {
                inbox.event(event.clone());
                self.put(event);
            }
            Effect::Open(..) => {}
            Effect::Announce(life, peer) => {
                inbox.announce(life, peer);
                self.story.announced.push(life);
                self.put(MeshEvent::PeerConnected(peer));
            }
            Effect::End(life, peer, Exit::Failed(failure)) => {
                inbox.fail(life, peer, failure.clone());
                self.put(MeshEvent::PeerFailed(peer, failure));
            }
            Effect::End(life, peer, Exit::Disconnected(reason)) => {
                inbox.end(life, peer, reason.clone());
                self.put(MeshEvent::PeerDisconnected(peer, reason));
            }
            Effect::End(_, peer, Exit::Silent) => panic!("{peer} was connected, and goes without a reason"),
            Effect::Forget(life, _) => inbox.forget(life),
            Effect::Leave(life, farewell) => {
                let task = self.tasks.values_mut().find(|task| task.life == life).unwrap();
                task.leaving.get_or_insert(farewell);
            }
        }
    }

    fn put(&mut self, event: MeshEvent) {
        self.story.put.push(Put { event, status: self.status, closing: self.model.closing });
    }

    fn next_life(&mut self) -> Life {
        self.last_life += 1;
        Life(self.last_life)
    }
}
