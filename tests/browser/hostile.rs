//! Pages that break the rules: each ends alone, and the events of the others' meshes say why.

use std::time::{Duration, Instant};

use bytes::Bytes;
use serde_json::{Value, json};
use webrtc_mesh::{
    DisconnectReason, Mesh, MeshEvent, OutgoingPacket, PeerFailure, PeerId, Stage, TransferMode,
};

use crate::browsers::{Browser, Kind, Page};
use crate::member::Member;
use crate::site::Site;
use crate::support::*;

/// For those who never become connected; the others have it, too.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// How long one that was connected may be silent, beyond the 4 s in which ICE notices.
const GRACE: Duration = Duration::from_secs(1);

/// However busy the machine is: a packet of the others goes there and back in less.
const ROUND_TRIP: Duration = Duration::from_secs(3);

#[test]
fn pages_that_signal_garbage_or_vanish_fail_alone_and_with_the_stage_they_were_stuck_in() {
    if !Kind::Chromium.is_installed() {
        return;
    }
    promise(async {
        let browser = Browser::start(Kind::Chromium).await;
        let mut crowd = Crowd::gather(&browser).await;

        let (babbler, babbling) = crowd.hostile(&browser).await;
        babbler.call("() => babble()", Value::Null).await.unwrap();
        let (vanisher, vanishing) = crowd.hostile(&browser).await;
        let (closed, closing) = crowd.hostile(&browser).await;
        for page in [&vanisher, &closed] {
            for peer in crowd.ids() {
                let vanish = json!({ "peer": peer.get(), "vanishes": true });
                page.call("(options) => connect(options)", vanish).await.unwrap();
            }
        }
        closed.close().await;

        for of_one in [true, false] {
            for (bad, stuck_in) in [(babbling, Stage::Signaling), (vanishing, Stage::Ice)] {
                match crowd.event(of_one, |event| about(event) == Some(bad)).await {
                    MeshEvent::PeerFailed(_, PeerFailure::TimedOut { stage, after, .. }) => {
                        assert_eq!(stage, stuck_in);
                        assert!(after >= HANDSHAKE, "{after:?}");
                    }
                    other => panic!("{other:?}"),
                }
            }
        }
        // It left the signalling too, which is no failure.
        crowd.was_silent_about(closing);
        crowd.goes_on().await;
        crowd.part(browser).await;
    });
}

#[test]
fn pages_that_send_the_server_what_is_no_message_are_hung_up_on() {
    if !Kind::Chromium.is_installed() {
        return;
    }
    promise(async {
        let browser = Browser::start(Kind::Chromium).await;
        let mut crowd = Crowd::gather(&browser).await;
        for (frame, times, reason) in [
            (r#"{"type":99,"id":1,"data":""}"#, 1, "Invalid command"),
            ("\u{0}", 10, "Invalid message format"),
            ("x", 100_000, "Message too large"),
        ] {
            let (page, bad) = crowd.hostile(&browser).await;
            let frames = json!({ "frame": frame, "times": times });
            let answer = page.call("(frames) => rave(frames)", frames).await.unwrap();
            assert_eq!(answer["reason"], reason);
            crowd.goes_on().await;
            crowd.was_silent_about(bad);
            page.close().await;
        }
        crowd.part(browser).await;
    });
}

#[test]
fn a_page_that_sends_text_and_opens_channels_of_its_own_is_a_member_like_any_other() {
    if !Kind::Chromium.is_installed() {
        return;
    }
    promise(async {
        let browser = Browser::start(Kind::Chromium).await;
        let mut crowd = Crowd::gather(&browser).await;
        let (page, peer) = crowd.hostile(&browser).await;
        let ours = [(true, crowd.one.id()), (false, crowd.two.id())];
        let both = "(peers) => Promise.all(peers.map((peer) => connect({ peer })))";
        page.call(both, json!(ours.map(|(_, us)| us.get()))).await.unwrap();
        for (of_one, us) in ours {
            let connected = MeshEvent::PeerConnected(peer);
            assert_eq!(crowd.event(of_one, |event| about(event) == Some(peer)).await, connected);

            // We close what it opens; what is said on what we do not know of is heard by nobody.
            page.call("(peer) => openMore(peer)", json!(us.get())).await.unwrap();
            let text = "Ünïcödé, and more of it";
            page.call("(what) => speak(what)", json!({ "peer": us.get(), "text": text })).await.unwrap();
            let mut modes = Vec::new();
            for _ in 0..6 {
                let is_its =
                    |event: &MeshEvent| matches!(event, MeshEvent::Packet(packet) if packet.from == peer);
                let MeshEvent::Packet(packet) = crowd.event(of_one, is_its).await else { unreachable!() };
                assert_eq!(packet.payload, text.as_bytes());
                modes.push(packet.mode as u8);
            }
            modes.sort_unstable();
            assert_eq!(modes, [0, 0, 1, 1, 2, 2]);
            crowd.goes_on().await;
        }
        page.call("(peer) => hangUp(peer)", json!(crowd.one.id().get())).await.unwrap();
        let left = MeshEvent::PeerDisconnected(peer, DisconnectReason::RemoteClose);
        assert_eq!(crowd.event(true, |event| about(event) == Some(peer)).await, left);
        // Without a word.
        page.close().await;
        let lost = MeshEvent::PeerDisconnected(peer, DisconnectReason::ConnectionLost);
        assert_eq!(crowd.event(false, |event| about(event) == Some(peer)).await, lost);
        crowd.goes_on().await;
        crowd.part(browser).await;
    });
}

/// Firefox believes what it is told of the other side's limit; Chromium sends no more than 256 KiB to anybody. What is over
/// the limit is dropped below us, which nobody is told of; one that never fits stops what comes from this page.
#[test]
fn what_a_page_sends_beyond_the_limit_is_dropped_and_harms_nobody() {
    if !Kind::Firefox.is_installed() {
        return;
    }
    promise(async {
        let browser = Browser::start(Kind::Firefox).await;
        let mut crowd = Crowd::gather(&browser).await;
        let us = crowd.one.id();
        for (size, fits) in [(262_145, true), (1_000_000, true), (20_000_000, false)] {
            let (page, peer) = crowd.hostile(&browser).await;
            let lie = json!({ "peer": us.get(), "maxMessageBytes": 1 << 30 });
            page.call("(options) => connect(options)", lie).await.unwrap();
            let connected = MeshEvent::PeerConnected(peer);
            assert_eq!(crowd.event(true, |event| about(event) == Some(peer)).await, connected);
            let large = json!({ "peer": us.get(), "size": size });
            assert_eq!(page.call("(what) => sendLarge(what)", large).await.unwrap(), "sent");
            for _ in 0..20 {
                let text = json!({ "peer": us.get(), "text": "more" });
                page.call("(what) => speak(what)", text).await.unwrap();
                crowd.goes_on().await;
            }
            if fits {
                let MeshEvent::Packet(packet) = crowd.event(true, |event| says(event, peer)).await else {
                    unreachable!()
                };
                assert_eq!(packet.payload, "more");
            }
            page.call("(peer) => hangUp(peer)", json!(us.get())).await.unwrap();
            let left = MeshEvent::PeerDisconnected(peer, DisconnectReason::RemoteClose);
            assert_eq!(crowd.event(true, |event| about(event) == Some(peer)).await, left);
        }
        crowd.part(browser).await;
    });
}

/// Two meshes of ours and a page that behaves, in a lobby that others come to.
struct Crowd {
    site: Site,
    lobby: String,
    one: Mesh,
    two: Mesh,
    member: Member,
    page: PeerId,
    rounds: u32,
    /// What happened in the two meshes beside that.
    seen: [Vec<MeshEvent>; 2],
}

impl Crowd {
    async fn gather(browser: &Browser) -> Crowd {
        let site = Site::start().await;
        let build = || builder().handshake_limit(HANDSHAKE).grace(GRACE);
        let (one, lobby) = site.join("", build()).await;
        let (two, _) = site.join(&lobby, build()).await;
        let (_, mut member) = site.page(browser, &lobby, 2).await;
        let page = member.joined().await.id;
        let seen = [Vec::new(), Vec::new()];
        let mut crowd = Crowd { site, lobby, one, two, member, page, rounds: 0, seen };
        let [one, two] = [crowd.one.id(), crowd.two.id()];
        for (of_one, peers) in [(true, [two, page]), (false, [one, page])] {
            for peer in peers {
                crowd.event(of_one, |event| *event == MeshEvent::PeerConnected(peer)).await;
            }
        }
        crowd.goes_on().await;
        crowd
    }

    fn ids(&self) -> [PeerId; 3] {
        [self.one.id(), self.two.id(), self.page]
    }

    /// A page that has joined, and nothing more, and its id.
    async fn hostile(&self, browser: &Browser) -> (Page, PeerId) {
        let page = browser.open(&self.site.url("hostile")).await;
        let enter = json!({ "lobby": self.lobby, "others": 3 });
        let entered = page.call("(options) => enter(options)", enter).await.unwrap();
        (page, id(u32::try_from(entered["id"].as_u64().unwrap()).unwrap()))
    }

    /// Each of the two sends to the other, and to the page, which answers.
    async fn goes_on(&mut self) {
        self.rounds += 1;
        let [one_id, two_id, page] = self.ids();
        let said = Bytes::from(format!("round {}", self.rounds));
        for mode in TransferMode::ALL {
            let Crowd { one, two, seen: [of_one, of_two], .. } = self;
            for (mesh, to) in [(&*one, two_id), (&*one, page), (&*two, one_id), (&*two, page)] {
                mesh.handle().send(OutgoingPacket::new(to, mode, said.clone())).await.unwrap();
            }
            let round = async {
                tokio::join!(
                    hears(one, of_one, mode, &said, [two_id, page]),
                    hears(two, of_two, mode, &said, [one_id, page]),
                );
            };
            tokio::time::timeout(ROUND_TRIP, round).await.expect("the others are heard all the while");
        }
    }

    /// The first event of this kind in one of the two meshes, now or earlier; the others go on meanwhile.
    async fn event(&mut self, of_one: bool, is_it: impl Fn(&MeshEvent) -> bool) -> MeshEvent {
        let which = usize::from(!of_one);
        let until = Instant::now() + LIMIT;
        while Instant::now() < until {
            if let Some(place) = self.seen[which].iter().position(&is_it) {
                return self.seen[which].remove(place);
            }
            let mesh = if of_one { &mut self.one } else { &mut self.two };
            match tokio::time::timeout(Duration::from_millis(100), next(mesh)).await {
                Ok(event) => self.seen[which].push(event),
                Err(_) if self.rounds > 0 => self.goes_on().await,
                Err(_) => {}
            }
        }
        let seen: Vec<_> = self.seen[which].iter().filter_map(|event| about(event).map(|_| event)).collect();
        panic!("nothing of the kind, but {seen:?}");
    }

    fn was_silent_about(&self, peer: PeerId) {
        let mut seen = self.seen.iter().flatten();
        assert_eq!(seen.find(|event| about(event) == Some(peer)), None);
    }

    async fn part(mut self, browser: Browser) {
        self.member.leave().await;
        close_all(vec![self.two, self.one]).await;
        drop((self.member, browser));
        self.site.stop().await;
    }
}

/// Waits for this packet from each of these; what else comes is kept.
async fn hears(
    mesh: &mut Mesh,
    seen: &mut Vec<MeshEvent>,
    mode: TransferMode,
    payload: &Bytes,
    from: [PeerId; 2],
) {
    let mut missing = from.to_vec();
    while !missing.is_empty() {
        match next(mesh).await {
            MeshEvent::Packet(packet) if packet.mode == mode && packet.payload == payload => {
                missing.retain(|peer| *peer != packet.from);
            }
            event => seen.push(event),
        }
    }
}

/// Whom an event is about that is not a packet.
fn about(event: &MeshEvent) -> Option<PeerId> {
    match event {
        MeshEvent::PeerConnected(peer)
        | MeshEvent::PeerFailed(peer, _)
        | MeshEvent::PeerDisconnected(peer, _) => Some(*peer),
        _ => None,
    }
}

fn says(event: &MeshEvent, peer: PeerId) -> bool {
    matches!(event, MeshEvent::Packet(packet) if packet.from == peer)
}
