//! One run of a row on a stack: in a process of its own, and what that process does.

use std::fs::File;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::rows::Row;
use crate::stack::Result;
use crate::stacks::libdatachannel::Libdatachannel;
use crate::stacks::matchbox::Matchbox;
use crate::stacks::str0m::Str0m;
use crate::stacks::webrtc::Webrtc;
use crate::stacks::webrtc_mesh::WebrtcMesh;

/// The stacks, by the letter that they have in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StackName {
    /// webrtc-mesh.
    M,
    /// The `webrtc` crate by itself.
    B,
    /// libdatachannel.
    E,
    /// str0m.
    D,
    /// matchbox_socket.
    G,
}

impl StackName {
    /// All, in the order of the table.
    pub const ALL: [StackName; 5] = [StackName::M, StackName::B, StackName::E, StackName::D, StackName::G];

    /// From its letter.
    pub fn parse(letter: &str) -> Result<StackName> {
        let found = StackName::ALL.into_iter().find(|stack| stack.letter().eq_ignore_ascii_case(letter));
        Ok(found.ok_or_else(|| format!("no such stack: {letter}; there are M, B, E, D and G"))?)
    }

    /// Its letter.
    pub fn letter(self) -> &'static str {
        match self {
            StackName::M => "M",
            StackName::B => "B",
            StackName::E => "E",
            StackName::D => "D",
            StackName::G => "G",
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            StackName::M => "webrtc-mesh",
            StackName::B => "webrtc",
            StackName::E => "libdatachannel",
            StackName::D => "str0m",
            StackName::G => "matchbox_socket",
        }
    }
}

/// Runs a row in a process of its own; a value for each of its figures.
///
/// It is ended at the row's time limit. Why it has failed is the last that it said.
pub fn in_a_process(row: &Row, stack: StackName, seed: u64) -> Result<Vec<f64>> {
    let (mut said, mut complained) = (scratch()?, scratch()?);
    let mut child = Command::new(std::env::current_exe()?)
        .args(["--once", row.name, stack.letter(), &seed.to_string()])
        .stdin(Stdio::null())
        .stdout(said.try_clone()?)
        .stderr(complained.try_clone()?)
        .spawn()?;
    let ends = Instant::now() + row.limit;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        if Instant::now() >= ends {
            child.kill()?;
            child.wait()?;
            let last = last_line(&mut complained)?;
            let limit = row.limit.as_secs();
            return Err(
                format!("not done after {limit} s{}{last}", if last.is_empty() { "" } else { ": " }).into()
            );
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    let values = last_line(&mut said)?;
    if !status.success() || values.is_empty() {
        return Err(format!("{} ({status})", last_line(&mut complained)?).into());
    }
    Ok(serde_json::from_str(&values)?)
}

/// What that process does: runs the row, prints the values, and ends without waiting for anything that still runs.
pub fn here(row: &Row, stack: StackName, seed: u64) -> Result<()> {
    let runtime = Runtime::new()?;
    let values = runtime.block_on(async {
        match stack {
            StackName::M => row.run::<WebrtcMesh>(seed).await,
            StackName::B => row.run::<Webrtc>(seed).await,
            StackName::E => row.run::<Libdatachannel>(seed).await,
            StackName::D => row.run::<Str0m>(seed).await,
            StackName::G => row.run::<Matchbox>(seed).await,
        }
    });
    let code = match values {
        Ok(values) => {
            println!("{}", serde_json::to_string(&values)?);
            0
        }
        Err(error) => {
            eprintln!("{error}");
            1
        }
    };
    std::process::exit(code)
}

/// A file that is gone when it is closed; a pipe would have to be read while the process runs.
fn scratch() -> Result<File> {
    Ok(tempfile::tempfile()?)
}

fn last_line(file: &mut File) -> Result<String> {
    let mut bytes = Vec::new();
    // The last of it is enough of a flood.
    let len = file.metadata()?.len();
    file.seek(SeekFrom::Start(len.saturating_sub(4096)))?;
    file.read_to_end(&mut bytes)?;
    let text = String::from_utf8_lossy(&bytes);
    Ok(text.lines().rfind(|line| !line.trim().is_empty()).unwrap_or_default().to_owned())
}
