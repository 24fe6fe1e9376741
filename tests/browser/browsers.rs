//! Browsers that are started, driven and gone again, with all that they are made of.

use std::fmt;
use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::bidi::Bidi;
use crate::support::until;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Chromium,
    Firefox,
}

/// A running browser without a window; killed when dropped.
pub(crate) struct Browser {
    bidi: Bidi,
    _group: Group,
}

/// A page in a window of its own. Dropping it leaves it open.
#[derive(Debug, Clone)]
pub(crate) struct Page {
    bidi: Bidi,
    context: String,
}

impl Kind {
    /// Whether it can run; if not, says that it is skipped, or fails where it is required.
    pub(crate) fn is_installed(self) -> bool {
        let is_there = self.program().is_some();
        let packages = match self {
            Kind::Chromium => "chromium chromium-driver",
            Kind::Firefox => "firefox-esr",
        };
        let notice = format!("{self} is not installed; apt-get install {packages}, and run again");
        let required = std::env::var("WEBRTC_MESH_BROWSER").is_ok_and(|value| value == "require");
        assert!(is_there || !required, "{notice}");
        if !is_there {
            // `println!` would be kept from sight, as the test passes.
            let _ = writeln!(std::io::stderr(), "SKIPPED: {notice}");
        }
        is_there
    }

    /// What is started: it finds the rest by itself.
    fn program(self) -> Option<&'static str> {
        let names: &[_] = match self {
            Kind::Chromium => &["chromedriver"],
            Kind::Firefox => &["firefox-esr", "firefox"],
        };
        let runs = |name: &&'static str| {
            let mut probe = Command::new(name);
            probe.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            probe.status().is_ok_and(|status| status.success())
        };
        names.iter().copied().find(|name| runs(name))
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Kind::Chromium => "Chromium",
            Kind::Firefox => "Firefox",
        })
    }
}

/// A page tells its addresses, loopback too, if it may use the camera, which is granted to all pages and is no real one.
const CHROMIUM: [&str; 15] = [
    "--allow-loopback-in-peer-connection",
    "--use-fake-device-for-media-stream",
    "--use-fake-ui-for-media-stream",
    "--headless",
    "--no-sandbox",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-background-timer-throttling",
    "--disable-breakpad",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--disable-gpu",
    "--disable-quic",
    "--disable-renderer-backgrounding",
    "--disable-sync",
];

/// The same. Without the last line it takes itself to be offline where there is loopback alone.
const FIREFOX: &str = r#"
user_pref("media.peerconnection.ice.loopback", true);
user_pref("media.peerconnection.ice.obfuscate_host_addresses", false);
user_pref("permissions.default.camera", 1);
user_pref("permissions.default.microphone", 1);
user_pref("dom.min_background_timeout_value", 4);
user_pref("network.manage-offline-status", false);
"#;

impl Browser {
    pub(crate) async fn start(kind: Kind) -> Browser {
        let program = kind.program().unwrap();
        let directory = Group::new_directory();
        let profile = directory.display().to_string();
        let (group, url, capabilities) = match kind {
            Kind::Chromium => {
                let group = Group::start(directory, program, &["--port=0"]);
                let port = group.says("started successfully on port ").await;
                let url = format!("ws://127.0.0.1:{}", port.trim_end_matches('.'));
                let mut switches = CHROMIUM.map(str::to_owned).to_vec();
                switches.push(format!("--user-data-dir={profile}/profile"));
                let options = json!({ "goog:chromeOptions": { "args": switches } });
                (group, url, json!({ "alwaysMatch": options }))
            }
            Kind::Firefox => {
                std::fs::write(directory.join("user.js"), FIREFOX).unwrap();
                let switches =
                    ["--headless", "--no-remote", "--remote-debugging-port=0", "--profile", &profile];
                let group = Group::start(directory, program, &switches);
                let url = group.says("WebDriver BiDi listening on ").await;
                (group, url, json!({}))
            }
        };
        let bidi = Bidi::connect(&format!("{url}/session"), capabilities).await;
        Browser { bidi, _group: group }
    }

    /// A page, once it is loaded.
    pub(crate) async fn open(&self, url: &str) -> Page {
        let bidi = self.bidi.clone();
        let made = bidi.command("browsingContext.create", json!({ "type": "window" })).await.unwrap();
        let context = made["context"].as_str().unwrap().to_owned();
        let to = json!({ "context": context, "url": url, "wait": "complete" });
        bidi.command("browsingContext.navigate", to).await.unwrap();
        Page { bidi, context }
    }
}

impl Page {
    /// Calls a JavaScript function of one argument in the page, and waits for what it resolves to, or throws.
    pub(crate) async fn call(&self, function: &str, argument: Value) -> Result<Value, String> {
        let function =
            format!("async (argument) => JSON.stringify((await ({function})(JSON.parse(argument))) ?? null)");
        let call = json!({
            "functionDeclaration": function,
            "arguments": [{ "type": "string", "value": argument.to_string() }],
            "target": { "context": self.context },
            "awaitPromise": true,
        });
        let answer = self.bidi.command("script.callFunction", call).await?;
        match answer["result"]["value"].as_str() {
            Some(result) => Ok(serde_json::from_str(result).expect("what JSON.stringify makes")),
            None => Err(format!(
                "{}: {}",
                answer["exceptionDetails"]["text"], answer["exceptionDetails"]["stackTrace"]
            )),
        }
    }

    /// Waits until an element has this in its text.
    pub(crate) async fn shows(&self, selector: &str, text: &str) {
        let looking = "({ selector, text }) => new Promise((found, lost) => {
            const until = performance.now() + 20_000;
            const look = () => {
                const content = document.querySelector(selector)?.textContent ?? '';
                if (content.includes(text)) found();
                else if (performance.now() > until) lost(new Error(`no ${text} in ${content}`));
                else setTimeout(look, 10);
            };
            look();
        })";
        self.call(looking, json!({ "selector": selector, "text": text })).await.unwrap();
    }

    /// The mouse goes through these places of the page, pressed.
    pub(crate) async fn draw(&self, places: &[(u32, u32)]) {
        let to = |(x, y): &(u32, u32)| json!({ "type": "pointerMove", "x": x, "y": y, "duration": 50 });
        let mut actions: Vec<Value> = places.iter().map(to).collect();
        actions.insert(1, json!({ "type": "pointerDown", "button": 0 }));
        actions.push(json!({ "type": "pointerUp", "button": 0 }));
        let mouse = json!([{ "type": "pointer", "id": "mouse", "actions": actions }]);
        let perform = json!({ "context": self.context, "actions": mouse });
        self.bidi.command("input.performActions", perform).await.unwrap();
    }

    pub(crate) async fn reload(&self) {
        let page = json!({ "context": self.context, "wait": "complete" });
        self.bidi.command("browsingContext.reload", page).await.unwrap();
    }

    /// As a person closes it.
    pub(crate) async fn close(self) {
        self.bidi.command("browsingContext.close", json!({ "context": self.context })).await.unwrap();
    }
}

/// A program with all that it starts, and a directory for what they write. They end with this, and also when this process
/// is killed: a shell waits for the end of its input, and then kills the group that all of them are in.
struct Group {
    shell: Child,
    directory: PathBuf,
}

const SHELL: &str = r#""$@" </dev/null >"$HOME/log" 2>&1 & cat >/dev/null; kill -KILL 0"#;

impl Group {
    /// A directory that is home to what will be started.
    fn new_directory() -> PathBuf {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("browser-{}-{number}", std::process::id());
        let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::create_dir_all(&directory).unwrap();
        directory
    }

    fn start(directory: PathBuf, program: &str, arguments: &[&str]) -> Group {
        let shell = Command::new("sh")
            .args(["-c", SHELL, "sh", program])
            .args(arguments)
            .env("HOME", &directory)
            .env("TMPDIR", &directory)
            .env("MOZ_CRASHREPORTER_DISABLE", "1")
            .stdin(Stdio::piped())
            .process_group(0)
            .spawn()
            .unwrap();
        Group { shell, directory }
    }

    /// The rest of the line in which it says this.
    async fn says(&self, what: &str) -> String {
        let (mut log, mut rest) = (String::new(), None);
        let looking = until(async || {
            log = std::fs::read_to_string(self.directory.join("log")).unwrap_or_default();
            let whole_lines = log.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
            rest =
                whole_lines.filter_map(|line| line.split_once(what)).map(|(_, rest)| rest.to_owned()).next();
            rest.is_some()
        });
        looking.await;
        rest.unwrap()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The end of its input.
        drop(self.shell.stdin.take());
        let _ = self.shell.wait();
        // Those who were killed with it may still hold something for a moment.
        for _ in 0..100 {
            if std::fs::remove_dir_all(&self.directory).is_ok() || !self.directory.exists() {
                return;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}
