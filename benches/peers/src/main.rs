//! The same work on webrtc-mesh and on other stacks, side by side: one table of medians, and of their ratios.
//!
//! ```text
//! cargo run --release                                  # everything, five rounds
//! cargo run --release -- reliable ping-pong            # the rows with these words in their names
//! cargo run --release -- --stacks M,E --rounds 3
//! cargo run --release -- --svg ../../docs/speed/stacks --json results.json
//! ```
//!
//! Each run of a stack is a process of its own, with a time limit: none finds the threads and the memory that another
//! left, and one that hangs or crashes is named, while the rest goes on. In every round the stacks take turns at each row;
//! a ratio is the median of the ratios within the rounds, so whatever else the machine does falls on all of them alike.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program")]

mod args;
mod message;
mod plot;
mod relay;
mod rows;
mod run;
mod stack;
mod stacks;
mod table;
mod usage;

use std::process::ExitCode;

use crate::args::{Args, Command};
use crate::rows::Row;
use crate::run::StackName;
use crate::stack::Result;
use crate::table::Table;

fn main() -> ExitCode {
    let done = match args::parse(std::env::args().skip(1)) {
        Ok(Command::Compare(args)) => compare(&args),
        Ok(Command::Once { row, stack, seed }) => run::here(row, stack, seed),
        Ok(Command::Help) => {
            println!("{}", args::HELP);
            Ok(())
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// How often a run is tried. Some of G's connections never open.
const TRIES: usize = 3;

fn compare(args: &Args) -> Result<()> {
    let mut table = Table::new(&args.stacks);
    for row in &args.rows {
        let mut stacks = args.stacks.clone();
        for round in 0..args.rounds {
            // Who fails at every try is left out of the row's other rounds.
            stacks.retain(|stack| (0..TRIES).any(|_| runs(row, *stack, round, &mut table)));
        }
    }
    println!("{table}");
    if let Some(file) = &args.json {
        std::fs::write(file, table.json()?)?;
    }
    if let Some(folder) = &args.svg {
        plot::draw(&table, folder)?;
    }
    Ok(())
}

/// Runs a row once. Whether it has not failed.
fn runs(row: &'static Row, stack: StackName, round: u64, table: &mut Table) -> bool {
    match run::in_a_process(row, stack, round) {
        Ok(values) => {
            eprintln!("{:<22} {} {}", row.name, stack.letter(), shown(&values));
            table.add(row, stack, round, values);
            true
        }
        Err(error) => {
            eprintln!("{:<22} {} failed: {error}", row.name, stack.letter());
            table.fail(row, stack, error.to_string());
            false
        }
    }
}

fn shown(values: &[f64]) -> String {
    values.iter().map(|value| format!("{value:.3}")).collect::<Vec<_>>().join(" ")
}
