//! What the README tells to try: the browser example, as a program of its own, and two windows of a browser.

use serde_json::{Value, json};

use crate::browsers::{Browser, Kind, Page};
use crate::support::program::{Program, example};
use crate::support::promise;

#[test]
fn two_windows_of_chromium_share_the_space_and_chat_with_the_program() {
    share_the_space(Kind::Chromium);
}

#[test]
fn two_windows_of_firefox_share_the_space_and_chat_with_the_program() {
    share_the_space(Kind::Firefox);
}

fn share_the_space(kind: Kind) {
    if !kind.is_installed() {
        return;
    }
    promise(async move {
        let (program, url) = start("127.0.0.1:0");
        let browser = Browser::start(kind).await;
        let anna = visit(&browser, &url, "anna").await;
        let bert = visit(&browser, &url, "bert").await;
        program.prints("is here");
        program.prints("is here");
        anna.shows("#peers", "bert").await;
        anna.shows("#peers", "Ferris").await;
        bert.shows("#peers", "anna").await;

        say(&anna, "is anybody there?").await;
        program.prints("): is anybody there?");
        bert.shows("#log", "is anybody there?").await;
        say(&bert, "/help").await;
        bert.shows("#log", "/peers: who is here, as I see it.").await;

        let counting = "() => {
            window.seen = {};
            mesh.addEventListener('packet', ({ detail: { from, mode } }) => {
                const seen = (window.seen[from] ??= {});
                seen[mode] = (seen[mode] ?? 0) + 1;
            });
        }";
        anna.call(counting, Value::Null).await.unwrap();
        let bert_id = bert.call("() => mesh.id", Value::Null).await.unwrap();
        bert.draw(&[(100, 200), (150, 250), (200, 200), (250, 250)]).await;
        let seen = "async (id) => {
            const enough = () => seen[id]?.ordered > 2 && seen[id]?.unreliable > 2 && seen[1]?.unreliable > 2;
            for (let tries = 0; !enough(); tries++) {
                if (tries > 1000) throw new Error(JSON.stringify(seen));
                await new Promise((resolve) => setTimeout(resolve, 10));
            }
        }";
        anna.call(seen, bert_id).await.unwrap();
        anna.shows("#cursors", "bert").await;
        say(&anna, "/peers").await;
        anna.shows("#log", "bert (").await;

        bert.close().await;
        program.prints("left: the remote left");
        anna.shows("#log", "bert is gone: the peer has left").await;
        anna.reload().await;
        program.prints("left: the remote left");
        anna.shows("#peers", "Ferris").await;
        let carl = visit(&browser, &url, "carl").await;
        anna.shows("#peers", "carl").await;
        carl.shows("#peers", "anna").await;

        // Without the program they have each other; when it is back, they are in its lobby anew.
        assert!(program.interrupted().success());
        // Of its host, who has left, or of its server, which ends with the program: whoever is told first.
        anna.shows("#status", "whoever is here stays").await;
        say(&anna, "still there?").await;
        carl.shows("#log", "still there?").await;
        let (program, _) = start(url.trim_start_matches("http://"));
        program.prints("is here");
        program.prints("is here");
        anna.shows("#peers", "carl").await;
        anna.shows("#peers", "Ferris").await;
        carl.shows("#peers", "Ferris").await;
        say(&carl, "back again").await;
        program.prints("): back again");
        anna.shows("#log", "back again").await;

        drop((anna, carl, browser));
        assert!(program.interrupted().success());
    });
}

/// The example, and where its page is.
fn start(address: &str) -> (Program, String) {
    let program = Program::start(example("browser"), &["--bind", address, "--address", "127.0.0.1"]);
    let url = program.prints("the page is at ").split_once("at ").unwrap().1.to_owned();
    program.prints("Ferris is peer 1 in the lobby");
    (program, url)
}

/// A window whose visitor has this name.
async fn visit(browser: &Browser, url: &str, name: &str) -> Page {
    let page = browser.open(url).await;
    let naming = "(name) => {
        const field = document.getElementById('name');
        field.value = name;
        field.dispatchEvent(new Event('input', { bubbles: true }));
    }";
    page.call(naming, json!(name)).await.unwrap();
    page.shows("#peers", "Ferris").await;
    page
}

async fn say(page: &Page, text: &str) {
    let saying = "(text) => {
        document.getElementById('text').value = text;
        document.getElementById('say').requestSubmit();
    }";
    page.call(saying, json!(text)).await.unwrap();
}
