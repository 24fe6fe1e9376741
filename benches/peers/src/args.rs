//! The command line.

use std::path::PathBuf;

use crate::rows::{ROWS, Row};
use crate::run::StackName;
use crate::stack::Result;

/// What `--help` prints.
pub const HELP: &str = "\
Runs the same work on webrtc-mesh and on other stacks, and prints a table.

Usage: cargo run --release -- [OPTIONS] [NAME]...

  NAME...         only the rows with one of these words in their names, such as `reliable` or `mesh of 8`
  --stacks M,E    only these: M webrtc-mesh, B webrtc by itself, E libdatachannel, D str0m,
                  G matchbox_socket
  --rounds N      how often each is run [default: 5]
  --svg FOLDER    draw a chart of each kind of row
  --json FILE     write all figures";

/// What to do.
#[derive(Debug)]
pub enum Command {
    /// Everything that was asked for, each in a process of its own.
    Compare(Args),
    /// Within such a process.
    Once {
        /// What is run.
        row: &'static Row,
        /// On what.
        stack: StackName,
        /// What the loss depends on.
        seed: u64,
    },
    /// Say how to ask.
    Help,
}

/// What to compare.
#[derive(Debug)]
pub struct Args {
    /// The rows, in the order of the table.
    pub rows: Vec<&'static Row>,
    /// The stacks, in the order of the table.
    pub stacks: Vec<StackName>,
    /// How often each is run.
    pub rounds: u64,
    /// Where to put the charts.
    pub svg: Option<PathBuf>,
    /// Where to put the figures.
    pub json: Option<PathBuf>,
}

/// Reads the arguments after the program's name.
pub fn parse(mut words: impl Iterator<Item = String>) -> Result<Command> {
    let mut names = Vec::new();
    let mut args =
        Args { rows: Vec::new(), stacks: StackName::ALL.to_vec(), rounds: 5, svg: None, json: None };
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or_else(|| format!("{word} wants a value"));
        match word.as_str() {
            "--help" | "-h" => return Ok(Command::Help),
            "--stacks" => args.stacks = value()?.split(',').map(StackName::parse).collect::<Result<_>>()?,
            "--rounds" => args.rounds = value()?.parse::<u64>()?.max(1),
            "--svg" => args.svg = Some(value()?.into()),
            "--json" => args.json = Some(value()?.into()),
            "--once" => {
                let (row, stack, seed) = (value()?, value()?, value()?);
                let row = ROWS.iter().find(|known| known.name == row).ok_or("no such row")?;
                return Ok(Command::Once { row, stack: StackName::parse(&stack)?, seed: seed.parse()? });
            }
            option if option.starts_with('-') => {
                return Err(format!("no such option: {option}\n\n{HELP}").into());
            }
            _ => names.push(word),
        }
    }
    // From the beginning of a word on, as `reliable` does not mean `unreliable`.
    let has = |row: &Row, name: &String| format!(" {}", row.name).contains(&format!(" {name}"));
    let is_asked_for = |row: &&Row| names.is_empty() || names.iter().any(|name| has(row, name));
    args.rows = ROWS.iter().filter(is_asked_for).collect();
    if args.rows.is_empty() {
        let known: Vec<_> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("no such row; there are: {}", known.join(", ")).into());
    }
    args.stacks.sort_unstable();
    args.stacks.dedup();
    Ok(Command::Compare(args))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

    use super::*;

    fn rows(line: &str) -> Vec<&'static str> {
        match parse(line.split(',').map(str::to_owned)).unwrap() {
            Command::Compare(args) => args.rows.iter().map(|row| row.name).collect(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn rows_are_asked_for_by_words_of_their_names() {
        assert_eq!(rows("reliable").len(), 4);
        assert_eq!(rows("mesh of 8,idle"), ["mesh of 8", "idle"]);
        assert!(parse(["nothing".to_owned()].into_iter()).is_err());
    }
}
