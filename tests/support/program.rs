//! Programs that are started, typed to and read, as somebody at a terminal does.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::LIMIT;

/// An example, as `cargo test` builds it beside the tests.
pub(crate) fn example(name: &str) -> PathBuf {
    let test = std::env::current_exe().unwrap();
    let folder = test.parent().unwrap().with_file_name("examples");
    let path = folder.join(name).with_extension(std::env::consts::EXE_EXTENSION);
    assert!(path.exists(), "first: cargo build --all-features --example {name}");
    path
}

/// A program that runs; killed when it is dropped.
pub(crate) struct Program {
    child: Child,
    stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    printed: std::cell::RefCell<Vec<String>>,
}

impl Program {
    pub(crate) fn start(path: impl AsRef<Path>, arguments: &[&str]) -> Program {
        let mut child = Command::new(path.as_ref())
            .args(arguments)
            .env("NO_COLOR", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (line, lines) = channel();
        let outputs: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().unwrap()), Box::new(child.stderr.take().unwrap())];
        for output in outputs {
            let line = line.clone();
            std::thread::spawn(move || {
                for text in BufReader::new(output).lines().map_while(Result::ok) {
                    let _ = line.send(text);
                }
            });
        }
        Program { stdin: child.stdin.take(), child, lines, printed: Vec::new().into() }
    }

    pub(crate) fn types(&mut self, line: &str) {
        writeln!(self.stdin.as_ref().unwrap(), "{line}").unwrap();
    }

    /// The end of its input.
    pub(crate) fn hears_no_more(&mut self) {
        self.stdin = None;
    }

    /// Waits for a line that contains this.
    pub(crate) fn prints(&self, what: &str) -> String {
        self.prints_within(what, LIMIT)
            .unwrap_or_else(|| panic!("no {what:?} in {:#?}", self.printed.borrow()))
    }

    fn prints_within(&self, what: &str, limit: Duration) -> Option<String> {
        let until = Instant::now() + limit;
        loop {
            let line = self.lines.recv_timeout(until.saturating_duration_since(Instant::now())).ok()?;
            self.printed.borrow_mut().push(line.clone());
            if line.contains(what) {
                return Some(line);
            }
        }
    }

    pub(crate) fn printed(&self, what: &str) -> bool {
        self.printed.borrow().iter().any(|line| line.contains(what))
    }

    /// Types it again and again until this is printed.
    pub(crate) fn types_until(&mut self, line: &str, what: &str) {
        let until = Instant::now() + LIMIT;
        loop {
            self.types(line);
            if self.prints_within(what, Duration::from_millis(200)).is_some() {
                return;
            }
            assert!(Instant::now() < until, "no {what:?} in {:#?}", self.printed.borrow());
        }
    }

    pub(crate) fn ends(mut self) -> ExitStatus {
        let until = Instant::now() + LIMIT;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < until, "it goes on, after {:#?}", self.printed.borrow());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub(crate) fn told_to_end(self) -> ExitStatus {
        self.signaled("-TERM")
    }

    /// Ctrl-C.
    pub(crate) fn interrupted(self) -> ExitStatus {
        self.signaled("-INT")
    }

    fn signaled(self, signal: &str) -> ExitStatus {
        let told = Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
        assert!(told.success());
        self.ends()
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
