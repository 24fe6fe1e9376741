//! Pages and meshes of ours in one lobby, alone and with other stacks.

use std::time::{Duration, Instant};

use serde_json::json;
use webrtc_mesh::signaling::godot::Generation;
use webrtc_mesh::{DisconnectReason, Mesh, TransferMode};

use crate::browsers::{Browser, Kind};
use crate::exchange::{self, converse, welcome};
use crate::member::{Member, Stack};
use crate::site::{Site, join_in};
use crate::support::*;

/// How soon it is noticed that a page is closed.
const NOTICED: Duration = Duration::from_secs(2);

/// The largest message that a page takes from ours, and ours from a page.
const MOST: usize = 262_144;

const SIZES: [usize; 8] = [0, 1, 1_199, 1_200, 1_201, 16_384, 65_535, 65_536];

#[test]
fn two_pages_of_chromium_and_two_meshes_of_ours_are_one_mesh() {
    are_one_mesh(Kind::Chromium);
}

#[test]
fn two_pages_of_firefox_and_two_meshes_of_ours_are_one_mesh() {
    are_one_mesh(Kind::Firefox);
}

fn are_one_mesh(kind: Kind) {
    if !kind.is_installed() {
        return;
    }
    promise(async move {
        let began = Instant::now();
        let browser = Browser::start(kind).await;
        println!("{kind}: started after {:?}", began.elapsed());
        let site = Site::start().await;
        let (one, lobby) = site.join("", builder()).await;
        let (anna, mut at_anna) = site.page(&browser, &lobby, 3).await;
        let (two, _) = site.join(&lobby, builder()).await;
        let (bert, mut at_bert) = site.page(&browser, &lobby, 3).await;
        let guests = [at_anna.guest(false).await, at_bert.guest(false).await];
        let mut meshes = [one, two];
        let [one, two] = meshes.each_ref().map(Mesh::id);
        let [anna_id, bert_id] = guests.map(|guest| guest.id);

        let began = Instant::now();
        let (of_anna, of_bert) = ([one, two, bert_id], [one, two, anna_id]);
        let they_are_done = async {
            tokio::join!(at_anna.met(&of_anna), at_bert.met(&of_bert));
        };
        converse(&mut meshes, &guests, they_are_done).await;
        println!("{kind}: every pair, all modes both ways, after {:?}", began.elapsed());

        let began = Instant::now();
        for mesh in &mut meshes {
            for member in [&mut at_anna, &mut at_bert] {
                let peer = member.joined().await.id;
                let sent = in_time(exchange::sizes(mesh, peer, MOST, true)).await;
                assert_eq!(member.digest_for(mesh.id()).await, sent);
                for mode in [TransferMode::UnreliableOrdered, TransferMode::Unreliable] {
                    in_time(exchange::sizes_once(mesh, peer, mode, &SIZES)).await;
                }
            }
        }
        let climb = json!({ "peer": bert_id.get(), "sizes": SIZES });
        anna.call("(options) => climb(options)", climb).await.unwrap();
        println!("{kind}: messages of all sizes after {:?}", began.elapsed());

        let began = Instant::now();
        bert.close().await;
        at_anna.disconnected_from(bert_id).await;
        for mesh in &mut meshes {
            assert_eq!(exchange::end_of(mesh, bert_id).await, DisconnectReason::RemoteClose);
        }
        println!("{kind}: a closed page noticed after {:?}", began.elapsed());
        assert!(began.elapsed() < NOTICED, "{:?}", began.elapsed());

        let began = Instant::now();
        anna.reload().await;
        for mesh in &mut meshes {
            assert_eq!(exchange::end_of(mesh, anna_id).await, DisconnectReason::RemoteClose);
        }
        let mut at_anna = join_in(&anna, &lobby, 2).await;
        let again = [at_anna.guest(false).await];
        welcome(&mut meshes, &again, at_anna.met(&[one, two])).await;
        println!("{kind}: a page that is loaded anew is a member again after {:?}", began.elapsed());
        assert_ne!(again[0].id, anna_id);

        // The host goes last.
        at_anna.leave().await;
        for mesh in &mut meshes {
            assert_eq!(exchange::end_of(mesh, again[0].id).await, DisconnectReason::RemoteClose);
        }
        let [one, two] = meshes;
        close_all(vec![two, one]).await;
        drop((at_anna, anna, at_bert, browser));
        site.stop().await;
    });
}

/// The server gives a client a second to join, in which a page may have other things to do.
#[test]
fn a_page_that_was_too_busy_to_join_in_time_joins_all_the_same() {
    if !Kind::Chromium.is_installed() {
        return;
    }
    promise(async {
        let browser = Browser::start(Kind::Chromium).await;
        let site = Site::start().await;
        let (mut mesh, lobby) = site.join("", builder()).await;
        let page = browser.open(&site.url("")).await;
        // The next thing after the connecting.
        let busy = "() => {
            const Original = WebSocket;
            window.WebSocket = class extends Original {
                constructor(url) {
                    super(url);
                    window.WebSocket = Original;
                    const until = performance.now() + 2500;
                    setTimeout(() => { while (performance.now() < until); });
                }
            };
        }";
        page.call(busy, serde_json::Value::Null).await.unwrap();
        let mut member = join_in(&page, &lobby, 1).await;
        let guest = member.guest(false).await;
        let us = [mesh.id()];
        let met = member.met(&us);
        converse(std::slice::from_mut(&mut mesh), &[guest], met).await;
        close_all(vec![mesh]).await;
        drop((member, page, browser));
        site.stop().await;
    });
}

#[test]
fn every_pair_of_two_meshes_of_ours_a_page_aiortc_and_werift_understands_each_other() {
    let all = [Stack::Aiortc, Stack::Werift].into_iter().all(Stack::is_installed);
    if !Kind::Chromium.is_installed() || !all {
        return;
    }
    promise(async {
        let browser = Browser::start(Kind::Chromium).await;
        let site = Site::start().await;
        let (one, lobby) = site.join("", builder()).await;
        let process = |stack| Member::start(stack, &site.signaling_url(), &lobby, Generation::Godot4, 4);
        let [mut aiortc, mut werift] = [Stack::Aiortc, Stack::Werift].map(process);
        let (page, mut at_page) = site.page(&browser, &lobby, 4).await;
        let (two, _) = site.join(&lobby, builder()).await;
        let guests = [aiortc.guest(true).await, werift.guest(true).await, at_page.guest(false).await];

        let began = Instant::now();
        let mut meshes = [one, two];
        let ours = meshes.each_ref().map(Mesh::id);
        let others = |but: usize| {
            let guests = guests.iter().enumerate().filter(|(place, _)| *place != but);
            ours.into_iter().chain(guests.map(|(_, guest)| guest.id)).collect::<Vec<_>>()
        };
        let they_are_done = async {
            let (of_aiortc, of_werift, of_page) = (others(0), others(1), others(2));
            tokio::join!(aiortc.met(&of_aiortc), werift.met(&of_werift), at_page.met(&of_page));
        };
        converse(&mut meshes, &guests, they_are_done).await;
        println!("every pair after {:?}", began.elapsed());

        for (member, guest) in [&mut aiortc, &mut werift, &mut at_page].into_iter().zip(guests) {
            member.leave().await;
            for mesh in &mut meshes {
                assert_eq!(exchange::end_of(mesh, guest.id).await, DisconnectReason::RemoteClose);
            }
        }
        let [one, two] = meshes;
        close_all(vec![two, one]).await;
        drop((at_page, page, browser));
        site.stop().await;
    });
}
